// RAID5 as a volume: what plans change and what outlives them.
#include <doctest/doctest.h>

#include "property/native/raid5_rig.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

PlanMaker maker() {
  PlanMaker made;
  made.plan = plan5({.originals = 3, .columns = 4, .interlace = 16, .lines = 30, .prewrite = 200}, made.sizes);
  return made;
}

std::shared_ptr<Plan> changed(const Volume& volume, void (*change)(Raid5Node&)) {
  auto plan = std::make_shared<Plan>(volume.plan());
  plan->generation++;
  change(std::get<Raid5Node>(plan->nodes.back()));
  return plan;
}

void swap(Bench& bench, void (*change)(Raid5Node&)) {
  auto next = changed(*bench.volume, change);
  bench.volume->quiesce();
  bench.drain();
  bench.open(std::move(next));
}

bool holds(Bench& bench, std::uint64_t offset, std::uint64_t length, std::uint8_t fill) {
  Call call(Op::read, offset, length);
  return bench.run(call) == 0 && std::all_of(call.buffer.begin(), call.buffer.end(),
                                             [&](std::byte b) { return b == static_cast<std::byte>(fill); });
}

}  // namespace

TEST_CASE("raid5 volume: it lends what lies in place on columns that may be read") {
  Bench bench(maker(), 4);
  const std::uint64_t segment = 16 * kBlock;
  std::array<FileRange, 8> ranges;
  // Segments 0 and 1: line 0, columns 0 and 1, behind the prewrite areas of 200 blocks.
  REQUIRE(bench.volume->ranges(1000, segment, ranges) == 2);
  CHECK(ranges[0].offset == 200 * kBlock + 1000);
  CHECK(ranges[0].length == segment - 1000);
  CHECK(ranges[1].offset == (1 + 200) * kBlock);
  CHECK(ranges[1].length == 1000);
  CHECK(bench.volume->ranges(0, 9 * segment, ranges) == 0);  // more than there is room for
  CHECK(bench.volume->ranges(bench.volume->size() - 512, 1024, ranges) == 0);

  CHECK(bench.run(Op::write, 3 * segment + 512, 512, 7) == 0);
  CHECK(bench.volume->ranges(3 * segment, segment, ranges) == 0);
  CHECK(bench.volume->ranges(2 * segment, 4 * segment, ranges) == 0);
  CHECK(bench.volume->ranges(0, 2 * segment, ranges) == 2);  // nobody wrote there
  CHECK(bench.volume->ranges(3 * segment + 4096, 4096, ranges) == 1);
  CHECK(bench.run(Op::flush) == 0);
  bench.drain();
  CHECK(bench.volume->ranges(2 * segment, 4 * segment, ranges) == 4);

  swap(bench, [](Raid5Node& node) {
    node.columns[1].service = {false, false, 0};
    node.columns[1].file = kNoFile;
  });
  CHECK(bench.volume->ranges(0, segment, ranges) == 1);
}

TEST_CASE("raid5 volume: of the one column that may not be read it lends the sum of all others") {
  Bench bench(maker(), 4, {.latencyMax = 4});
  const std::uint64_t segment = 16 * kBlock;
  CHECK(bench.run(Op::write, 0, 9 * segment, 7, true) == 0);
  bench.drain();
  std::array<FileRange, 8> ranges;
  const auto pieces = [&](std::uint64_t offset, std::uint64_t length) {
    return bench.volume->ranges(offset, length, ranges);
  };
  const auto takeOut = [&](bool written) {
    auto plan = changed(*bench.volume, [](Raid5Node&) {});
    Raid5Column& column = std::get<Raid5Node>(plan->nodes.back()).columns[1];
    column.service = {false, written, 0};
    column.file = written ? 1 : kNoFile;
    bench.volume->quiesce();
    bench.drain();
    bench.open(std::move(plan));
  };
  for (const bool written : {false, true}) {
    CAPTURE(written);
    takeOut(written);
    // Segment 1 is column 1 of line 0: parity is column 2, an attached one 3.
    REQUIRE(pieces(segment + 1000, 5000) == 3);
    for (unsigned i = 0; i < 3; i++) {
      const std::uint64_t start = std::array<std::uint64_t, 3>{200, 202, 200}[i] * kBlock;
      CHECK(ranges[i].offset == start + 1000);
      CHECK(ranges[i].length == 5000);
      CHECK(ranges[i].summed == 3);
    }
    REQUIRE(pieces(0, 2 * segment) == 4);
    CHECK(ranges[0].summed == 1);
    CHECK(ranges[1].summed == 3);
    CHECK(pieces(0, 9 * segment) == 0);  // more than there is room for
    CHECK(bench.volume->ranges(segment, 512, std::span(ranges).first(2)) == 0);
    // Whatever is dirty in the row, in another column or the missing one: parity in place does not know of it.
    for (const std::uint64_t at : {std::uint64_t{0}, segment}) {
      CHECK(bench.run(Op::write, at + 4096, 512, 8) == 0);
      CHECK(pieces(segment, segment) == 0);
      CHECK(pieces(segment + 4096 + 512, 512) == 0);
      CHECK(pieces(segment, 4096) == 3);  // nobody wrote to that row
      CHECK(bench.run(Op::flush) == 0);
      // In the journal, and on its way into place.
      CHECK(bench.volume->inFlight() != 0);
      CHECK(pieces(segment, segment) == 0);
      bench.drain();
      CHECK(pieces(segment, segment) == 3);
    }
  }
  swap(bench, [](Raid5Node& node) { node.columns[0].service = {false, true, 0}; });
  CHECK(pieces(segment, 512) == 0);
  CHECK(pieces(0, segment) == 0);
}

TEST_CASE("raid5 volume: it has an owner thread and calls nothing a hole") {
  Bench bench(maker(), 1);
  CHECK(bench.volume->stateful());
  CHECK(bench.volume->size() == 30 * 16 * 3 * kBlock);
  Call extents(Op::extents, 512, 100000);
  std::array<Extent, 3> found;
  extents.data = reinterpret_cast<std::byte*>(found.data());
  extents.extents = 3;
  CHECK(bench.run(extents) == 0);
  CHECK(extents.extents == 1);
  CHECK(found[0].length == 100000);
  CHECK(!found[0].hole);
  CHECK(bench.volume->startVerify({}) == EINVAL);
}

TEST_CASE("raid5 volume: what was written and not flushed outlives a plan") {
  Bench bench(maker(), 2, {.latencyMax = 4});
  CHECK(bench.run(Op::write, 3000, 50000, 7) == 0);
  swap(bench, [](Raid5Node& node) {
    node.columns[1].service = {false, false, 0};
    node.columns[1].file = kNoFile;
  });
  CHECK(holds(bench, 3000, 50000, 7));
  CHECK(bench.run(Op::flush) == 0);
  CHECK(bench.state.raid5->cache->oldestDirty() == nullptr);
  CHECK(bench.run(Op::write, 60000, 5000, 8, true) == 0);
  CHECK(holds(bench, 3000, 50000, 7));
  bench.drain();
}

TEST_CASE("raid5 volume: a read-only plan still takes to the columns what was acknowledged") {
  Bench bench(maker(), 3);
  CHECK(bench.run(Op::write, 0, 4096, 7) == 0);
  auto plan = changed(*bench.volume, [](Raid5Node&) {});
  plan->readOnly = true;
  bench.volume->quiesce();
  bench.drain();
  bench.open(plan);
  CHECK(bench.run(Op::write, 0, 4096, 8) == EROFS);
  CHECK(bench.run(Op::zero, 0, 4096) == EROFS);
  CHECK(bench.run(Op::flush) == 0);
  CHECK(holds(bench, 0, 4096, 7));
  bench.drain();
}

TEST_CASE("raid5 volume: a replay comes first, tells how it went, and serves nothing") {
  Bench bench(maker(), 4);
  CHECK(bench.run(Op::write, 0, 9000, 7, true) == 0);
  bench.volume->quiesce();
  bench.drain();
  // The process ends here: what it remembered is gone, the journal is not.
  auto plan = changed(*bench.volume, [](Raid5Node& node) { node.replay = true; });
  bench.volume.reset();
  bench.state.raid5.reset();
  bench.open(plan);
  bench.drain();
  REQUIRE(bench.replays.size() == 1);
  CHECK(bench.replays[0].error == 0);
  CHECK(bench.replays[0].groups == 1);
  CHECK(bench.replays[0].damaged == 0);
  CHECK(bench.run(Op::read, 0, 512) == EIO);
  bench.open(changed(*bench.volume, [](Raid5Node& node) {
    node.replay = false;
    node.epoch++;
  }));
  CHECK(holds(bench, 0, 9000, 7));
  // Of another epoch: nothing is carried out again.
  auto later = changed(*bench.volume, [](Raid5Node& node) { node.replay = true; });
  bench.volume.reset();
  bench.state.raid5.reset();
  bench.open(later);
  bench.drain();
  REQUIRE(bench.replays.size() == 2);
  CHECK(bench.replays[1].groups == 0);
}

TEST_CASE("raid5 volume: a replay that cannot write says so, and can be made again") {
  Bench bench(maker(), 5);
  CHECK(bench.run(Op::write, 0, 9000, 7, true) == 0);
  bench.volume->quiesce();
  bench.drain();
  auto plan = changed(*bench.volume, [](Raid5Node& node) { node.replay = true; });
  bench.volume.reset();
  bench.state.raid5.reset();
  bench.sim.fault({.file = 0, .op = IoOp::write});
  bench.open(plan);
  bench.drain();
  REQUIRE(bench.replays.size() == 1);
  CHECK(bench.replays[0].error == EIO);
  REQUIRE(!bench.events.empty());
  CHECK(bench.events.back().component == 100);
  bench.open(changed(*bench.volume, [](Raid5Node& node) {
    node.columns[0].service = {false, false, 0};
    node.columns[0].file = kNoFile;
  }));
  bench.drain();
  REQUIRE(bench.replays.size() == 2);
  CHECK(bench.replays[1].error == 0);
  CHECK(bench.replays[1].groups == 1);
}

namespace {

// Column 0 is away; a change is committed, and column 1 takes nothing of it: 7 is in the journal alone, 5 in place.
void stuck(Bench& bench) {
  CHECK(bench.run(Op::write, 0, 6 * 3 * 16 * kBlock, 5, true) == 0);
  swap(bench, [](Raid5Node& node) {
    node.columns[0].service = {false, false, 0};
    node.columns[0].file = kNoFile;
  });
  CHECK(bench.run(Op::write, 100000, 512, 8, true) == 0);
  bench.drain();
  const std::uint64_t start = std::get<Raid5Node>(bench.volume->plan().root()).columns[1].start;
  bench.sim.fault({.file = 1, .op = IoOp::write, .first = start});
  CHECK(bench.run(Op::write, 3000, 9000, 7, true) == 0);
  bench.volume->quiesce();
  for (unsigned turns = 0; bench.volume->inFlight() != 0; turns++) {
    REQUIRE(turns < 10'000);
    bench.sim.poll();
  }
  Hold& hold = bench.state.hold;
  hold.announce();
  hold.settle(hold.number(), true);
  hold.release([](Request&) {});
}
void restart(Bench& bench, bool replay, bool readOnly, std::uint64_t epochs, bool process = false) {
  auto plan = std::make_shared<Plan>(bench.volume->plan());
  plan->generation++;
  plan->readOnly = readOnly;
  Raid5Node& node = std::get<Raid5Node>(plan->nodes.back());
  node.replay = replay;
  node.epoch += epochs;
  node.columns[1].service.lastErred = readOnly ? 1 : 0;
  if (process) {
    bench.volume.reset();
    bench.state.raid5.reset();
  }
  bench.open(plan);
  bench.drain();
}
bool before(Bench& bench) { return holds(bench, 0, 3000, 5) && holds(bench, 12000, 48000, 5); }

}  // namespace

TEST_CASE("raid5 volume: what cannot be replayed because a column takes no writes can be read all the same") {
  Bench bench(maker(), 6);
  stuck(bench);
  restart(bench, true, false, 0, true);
  REQUIRE(bench.replays.size() == 1);
  CHECK(bench.replays[0].error == EIO);
  const std::uint64_t written = bench.sim.started(IoOp::write);
  bench.sim.fault({.file = 1, .op = IoOp::sync});
  restart(bench, true, true, 0);
  REQUIRE(bench.replays.size() == 2);
  CHECK(bench.replays[1].error == 0);
  CHECK(bench.replays[1].groups != 0);
  CHECK(bench.run(Op::read, 0, 512) == EIO);
  restart(bench, false, true, 0);
  for (unsigned again = 0; again < 2; again++) {
    CHECK(holds(bench, 3000, 9000, 7));
    CHECK(before(bench));
    CHECK(holds(bench, 100000, 512, 8));
    CHECK(bench.run(Op::write, 3000, 512, 9) == EROFS);
    CHECK(bench.run(Op::flush) == 0);
    bench.drain();
    // As memory runs short.
    bench.state.raid5->cache->forgetClean();
  }
  CHECK(bench.sim.started(IoOp::write) == written);
  // In this epoch nothing may be written.
  restart(bench, false, false, 0);
  CHECK(bench.run(Op::write, 3000, 512, 9) == EBUSY);
  // Column 1 can be written again.
  bench.sim.clearFaults();
  restart(bench, true, false, 0);
  REQUIRE(bench.replays.size() == 3);
  CHECK(bench.replays[2].error == 0);
  restart(bench, false, false, 1);
  CHECK(holds(bench, 3000, 9000, 7));
  CHECK(before(bench));
  CHECK(bench.run(Op::write, 3000, 512, 9, true) == 0);
  CHECK(holds(bench, 3000, 512, 9));
  bench.drain();
}

TEST_CASE("raid5 volume: a journal that memory does not hold is not shown in part") {
  Bench bench(maker(), 7);
  swap(bench, [](Raid5Node& node) {
    node.columns[0].service = {false, false, 0};
    node.columns[0].file = kNoFile;
  });
  // A row for each sector.
  for (std::uint64_t i = 0; i < 40; i++) {
    CHECK(bench.run(Op::write, i / 2 * 3 * 16 * kBlock + i % 2 * 4096, kBlock, 7) == 0);
  }
  CHECK(bench.run(Op::flush) == 0);
  bench.drain();
  bench.state.raid5Options.cacheBytes = 4096;
  restart(bench, true, true, 0, true);
  REQUIRE(bench.replays.size() == 1);
  CHECK(bench.replays[0].error == ENOMEM);
  bench.state.raid5Options.cacheBytes = 1 << 20;
  restart(bench, true, true, 0);
  REQUIRE(bench.replays.size() == 2);
  CHECK(bench.replays[1].error == 0);
}

namespace {

// A stretch of column 1 cannot be read; where its data begins, and nothing of it is cached.
std::uint64_t damaged(Bench& bench, std::uint64_t from, std::uint64_t bytes, bool worn = false) {
  CHECK(bench.run(Op::write, 0, 60000, 7, true) == 0);
  CHECK(bench.run(Op::write, 100000, 512, 8, true) == 0);
  bench.drain();
  bench.state.raid5->cache->forgetClean();
  const std::uint64_t start = std::get<Raid5Node>(bench.volume->plan().root()).columns[1].start;
  bench.sim.damage(1, start + from, start + from + bytes, worn);
  return start;
}

}  // namespace

TEST_CASE("raid5 volume: sectors that cannot be read are rewritten from the others, while clients go on") {
  Bench bench(maker(), 6, {.latencyMax = 3});
  const std::uint64_t start = damaged(bench, 1024, 512);
  CHECK(holds(bench, 0, 60000, 7));
  bench.rest();
  REQUIRE(bench.repaired.size() == 1);
  CHECK(bench.repaired[0].component == 101);
  CHECK(bench.repaired[0].block == start / kBlock);
  CHECK(bench.repaired[0].blocks == 8);
  const std::size_t told = bench.events.size();
  CHECK(told > 0);
  CHECK(bench.events[0].masked);
  CHECK(holds(bench, 0, 60000, 7));
  bench.state.raid5->cache->forgetClean();
  CHECK(holds(bench, 0, 60000, 7));
  CHECK(bench.events.size() == told);
}

TEST_CASE("raid5 volume: a short read asks for a repair, too") {
  Bench bench(maker(), 6, {.latencyMax = 3});
  const std::uint64_t start = damaged(bench, 1024, 512);
  CHECK(holds(bench, 8192 + 1024, 512, 7));
  bench.rest();
  REQUIRE(bench.repaired.size() == 1);
  CHECK(bench.repaired[0].block == start / kBlock);
}

TEST_CASE("raid5 volume: parity that cannot be read is found by a comparison, and is made again") {
  Bench bench(maker(), 7, {.latencyMax = 3});
  const std::uint64_t start = damaged(bench, 8192, 512);  // of the second line
  REQUIRE(bench.volume->startRaid5({.kind = Raid5Work::parity}) == 0);
  bench.rest();
  REQUIRE(bench.repaired.size() == 1);
  CHECK(bench.repaired[0].block == (start + 8192) / kBlock);
  REQUIRE(bench.volume->startRaid5({.kind = Raid5Work::parity}) == 0);
  bench.rest();
  CHECK(bench.endedOutcome == ResyncOutcome::done);
  CHECK(bench.repaired.size() == 1);
}

TEST_CASE(
    "raid5 volume: what cannot be rewritten is told of once, and nothing is rewritten while a column is missing") {
  Bench bench(maker(), 8, {.latencyMax = 3});
  damaged(bench, 0, 512, true);
  CHECK(holds(bench, 0, 60000, 7));
  bench.rest();
  CHECK(bench.repaired.empty());
  CHECK(std::count_if(bench.events.begin(), bench.events.end(),
                      [](const ComponentFault& f) { return f.repairFailed && f.component == 101; }) == 1);
  Bench degraded(maker(), 9, {.latencyMax = 3});
  damaged(degraded, 0, 512);
  swap(degraded, [](Raid5Node& node) {
    node.columns[3].service = {false, false, 0};
    node.columns[3].file = kNoFile;
  });
  CHECK(degraded.run(Op::read, 0, 60000) == EIO);
  degraded.rest();
  CHECK(degraded.repaired.empty());
}
