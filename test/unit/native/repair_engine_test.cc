// Repairs in a running engine: threads, real files, plans that come and go meanwhile.
#include <atomic>
#include <thread>

#include "engine_rig.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

constexpr std::uint64_t kSize = 1 << 20;
constexpr std::uint64_t kTail = 65536;

EngineOptions twoThreads() {
  EngineOptions options;
  options.threads = 2;
  return options;
}

}  // namespace

TEST_CASE("repair: the end that a file lost is written again while clients read it and plans are swapped") {
  TempFile one(kSize, "/var/tmp");
  TempFile two(kSize, "/var/tmp");
  const Bytes data = pattern(kSize, 5);
  for (const TempFile* file : {&one, &two}) {
    REQUIRE(::pwrite(file->plain.get(), data.data(), kSize, 0) == static_cast<ssize_t>(kSize));
  }
  Rig rig(twoThreads());
  PlanBytes plan;
  plan.blocks = kSize / 512;
  plan.mirror = true;
  plan.children = 2;
  REQUIRE(rig.install(1, plan, {&one, &two}) == "");
  REQUIRE(::ftruncate(one.plain.get(), kSize - kTail) == 0);
  const Bytes tail(data.end() - kTail, data.end());
  std::atomic<bool> stop{false};
  std::atomic<unsigned> wrong{0}, reads{0};
  std::vector<std::thread> clients;
  for (unsigned i = 0; i < 2; i++) {
    clients.emplace_back([&, socket = std::make_shared<Fd>(rig.connect(1))] {
      while (!stop) {
        Bytes got;
        if (call(*socket, request(0, kSize - kTail, kTail, 1), kTail, &got) != 0 || got != tail) wrong++;
        // A second stream, so that the first one changes sides.
        if (call(*socket, request(0, (reads * 37 % 200) * 4096, 4096, 2), 4096) != 0) wrong++;
        reads++;
      }
    });
  }
  std::uint64_t repaired = 0;
  const auto whole = [&] {
    for (const auto& e : rig.events) {
      if (e.kind == EngineEvent::Kind::componentRepaired) {
        CHECK(e.device == 1);
        CHECK(e.component == 0);
        repaired += e.blocks;
      }
      if (e.kind == EngineEvent::Kind::componentError) CHECK((e.masked && !e.repairFailed && e.component == 0));
    }
    rig.events.clear();
    return repaired >= kTail / 512;
  };
  for (int i = 0; i < 200 && !rig.wait(whole, 50); i++) {
    plan.generation++;
    CHECK(rig.install(1, plan, {&one, &two}) == "");
  }
  stop = true;
  for (std::thread& client : clients) client.join();
  CHECK(repaired == kTail / 512);
  CHECK(wrong == 0);
  CHECK(one.read(0, kSize) == data);
}
