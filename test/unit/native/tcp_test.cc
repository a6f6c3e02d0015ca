// Clients on TCP, where every send and receive may end in the middle of anything.
#include <array>
#include <atomic>
#include <thread>

#include "engine_rig.h"
#include "tcp_pair.h"

using namespace metadisk;
using namespace metadisk::test;
using namespace metadisk::nbd;

namespace {

constexpr std::size_t kSize = 8U << 20U;

Terms structured() {
  Terms terms;
  terms.structured = true;
  return terms;
}

}  // namespace

TEST_CASE("tcp: large requests in small pieces, both directions at once, in every dialect") {
  TempFile file(kSize);
  Rig rig;
  PlanBytes plan;
  plan.blocks = kSize / 512;
  REQUIRE(rig.install(0, plan, {&file}) == "");
  for (const bool chunks : {false, true}) {
    CAPTURE(chunks);
    TcpPair pair;
    std::string error;
    REQUIRE(rig.engine->adopt(pair.server.get(), 0, chunks ? structured() : Terms{}, {}, error) != 0);
    pair.server.reset();
    constexpr unsigned kRounds = 24;
    constexpr std::size_t kPiece = 300'001;
    std::vector<Bytes> wrote;
    for (unsigned i = 0; i < kRounds; ++i) wrote.push_back(pattern(kPiece, i + (chunks ? 100 : 0)));
    // The sender waits only for what a read must see: requests and answers meet on the way.
    std::array<std::atomic<bool>, kRounds> written{};
    const auto send = [&] {
      for (unsigned i = 0; i < kRounds; ++i) {
        const std::uint64_t at = i * kPiece + 7;
        if (!sendAll(pair.client, request(kWrite, at, kPiece, 2 * i, i % 5 == 0 ? kFua : 0) + wrote[i])) return;
        if (i < 5) continue;
        written[i - 5].wait(false);
        if (!sendAll(pair.client, request(kRead, at - 5 * kPiece, kPiece, 2 * i + 1))) return;
      }
    };
    // Ends the sender when the test does.
    struct Sender {
      ~Sender() {
        ::shutdown(socket.get(), SHUT_RDWR);
        for (auto& one : flags) one = true, one.notify_all();
        thread.join();
      }
      const Fd& socket;
      std::array<std::atomic<bool>, kRounds>& flags;
      std::thread thread;
    };
    const Sender sender{pair.client, written, std::thread(send)};
    unsigned reads = 0;
    for (unsigned answers = 0; answers < 2 * kRounds - 5; ++answers) {
      const Bytes head = receive(pair.client, chunks ? 20 : 16);
      REQUIRE(head.size() == (chunks ? 20 : 16));
      const auto cookie = loadBig<std::uint64_t>(head.data() + 8);
      if (!chunks) REQUIRE(loadBig<std::uint32_t>(head.data() + 4) == 0);
      if (cookie % 2 == 0) {
        written[cookie / 2] = true;
        written[cookie / 2].notify_all();
        continue;
      }
      if (chunks) REQUIRE(receive(pair.client, 8).size() == 8);
      const Bytes data = receive(pair.client, kPiece);
      REQUIRE(data == wrote[cookie / 2 - 5]);
      ++reads;
    }
    CHECK(reads == kRounds - 5);
    for (unsigned i = 0; i < kRounds; ++i) CHECK(file.read(i * kPiece + 7, kPiece) == wrote[i]);
  }
}

TEST_CASE("tcp: a client that resets the connection in the middle of an answer leaves nothing behind") {
  TempFile file(kSize);
  Rig rig;
  PlanBytes plan;
  plan.blocks = kSize / 512;
  REQUIRE(rig.install(0, plan, {&file}) == "");
  for (unsigned i = 0; i < 10; ++i) {
    TcpPair pair;
    std::string error;
    const std::uint32_t id = rig.engine->adopt(pair.server.get(), 0, Terms{}, {}, error);
    pair.server.reset();
    for (unsigned k = 0; k < 8; ++k) REQUIRE(sendAll(pair.client, request(kRead, 0, 1U << 20U, k)));
    CHECK(receive(pair.client, 1000 + 7777 * i).size() == 1000 + 7777 * i);
    const linger now{1, 0};
    ::setsockopt(pair.client.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    pair.client.reset();
    CHECK(rig.sawClosed(id));
  }
  CHECK(rig.engine->counters(0)[static_cast<std::size_t>(Counter::connections)] == 0);
  CHECK(rig.engine->counters(0)[static_cast<std::size_t>(Counter::inFlight)] == 0);
}
