// One NBD connection on a socket pair, with a device in memory behind it and every callback checked.
// For the fuzzer and the property test: single-threaded, everything random comes from the caller.
//
// Invariants checked on the way: only requests the export allows are submitted, each inside the device and
// with memory of its own; answers are counted; lent memory stays inside its bounds.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "nbd/connection.h"

namespace metadisk::fuzz {

inline void require(bool condition, const char* claim) {
  if (condition) return;
  std::fprintf(stderr, "violated: %s\n", claim);
  std::abort();
}

using Random = std::mt19937_64;

inline std::uint64_t below(Random& random, std::uint64_t n) { return n == 0 ? 0 : random() % n; }

// Requests take effect when submitted, so that the outcome follows from the order of the stream; their
// answers come at once, or later in any order.
class MemoryExport final : public nbd::Export {
 public:
  MemoryExport(Random& random, std::size_t bytes, nbd::Terms terms)
      : random_(random), memory_(bytes), terms_(std::move(terms)) {}

  std::uint64_t size() const noexcept override { return memory_.size(); }
  bool held() const noexcept override { return held_; }
  std::uint32_t stateFlags() const noexcept override { return 1; }
  void flying(int change) noexcept override { flying_ += change; }
  void account(std::uint16_t, std::uint64_t, bool) noexcept override {}

  void submit(Request& r) noexcept override {
    require(!held_, "nothing is submitted while the gate is closed");
    const bool changes = r.op == Op::write || r.op == Op::zero || r.op == Op::trim;
    require(!changes || !terms_.readOnly, "a read-only export is not changed");
    require(r.offset <= memory_.size() && r.length <= memory_.size() - r.offset, "requests lie inside the export");
    if (r.op != Op::flush) {
      require(r.length > 0, "requests have a length");
      require((r.offset | r.length) % terms_.minBlock == 0, "requests are as aligned as the terms say");
    }
    if (r.op == Op::read || r.op == Op::write) {
      require(r.length <= terms_.maxRequest, "requests are no larger than the terms say");
      require(r.data != nullptr && reinterpret_cast<std::uintptr_t>(r.data) % 4096 == 0, "payload memory is aligned");
    }
    const auto at = memory_.begin() + static_cast<std::ptrdiff_t>(r.offset);
    switch (r.op) {
      case Op::read: std::copy_n(at, r.length, r.data); break;
      case Op::write: std::copy_n(r.data, r.length, at); break;
      case Op::zero:
      case Op::trim: std::fill_n(at, r.length, std::byte{0}); break;
      case Op::extents: holes(r); break;
      case Op::flush:
      case Op::cache: break;
    }
    r.error = 0;
    if (below(random_, 2) == 0) return r.done(r);
    pending_.push_back(&r);
  }

  // Whole blocks of zeroes, counted from the start of the range.
  void holes(Request& r) {
    require(r.extents > 0 && r.data != nullptr, "there is room for an extent");
    auto* const out = reinterpret_cast<Extent*>(r.data);
    std::uint32_t count = 0;
    for (std::uint64_t at = 0; at < r.length;) {
      const std::uint64_t n = std::min<std::uint64_t>(512, r.length - at);
      const auto from = memory_.begin() + static_cast<std::ptrdiff_t>(r.offset + at);
      const bool hole =
          std::all_of(from, from + static_cast<std::ptrdiff_t>(n), [](std::byte b) { return b == std::byte{0}; });
      if (count == 0 || out[count - 1].hole != hole) {
        if (count == r.extents) break;
        out[count++] = {0, hole};
      }
      out[count - 1].length += n;
      at += n;
    }
    r.extents = count;
  }

  // A file of its own holds what was read, so that a lent page is as the stream's order wants it; in up to
  // three parts, anywhere in it, each as it is or as the sum of two.
  std::size_t ranges(std::uint64_t offset, std::uint64_t length, std::span<FileRange> out) noexcept override {
    require(!held_, "nothing is lent while the gate is closed");
    require(offset <= memory_.size() && length <= memory_.size() - offset, "lent bytes lie inside the export");
    if (below(random_, 2) == 0) return 0;
    Fd file(::memfd_create("lent", MFD_CLOEXEC));
    require(bool(file), "memfd_create");
    std::size_t count = 0;
    std::uint64_t at = 0;
    const auto put = [&](std::span<const std::byte> data, std::uint32_t summed) {
      at += below(random_, 5000);
      require(
          ::pwrite(file.get(), data.data(), data.size(), static_cast<off_t>(at)) == static_cast<ssize_t>(data.size()),
          "pwrite");
      out[count++] = {file.get(), at, data.size(), summed};
      at += data.size();
    };
    unsigned parts = 0;
    for (std::uint64_t done = 0; done < length; ++parts) {
      const std::uint64_t n = parts == 2 ? length - done : 1 + below(random_, length - done);
      const std::span<const std::byte> data(memory_.data() + offset + done, n);
      done += n;
      if (below(random_, 3) != 0) {
        put(data, 1);
        continue;
      }
      const auto mask = static_cast<std::byte>(1 + below(random_, 255));
      std::vector<std::byte> other(data.begin(), data.end());
      for (std::byte& b : other) b ^= mask;
      put(other, 2);
      put(std::vector<std::byte>(n, mask), 1);
    }
    file_ = std::move(file);
    return count;
  }

  // Answers some of the waiting requests, or all of them.
  void answer(bool all) {
    std::size_t n = all ? pending_.size() : below(random_, pending_.size() + 1);
    while (n-- > 0) {
      const std::size_t which = below(random_, pending_.size());
      Request* const done = pending_[which];
      pending_[which] = pending_.back();
      pending_.pop_back();
      done->done(*done);
    }
  }

  void hold(bool held) { held_ = held; }
  std::size_t pending() const { return pending_.size(); }
  int flying() const { return flying_; }
  std::span<std::byte> memory() { return memory_; }

 private:
  Random& random_;
  std::vector<std::byte> memory_;
  const nbd::Terms terms_;
  std::vector<Request*> pending_;
  bool held_ = false;
  int flying_ = 0;
  Fd file_;  // of the last ranges()
};

// Server and client of one connection; the client's bytes are sent and its answers collected by hand.
class Line final : public nbd::ConnectionHost {
 public:
  Line(Random& random, BufferPool& pool, const nbd::Terms& terms, std::size_t deviceBytes,
       const nbd::Connection::Options& options, std::span<const std::byte> residual = {})
      : device(random, deviceBytes, terms), limit_(options.maxBufferBytes), terms_(terms) {
    int pair[2];
    require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0, "socketpair");
    client_ = Fd(pair[0]);
    connection_ = std::make_unique<nbd::Connection>(Fd(pair[1]), terms, options, pool, pipes_, device, *this);
    // Over the size the connection chose.
    const int small = static_cast<int>(4096 << below(random, 6));
    ::setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    if (!residual.empty()) connection_->preload(residual);
    connection_->resume();
  }

  void wantFlush(nbd::Connection&) noexcept override { wanted_ = true; }
  void wantBuffer(nbd::Connection&) noexcept override { hungry_ = true; }
  bool mayLend() const noexcept override { return true; }
  void closed(nbd::Connection&) noexcept override {
    require(pipes_.lent() == 0, "a connection ends with every pipe back");
    require(connection_->inFlight() == 0, "a connection ends with nothing in flight");
    require(++ends_ == 1, "a connection ends once");
  }

  // How much of it the socket took.
  std::size_t send(std::span<const std::byte> bytes) {
    if (bytes.empty() || !client_) return 0;
    const ssize_t n = ::send(client_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return n > 0 ? static_cast<std::size_t>(n) : 0;
  }
  // As a client that is done sends nothing more but still listens, or is gone.
  void hangUp(bool wholly) {
    if (!client_) return;
    if (wholly) {
      client_.reset();
    } else {
      ::shutdown(client_.get(), SHUT_WR);
    }
  }
  // Collects up to `most` bytes of answers.
  void listen(std::size_t most) {
    if (!client_) return;
    const std::size_t have = answers.size();
    answers.resize(have + most);
    const ssize_t n = ::recv(client_.get(), answers.data() + have, most, MSG_DONTWAIT);
    answers.resize(have + (n > 0 ? static_cast<std::size_t>(n) : 0));
  }

  // One turn of the server's loop.
  void turn(bool all) {
    if (ended()) return;
    device.answer(all);
    if ((connection_->interest() & 1U /* EPOLLIN */) != 0) {
      while (connection_->receive() && all) {
      }
    }
    do {
      wanted_ = false;
      connection_->flush();
      const bool resumes = connection_->canResume() || std::exchange(hungry_, false);
      if (!ended() && resumes && !device.held()) connection_->resume();
    } while (wanted_ && all);
    require(device.flying() == static_cast<int>(device.pending()), "what is in flight is counted");
    require(connection_->lentBytes() <= std::max(limit_, BufferPool::roundedSize(terms_.maxRequest)),
            "a connection's buffers are bounded");
  }
  // The gate moves between turns.
  void hold(bool held) {
    device.hold(held);
    if (!held && !ended()) connection_->resume();
  }
  void drop() {
    if (!ended()) connection_->abort("the test");
  }

  bool ended() const { return ends_ != 0; }
  nbd::Connection& connection() { return *connection_; }

  MemoryExport device;
  std::vector<std::byte> answers;

 private:
  const std::size_t limit_;
  const nbd::Terms terms_;
  Fd client_;
  PagePipes pipes_;
  std::unique_ptr<nbd::Connection> connection_;
  unsigned ends_ = 0;
  bool wanted_ = false;
  bool hungry_ = false;
};

}  // namespace metadisk::fuzz
