// The dirty region log of a device: tickets, sweeps by the clock, plans of other shapes.
#include "engine/regionlog.h"

#include "property/native/harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kSecond = 1'000'000'000;

std::shared_ptr<Plan> plan(std::uint64_t regions, std::uint64_t region = kMiB, MirrorSide second = {}) {
  PlanMaker m;
  const NodeIndex a = m.component(0, regions * kMiB / kBlock);
  second.child = m.component(0, regions * kMiB / kBlock);
  second.slot = 1;
  m.mirror({{a, true}, second});
  std::get<MirrorNode>(m.plan->nodes.back()).region = region;
  return m.plan;
}

constexpr MirrorSide kInStep{0, true, true, false, 1};
constexpr MirrorSide kOffline{0, false, false, false, 1};
constexpr MirrorSide kStale{0, true, true, true, 1};

struct Rig {
  Rig()
      : log(7, 10 * kSecond,
            {.event = [this](EngineEvent e) { events.push_back(std::move(e)); },
             .attend = [this] { attended++; },
             .flush = [this](std::function<void(int)> done) { flushes.push_back(std::move(done)); }}) {}
  void advance(std::uint64_t to) {
    now = to;
    log.advance(now);
  }
  // Writes once into a region; the database agrees at once.
  void soil(std::uint32_t region) {
    RegionWaiter w;
    w.granted = [](RegionWaiter&, int) noexcept {};
    if (!log.regions()->enter(w, region * kMiB, 1)) {
      log.advance(now);
      REQUIRE(!events.empty());
      REQUIRE(events.back().kind == EngineEvent::Kind::regionsDirty);
      log.marked(events.back().ticket, true, 0);
    }
    log.regions()->leave(w);
  }
  void flushed(int error = 0) {
    REQUIRE(flushes.size() == 1);
    auto done = std::move(flushes[0]);
    flushes.clear();
    done(error);
  }

  std::vector<EngineEvent> events;
  std::vector<std::function<void(int)>> flushes;
  int attended = 0;
  std::uint64_t now = 100 * kSecond;
  RegionLog log;
};

}  // namespace

TEST_CASE("region log: a write that must wait is attended to, and its ticket is an event") {
  Rig rig;
  rig.log.mount(*plan(8, kMiB, kInStep));
  const int before = rig.attended;
  RegionWaiter w;
  static int answer;
  answer = -1;
  w.granted = [](RegionWaiter&, int error) noexcept { answer = error; };
  CHECK(!rig.log.regions()->enter(w, 3 * kMiB, 1));
  CHECK(rig.attended == before + 1);
  rig.advance(rig.now);
  REQUIRE(rig.events.size() == 1);
  CHECK(rig.events[0].kind == EngineEvent::Kind::regionsDirty);
  CHECK(rig.events[0].device == 7);
  CHECK(rig.events[0].regions == std::vector<std::uint32_t>{3});
  CHECK(rig.events[0].regionBlocks == 2048);
  rig.log.marked(rig.events[0].ticket + 5, true, 0);
  CHECK(answer == -1);
  rig.log.marked(rig.events[0].ticket, false, EROFS);
  CHECK(answer == EROFS);
}

TEST_CASE("region log: what the database holds is dirty from the beginning, and cleaned like the rest") {
  Rig rig;
  const std::byte dirty[] = {std::byte{0x12}};
  rig.log.load(dirty);
  rig.log.mount(*plan(8, kMiB, kInStep));
  CHECK(rig.log.regions()->snapshot().count() == 2);
  CHECK(rig.log.stale().behind(1) == nullptr);
  rig.advance(rig.log.wakeAt());
  CHECK(rig.flushes.empty());
  CHECK(rig.log.wakeAt() == rig.now + 10 * kSecond);
  rig.advance(rig.log.wakeAt());
  CHECK(rig.log.wakeAt() == UINT64_MAX);  // until the flush is over
  rig.flushed();
  rig.advance(rig.now);
  REQUIRE(rig.events.size() == 1);
  CHECK(rig.events[0].kind == EngineEvent::Kind::regionsIdle);
  CHECK(rig.events[0].regions == std::vector<std::uint32_t>{1, 4});
  rig.log.marked(rig.events[0].ticket, true, 0);
  CHECK(rig.log.wakeAt() == UINT64_MAX);
  CHECK(!rig.log.regions()->snapshot().any());
}

TEST_CASE("region log: a stale side at the start is behind where the database is dirty, and nothing is cleaned") {
  Rig rig;
  const std::byte dirty[] = {std::byte{0x12}};
  rig.log.load(dirty);
  rig.log.mount(*plan(8, kMiB, kStale));
  REQUIRE(rig.log.stale().behind(1) != nullptr);
  CHECK(rig.log.stale().behind(1)->count() == 2);
  CHECK(rig.log.wakeAt() == UINT64_MAX);
  rig.log.mount(*plan(8, kMiB, kInStep));
  CHECK(rig.log.wakeAt() != UINT64_MAX);
}

TEST_CASE("region log: after the last client the bitmap empties at once, in a few passes") {
  Rig rig;
  rig.log.mount(*plan(8, kMiB, kInStep));
  rig.log.clients(true, rig.now);
  rig.soil(2);
  rig.events.clear();
  rig.log.clients(false, rig.now);
  CHECK(rig.log.wakeAt() <= rig.now);
  rig.advance(rig.now);
  rig.flushed(EIO);
  rig.advance(rig.now);
  CHECK(rig.events.empty());
  REQUIRE(rig.flushes.size() == 1);  // again, without delay
  rig.flushed();
  rig.advance(rig.now);
  REQUIRE(rig.events.size() == 1);
  CHECK(rig.events[0].regions == std::vector<std::uint32_t>{2});
  rig.log.marked(rig.events[0].ticket, true, 0);
  CHECK(rig.log.wakeAt() == UINT64_MAX);
}

TEST_CASE("region log: passes after the last client come to an end") {
  Rig rig;
  rig.log.mount(*plan(8, kMiB, kInStep));
  rig.soil(2);
  rig.log.clients(false, rig.now);
  const std::uint64_t begin = rig.now;
  unsigned passes = 0;
  while (rig.log.wakeAt() < begin + 30 * kSecond) {
    rig.advance(std::max(rig.now, rig.log.wakeAt()));
    passes++;
    if (!rig.flushes.empty()) rig.flushed(EIO);
    REQUIRE(passes < 100);
  }
  CHECK(passes >= 13);
  CHECK(passes <= 16);
}

TEST_CASE("region log: a hold, a side out of step, the end of the device: no sweep") {
  Rig rig;
  rig.log.mount(*plan(8, kMiB, kInStep));
  rig.soil(2);
  rig.log.allowCleaning(false);
  CHECK(rig.log.wakeAt() == UINT64_MAX);
  rig.log.allowCleaning(true);
  CHECK(rig.log.wakeAt() != UINT64_MAX);
  rig.log.mount(*plan(8, kMiB, kOffline));
  CHECK(rig.log.wakeAt() == UINT64_MAX);
  rig.log.allowCleaning(false);
  rig.log.allowCleaning(true);
  CHECK(rig.log.wakeAt() == UINT64_MAX);
  rig.log.mount(*plan(8, kMiB, kInStep));
  rig.advance(rig.log.wakeAt());
  rig.advance(rig.log.wakeAt());
  // The plan that takes a side offline arrives while the sweep's flush is under way.
  rig.log.mount(*plan(8, kMiB, kOffline));
  rig.flushed();
  rig.events.clear();
  rig.advance(rig.now);
  CHECK(rig.events.empty());
  rig.log.mount(*plan(8, kMiB, kInStep));
  CHECK(rig.log.wakeAt() != UINT64_MAX);
  rig.log.close();
  CHECK(rig.log.wakeAt() == UINT64_MAX);
}

TEST_CASE("region log: a plan of another shape waits for the ticket, and what was dirty stays dirty") {
  Rig rig;
  rig.log.mount(*plan(8, kMiB, kInStep));
  rig.soil(3);
  RegionWaiter w;
  w.granted = [](RegionWaiter&, int) noexcept {};
  CHECK(!rig.log.regions()->enter(w, 5 * kMiB, 1));
  rig.advance(rig.now);
  CHECK(rig.log.mountable(*plan(8, kMiB, kOffline)));
  CHECK(!rig.log.mountable(*plan(16, kMiB, kInStep)));
  CHECK(!rig.log.mountable(*plan(8, 2 * kMiB, kInStep)));
  CHECK(!rig.log.mountable(*plan(8, 0, kInStep)));
  rig.log.marked(rig.events.back().ticket, true, 0);
  rig.log.regions()->leave(w);
  CHECK(rig.log.mountable(*plan(16, 2 * kMiB, kInStep)));
  rig.log.mount(*plan(16, 2 * kMiB, kInStep));
  const Bitmap map = rig.log.regions()->snapshot();
  CHECK(map.count() == 2);
  CHECK((map.test(1) && map.test(2)));
}

TEST_CASE("region log: a plan without a log ends it; the next one begins clean, or in doubt of what was never used") {
  Rig rig;
  const std::byte dirty[] = {std::byte{0x12}};
  rig.log.load(dirty);
  std::uint32_t known = 2;
  SUBCASE("in use before") {
    rig.log.mount(*plan(8, kMiB, kInStep));
    rig.soil(6);
    known = 0;
  }
  SUBCASE("not yet") {}
  rig.log.mount(*plan(8, 0, kInStep));
  CHECK(rig.log.regions() == nullptr);
  rig.log.mount(*plan(8, kMiB, kInStep));
  CHECK(rig.log.regions()->snapshot().count() == known);
  RegionWaiter w;
  w.granted = [](RegionWaiter&, int) noexcept {};
  CHECK(!rig.log.regions()->enter(w, 4 * kMiB, 1));
  rig.log.regions()->handBack();
  // A side that becomes stale now is behind in what the new log knows.
  rig.log.mount(*plan(8, kMiB, kStale));
  CHECK(rig.log.stale().behind(1)->count() == known + (known == 0 ? 1 : 0));
}
