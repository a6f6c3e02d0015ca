// A running engine over temporary files, plans made by hand, and a client that speaks raw NBD.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/fd.h"
#include "engine/engine.h"
#include "nbd/protocol.h"
#include "plan/constants.h"
#include "plan/plan.h"

namespace metadisk::test {

using Bytes = std::vector<std::byte>;

inline Bytes pattern(std::size_t length, unsigned seed) {
  Bytes out(length);
  std::uint32_t x = seed * 2654435761U + 1;
  for (auto& b : out) {
    x ^= x << 13U;
    x ^= x >> 17U;
    x ^= x << 5U;
    b = static_cast<std::byte>(x);
  }
  return out;
}

class TempFile {
 public:
  explicit TempFile(std::uint64_t bytes, const char* directory = "/tmp", int flags = 0) {
    std::string name = std::string(directory) + "/metadisk-test-XXXXXX";
    Fd made(::mkstemp(name.data()));
    REQUIRE(made);
    REQUIRE(::ftruncate(made.get(), static_cast<off_t>(bytes)) == 0);
    fd = Fd(::open(name.c_str(), O_RDWR | O_CLOEXEC | flags));
    plain = std::move(made);
    ::unlink(name.c_str());
  }
  Bytes read(std::uint64_t offset, std::size_t length) const {
    Bytes out(length);
    CHECK(::pread(plain.get(), out.data(), length, static_cast<off_t>(offset)) == static_cast<ssize_t>(length));
    return out;
  }
  Fd fd;  // invalid when the flags are not supported here
  Fd plain;
};

// One component node per file, then the root over them.
struct PlanBytes {
  std::uint64_t generation = 1;
  bool mirror = false;
  bool readOnly = false;
  unsigned children = 1;
  std::uint64_t blocks = 0;  // of each child
  // RAID5 over all children, with segments of 64 blocks and a prewrite area of 400.
  bool raid5 = false;
  bool replay = false;
  std::uint32_t missing = 0;  // children that are neither read nor written, one bit each
  std::uint32_t behind = 0;   // and that are written alone
  std::uint64_t epoch = 1;

  Bytes encode() const {
    namespace l = layout;
    const unsigned rows = mirror ? 0 : raid5 ? 2 : children;
    Bytes out(l::kHeaderBytes + (children + 1) * l::kNodeBytes + rows * l::kRowBytes + children * l::kRefBytes);
    const auto put = [&](std::uint64_t at, auto value) { std::memcpy(out.data() + at, &value, sizeof value); };
    put(0, static_cast<std::uint32_t>(l::kMagic));
    put(l::kOffsetVersion, static_cast<std::uint16_t>(l::kVersion));
    put(l::kOffsetHeaderBytes, static_cast<std::uint16_t>(l::kHeaderBytes));
    put(l::kOffsetTotal, static_cast<std::uint32_t>(out.size()));
    put(l::kOffsetGeneration, generation);
    put(l::kOffsetFlags, static_cast<std::uint32_t>(readOnly ? l::kFlagReadOnly : 0));
    put(l::kOffsetNodes, children + 1);
    put(l::kOffsetRows, rows);
    put(l::kOffsetRefs, children);
    std::uint64_t at = l::kHeaderBytes;
    for (unsigned i = 0; i < children; ++i, at += l::kNodeBytes) {
      put(at + l::kNodeKind, static_cast<std::uint8_t>(l::kKindComponent));
      const std::uint64_t flags = (((missing | behind) >> i & 1U) == 0 ? l::kComponentReadable : 0) |
                                  ((missing >> i & 1U) == 0 ? l::kComponentWritable : 0);
      put(at + l::kNodeFlags, static_cast<std::uint8_t>(flags));
      put(at + l::kNodeComponent, std::uint32_t{i});
      put(at + l::kNodeBlocks, blocks);
    }
    put(at + l::kNodeKind, static_cast<std::uint8_t>(mirror ? l::kKindMirror : l::kKindStripe));
    put(at + l::kNodeBlocks, mirror ? blocks : blocks * children);
    put(at + l::kNodeCount, children);
    const std::uint64_t lines = raid5 ? (blocks - 400) / 64 : 0;
    if (raid5) {
      put(at + l::kNodeKind, static_cast<std::uint8_t>(l::kKindRaid5));
      put(at + l::kNodeFlags, static_cast<std::uint8_t>(replay ? l::kRaidReplay : 0));
      put(at + l::kNodeComponent, children);
      put(at + l::kNodeStart, epoch);
      put(at + l::kNodeBlocks, lines * 64 * (children - 1));
      put(at + l::kNodeCount, std::uint32_t{2});
    }
    at += l::kNodeBytes;
    for (unsigned i = 0; raid5 && i < rows; ++i, at += l::kRowBytes) {
      put(at + l::kRowInterlace, std::uint64_t{i == 0 ? 64U : 400U});
      put(at + l::kRowBlocks, i == 0 ? lines : 99);
      put(at + l::kRowCount, std::uint32_t{i == 0 ? children : 0});
      put(at + l::kRowFirst, std::uint32_t{i == 0 ? 0 : children});
    }
    for (unsigned i = 0; !raid5 && i < rows; ++i, at += l::kRowBytes) {
      put(at + l::kRowInterlace, std::uint64_t{1024});
      put(at + l::kRowBlocks, blocks);
      put(at + l::kRowFirst, std::uint32_t{i});
      put(at + l::kRowCount, std::uint32_t{1});
    }
    for (unsigned i = 0; i < children; ++i, at += l::kRefBytes) {
      put(at + l::kRefNode, std::uint32_t{i});
      put(at + l::kRefFlags,
          static_cast<std::uint32_t>(mirror ? l::kRefReadable | l::kRefWritable | i << l::kRefSlotShift : 0));
    }
    put(l::kOffsetCrc, crc32c(out));
    return out;
  }
};

class Rig {
 public:
  explicit Rig(EngineOptions options = {}) {
    engine = std::make_unique<Engine>(options, [this] {
      const std::lock_guard lock(mutex_);
      rung_ = true;
      bell_.notify_all();
    });
  }

  // The threads ring until they are gone.
  ~Rig() { engine.reset(); }

  // Collects until `until` holds; false after ten seconds.
  template <typename Until>
  bool wait(Until until, int millis = 10'000) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(millis);
    for (;;) {
      engine->collect();
      for (auto& event : engine->drain(1000)) events.push_back(std::move(event));
      if (until()) return true;
      std::unique_lock lock(mutex_);
      if (!bell_.wait_until(lock, end, [this] { return rung_; })) return false;
      rung_ = false;
    }
  }

  // The error text of an operation; "(no answer)" when it does not end.
  template <typename Begin>
  std::string run(Begin begin) {
    auto result = std::make_shared<std::optional<std::string>>();
    begin([result](std::string error) { *result = std::move(error); });
    return wait([&] { return result->has_value(); }) ? **result : "(no answer)";
  }

  std::string install(std::uint32_t device, const PlanBytes& plan, const std::vector<const TempFile*>& files,
                      bool direct = false) {
    std::vector<ComponentSpec> specs;
    for (unsigned i = 0; i < files.size(); ++i) {
      ComponentSpec spec;
      spec.component = i;
      spec.fd = files[i]->fd.get();
      spec.direct = direct;
      spec.size = plan.blocks * 512;
      specs.push_back(spec);
    }
    const Bytes bytes = plan.encode();
    return run([&](Engine::Done done) { engine->install(device, bytes, specs, {}, std::move(done)); });
  }

  // The client's end of a new connection.
  Fd connect(std::uint32_t device, const nbd::Terms& terms = {}, const Bytes& residual = {}) {
    int pair[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    const Fd theirs(pair[1]);
    std::string error;
    lastConnection = engine->adopt(theirs.get(), device, terms, residual, error);
    CHECK(error == "");
    return Fd(pair[0]);
  }

  bool sawClosed(std::uint32_t connection) {
    return wait([&] {
      for (const auto& e : events) {
        if (e.kind == EngineEvent::Kind::connectionClosed && e.connection == connection) return true;
      }
      return false;
    });
  }

  std::unique_ptr<Engine> engine;
  std::vector<EngineEvent> events;
  std::uint32_t lastConnection = 0;

 private:
  std::mutex mutex_;
  std::condition_variable bell_;
  bool rung_ = false;
};

// ---- the client

inline Bytes request(std::uint16_t command, std::uint64_t offset, std::uint64_t length, std::uint64_t cookie,
                     std::uint16_t flags = 0, bool extended = false) {
  Bytes out(extended ? 32 : 28);
  std::byte* at = nbd::storeBig(out.data(), extended ? nbd::kExtendedRequestMagic : nbd::kRequestMagic);
  at = nbd::storeBig(at, flags);
  at = nbd::storeBig(at, command);
  at = nbd::storeBig(at, cookie);
  at = nbd::storeBig(at, offset);
  if (extended) {
    nbd::storeBig(at, length);
  } else {
    nbd::storeBig(at, static_cast<std::uint32_t>(length));
  }
  return out;
}

inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline bool sendAll(const Fd& socket, const Bytes& bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::send(socket.get(), bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (n <= 0) return false;
    done += static_cast<std::size_t>(n);
  }
  return true;
}

// Shorter than asked when the server hung up or did not answer for ten seconds.
inline Bytes receive(const Fd& socket, std::size_t length) {
  Bytes out(length);
  std::size_t done = 0;
  while (done < length) {
    pollfd p{socket.get(), POLLIN, 0};
    if (::poll(&p, 1, 10'000) <= 0) break;
    const ssize_t n = ::recv(socket.get(), out.data() + done, length - done, 0);
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  out.resize(done);
  return out;
}

struct SimpleReply {
  std::uint32_t magic = 0;
  std::uint32_t error = 0xffffffff;
  std::uint64_t cookie = 0;
};

inline SimpleReply simpleReply(const Fd& socket) {
  const Bytes head = receive(socket, 16);
  if (head.size() < 16) return {};
  return {nbd::loadBig<std::uint32_t>(head.data()), nbd::loadBig<std::uint32_t>(head.data() + 4),
          nbd::loadBig<std::uint64_t>(head.data() + 8)};
}

// One request with a simple reply; the error, and the data of a read.
inline std::uint32_t call(const Fd& socket, const Bytes& bytes, std::size_t readBytes = 0, Bytes* data = nullptr) {
  if (!sendAll(socket, bytes)) return 0xfffffffe;
  const SimpleReply reply = simpleReply(socket);
  if (reply.magic != nbd::kSimpleReplyMagic) return 0xffffffff;
  if (reply.error == 0 && readBytes != 0) {
    const Bytes got = receive(socket, readBytes);
    if (data != nullptr) *data = got;
  }
  return reply.error;
}

}  // namespace metadisk::test
