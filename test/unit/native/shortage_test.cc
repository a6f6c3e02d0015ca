// Memory for payloads is short: everybody goes on in turn, and who holds it without moving goes.
#include <chrono>
#include <thread>

#include "engine_rig.h"

using namespace metadisk;
using namespace metadisk::test;
using namespace metadisk::nbd;

namespace {

constexpr std::size_t kLarge = 1U << 20U;
constexpr std::uint64_t kBlocks = 16384;  // 8 MiB

PlanBytes plan() {
  PlanBytes made;
  made.blocks = kBlocks;
  return made;
}

// Four of the largest requests fill the memory of the one thread.
EngineOptions shortOfMemory() {
  EngineOptions options;
  options.threads = 1;
  options.maxRequestBytes = kLarge;
  options.bufferBytes = 4 * kLarge;
  return options;
}

}  // namespace

TEST_CASE("the pool serves only the first in line while there is one") {
  BufferPool pool(8192);
  const int first = 0;
  const int other = 0;
  pool.serveOnly(&first);
  CHECK(pool.acquire(4096, &other) == nullptr);
  CHECK(pool.acquire(4096) == nullptr);
  CHECK(pool.served() == 0);
  std::byte* const mine = pool.acquire(4096, &first);
  REQUIRE(mine != nullptr);
  CHECK(pool.served() == 1);
  pool.release(mine, 4096);
  pool.serveOnly(nullptr);
  std::byte* const theirs = pool.acquire(4096, &other);
  CHECK(theirs == mine);
  pool.release(theirs, 4096);
}

TEST_CASE("with memory for four requests, thirty clients of large ones all get their turn") {
  TempFile file(kBlocks * 512);
  Rig rig(shortOfMemory());
  REQUIRE(rig.install(0, plan(), {&file}) == "");
  std::atomic<bool> enough{false};
  std::vector<std::thread> clients;
  // Some that never leave a gap: whatever memory comes back, they have a small request that fits it.
  constexpr std::size_t small = 65536;
  for (unsigned g = 0; g < 6; ++g) {
    clients.emplace_back([&, socket = std::make_shared<Fd>(rig.connect(0))] {
      unsigned asked = 0;
      unsigned answered = 0;
      while (!enough || answered < asked) {
        for (; asked < answered + 100 && !enough; ++asked) {
          if (!sendAll(*socket, request(kRead, 0, small, asked))) return;
        }
        if (simpleReply(*socket).error != 0 || receive(*socket, small).size() != small) return;
        ++answered;
      }
    });
  }
  std::atomic<unsigned> failures{0};
  std::atomic<unsigned> left{27};
  for (unsigned c = 0; c < 27; ++c) {
    clients.emplace_back([&, c, socket = std::make_shared<Fd>(rig.connect(0))] {
      const Bytes data = pattern(kLarge / 4, c);
      for (unsigned i = 0; i < 8; ++i) {
        const std::uint64_t at = (c % 4) * kLarge / 4 + kLarge * 4;
        if (call(*socket, request(kWrite, at, data.size(), 2 * i) + data) != 0) ++failures;
        if (call(*socket, request(kRead, 0, kLarge / (1U + c % 3), 2 * i + 1), kLarge / (1U + c % 3)) != 0) ++failures;
      }
      --left;
    });
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  while (left != 0 && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(left == 0);
  enough = true;
  for (auto& client : clients) client.join();
  CHECK(failures == 0);
  CHECK(rig.engine->counters(0)[static_cast<std::size_t>(Counter::inFlight)] == 0);
}

TEST_CASE("clients that hold memory and trickle go when others wait for it, even on a busy thread") {
  TempFile file(kBlocks * 512);
  Rig rig(shortOfMemory());
  REQUIRE(rig.install(0, plan(), {&file}) == "");
  std::vector<Fd> misers;
  std::vector<std::uint32_t> ids;
  for (unsigned i = 0; i < 4; ++i) {
    misers.push_back(rig.connect(0));
    ids.push_back(rig.lastConnection);
    REQUIRE(sendAll(misers.back(), request(kWrite, i * kLarge, kLarge, i)));
  }
  const Fd busy = rig.connect(0);
  // All memory is lent once a fifth asks in vain; nothing shows that from outside, so it simply asks.
  const Fd waiting = rig.connect(0);
  std::atomic<bool> answered{false};
  std::thread client([&] {
    const Bytes data = pattern(4096, 1);
    for (int i = 0; i < 100; ++i) {
      if (!sendAll(waiting, request(kWrite, 0, 4096, 1) + data)) return;
      SimpleReply reply;
      for (int tries = 0; tries < 12 && reply.magic == 0; ++tries) reply = simpleReply(waiting);
      if (reply.error != 0) return;
    }
    answered = true;
  });
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(100);
  while (!answered && std::chrono::steady_clock::now() < end) {
    // A byte now and then, and flushes of another client that keep the thread from sleeping.
    for (const Fd& miser : misers) {
      const std::byte one{};
      [[maybe_unused]] const ssize_t n = ::send(miser.get(), &one, 1, MSG_NOSIGNAL);
    }
    for (int i = 0; i < 20 && !answered; ++i) {
      if (call(busy, request(kCache, 0, 4096, 5)) != 0) break;
    }
  }
  CHECK(answered);
  client.join();
  unsigned gone = 0;
  rig.wait([&] { return true; });
  for (const auto& event : rig.events) {
    for (const std::uint32_t id : ids) {
      if (event.kind != EngineEvent::Kind::connectionClosed || event.connection != id) continue;
      CHECK(event.reason == "held memory others needed and did not move");
      ++gone;
    }
  }
  CHECK(gone > 0);
  CHECK(call(busy, request(kRead, 0, 4096, 9), 4096) == 0);
}
