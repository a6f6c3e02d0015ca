// The resync of one side: what it copies, how it ends, how fast it may go.
#include "core/resync.h"

#include "property/native/harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

PlanMaker threeSides(std::uint64_t blocks = 1000) {
  PlanMaker m;
  const NodeIndex a = m.component(0, blocks);
  const NodeIndex b = m.component(3, blocks);
  const NodeIndex c = m.component(9, blocks);
  m.mirror({{a, true}, {b, false}, {c, true}}, ReadPolicy::first);
  return m;
}

}  // namespace

TEST_CASE("resync: copies everything, syncs the target, ends once") {
  PlanMaker m = threeSides(1003);
  Bench b(m, 2);
  CHECK(b.volume->startResync({.job = 42, .target = 1, .bufferBlocks = 64}) == 0);
  CHECK(b.volume->resyncing());
  CHECK(b.volume->startResync({.job = 43, .target = 1}) == EBUSY);
  b.drain();
  CHECK(b.endedCount == 1);
  CHECK(b.endedJob == 42);
  CHECK(b.endedOutcome == ResyncOutcome::done);
  CHECK(b.endedDone == 1003);
  CHECK(!b.progress.empty());
  CHECK(b.progress.back() == 1003);
  const auto sides = b.sides();
  CHECK(sides[0] == sides[1]);
  CHECK(sides[0] != sides[2]);  // not the target: untouched
  CHECK(std::memcmp(b.sim.durable(1).data() + 3 * kBlock, sides[0].data(), sides[0].size()) == 0);
}

TEST_CASE("resync: begins at `from` and leaves what is below alone") {
  PlanMaker m = threeSides();
  Bench b(m, 2);
  const auto before = b.sides();
  CHECK(b.volume->startResync({.target = 1, .from = 500, .bufferBlocks = 64}) == 0);
  b.drain();
  const auto sides = b.sides();
  CHECK(std::memcmp(sides[1].data(), before[1].data(), 500 * kBlock) == 0);
  CHECK(std::memcmp(sides[1].data() + 500 * kBlock, before[0].data() + 500 * kBlock, 500 * kBlock) == 0);
  CHECK(b.volume->startResync({.target = 1, .from = 1001}) == EINVAL);
  CHECK(b.volume->startResync({.target = 3}) == EINVAL);
  CHECK(b.volume->startResync({.target = 1, .from = 1000}) == 0);
  b.drain();
  CHECK(b.endedOutcome == ResyncOutcome::done);
}

TEST_CASE("resync: cancel ends it at a window, and what it says is done is done") {
  PlanMaker m = threeSides();
  Bench b(m, 2);
  CHECK(b.volume->startResync({.target = 1, .bufferBlocks = 16}) == 0);
  for (int i = 0; i < 60; i++) b.turn();
  b.volume->cancelResync();
  b.volume->cancelResync();
  b.drain();
  CHECK(b.endedCount == 1);
  CHECK(b.endedOutcome == ResyncOutcome::cancelled);
  CHECK(b.endedDone > 0);
  CHECK(b.endedDone < 1000);
  const auto sides = b.sides();
  CHECK(std::memcmp(sides[0].data(), sides[1].data(), b.endedDone * kBlock) == 0);
  CHECK(b.volume->startResync({.target = 1, .from = b.endedDone}) == 0);
  b.drain();
  CHECK(b.sides()[0] == b.sides()[1]);
}

TEST_CASE("resync: reads from another side when one fails, never from the target") {
  PlanMaker m = threeSides();
  Bench b(m, 2);
  b.sim.fault({.file = 0, .op = IoOp::read});
  CHECK(b.volume->startResync({.target = 1, .bufferBlocks = 100}) == 0);
  b.drain();
  CHECK(b.endedOutcome == ResyncOutcome::done);
  CHECK(b.sides()[1] == b.sides()[2]);
  // What it failed to read it cannot be made to hold: told once, and not asked again.
  const auto failed = [](const ComponentFault& f) { return f.repairFailed; };
  CHECK(std::ranges::count_if(b.events, failed) == 1);
  CHECK(failed(b.events.back()));
  for (const ComponentFault& event : b.events) CHECK((event.masked && event.component == m.plan->components[0]));
  CHECK(b.sim.startedOn(1, IoOp::read) == 0);
}

TEST_CASE("resync: fails with the errno and the block when no source or the target is left") {
  PlanMaker m = threeSides();
  SUBCASE("target") {
    Bench b(m, 2);
    b.sim.fault(
        {.file = 1, .op = IoOp::write, .first = (3 + 250) * kBlock, .end = (3 + 251) * kBlock, .error = ENOSPC});
    CHECK(b.volume->startResync({.target = 1, .bufferBlocks = 100}) == 0);
    b.drain();
    CHECK(b.endedOutcome == ResyncOutcome::failed);
    CHECK(b.endedError == ENOSPC);
    CHECK(b.endedDone == 200);
  }
  SUBCASE("sources") {
    Bench b(m, 2);
    b.sim.fault({.file = 0, .op = IoOp::read, .first = 777 * kBlock, .end = 778 * kBlock});
    b.sim.fault({.file = 2, .op = IoOp::read, .first = (9 + 777) * kBlock, .end = (9 + 778) * kBlock});
    CHECK(b.volume->startResync({.target = 1, .bufferBlocks = 100}) == 0);
    b.drain();
    CHECK(b.endedOutcome == ResyncOutcome::failed);
    CHECK(b.endedError == EIO);
    CHECK(b.endedDone == 700);
    CHECK(b.run(Op::write, 777 * kBlock, 512, 1) == 0);  // the window is free again
  }
  SUBCASE("sync of the target") {
    Bench b(m, 2);
    b.sim.fault({.file = 1, .op = IoOp::sync});
    CHECK(b.volume->startResync({.target = 1, .bufferBlocks = 100}) == 0);
    b.drain();
    CHECK(b.endedOutcome == ResyncOutcome::failed);
    CHECK(b.endedError == EIO);
  }
}

TEST_CASE("resync: never faster than bytesPerSecond") {
  PlanMaker m = threeSides(2048);
  Bench b(m, 2);
  CHECK(b.volume->startResync({.target = 1, .bufferBlocks = 128, .bytesPerSecond = 512 * 1024}) == 0);
  b.drain();
  CHECK(b.endedOutcome == ResyncOutcome::done);
  // 1 MiB at 512 KiB/s; the last window need not be waited for.
  CHECK(b.sim.now() >= 1'800'000'000);
  CHECK(b.sim.now() <= 2'300'000'000);
  CHECK(b.progress.size() >= 10);
  CHECK(b.progress.size() <= 25);
}

TEST_CASE("resync: makes room while clients are busy") {
  const auto turnsFor = [](bool busy) {
    PlanMaker m = threeSides(4096);
    Bench b(m, 2);
    CHECK(b.volume->startResync({.target = 1, .bufferBlocks = 64}) == 0);
    Call read(Op::read, 0, 512);
    unsigned turns = 0;
    for (; b.volume->resyncing(); turns++) {
      if (busy && (turns == 0 || read.doneCount == 1)) {
        read.doneCount = 0;
        b.volume->submit(read);
      }
      b.turn();
      REQUIRE(turns < 100000);
    }
    b.drain();
    return turns;
  };
  const unsigned quiet = turnsFor(false);
  const unsigned busy = turnsFor(true);
  // One window at a time instead of several, and as long a pause after each.
  CHECK(busy > quiet * 2);
  CHECK(busy < quiet * 3 * Resync::kWindows);
}

TEST_CASE("resync: several windows are in flight, each owns its range, and a failure leaves done() right") {
  PlanMaker m = threeSides(4096);
  for (std::uint64_t bad = 0; bad < 4096; bad += 300) {
    Bench b(m, bad + 1, {.latencyMax = 30});
    b.sim.fault({.file = 1, .op = IoOp::write, .first = (3 + bad) * kBlock, .end = (4 + bad) * kBlock});
    CHECK(b.volume->startResync({.target = 1, .bufferBlocks = 64}) == 0);
    b.drain();
    CHECK(b.endedOutcome == ResyncOutcome::failed);
    CHECK(b.endedComponent == m.plan->components[1]);
    CHECK(b.endedDone == bad / 64 * 64);
    CHECK(std::memcmp(b.sides()[0].data(), b.sides()[1].data(), b.endedDone * kBlock) == 0);
    CHECK(b.sim.overlappingWrites() == 0);
  }
}

TEST_CASE("resync: a window that waits for a write is withdrawn by cancel") {
  PlanMaker m = threeSides();
  Bench b(m, 2, {.latencyMax = 1});
  Call write(Op::write, 100 * kBlock, 100 * kBlock, 7);
  b.volume->submit(write);
  // Two windows wait for the write, two work.
  CHECK(b.volume->startResync({.target = 1, .bufferBlocks = 150}) == 0);
  b.volume->cancelResync();
  while (write.doneCount == 0) b.turn();
  b.drain();
  CHECK(b.endedCount == 1);
  CHECK(b.endedOutcome == ResyncOutcome::cancelled);
  CHECK(b.endedDone == 0);
  CHECK(b.run(Op::write, 0, 1000 * kBlock, 1) == 0);
}

TEST_CASE("resync: what a checkpoint says is on the target's stable storage") {
  PlanMaker m = threeSides(8192);
  Bench b(m, 2, {.latencyMax = 20, .turnNanos = 100'000});
  CHECK(b.volume->startResync({.target = 1, .bufferBlocks = 64, .checkpointMillis = 3}) == 0);
  std::size_t seen = 0;
  while (b.volume->resyncing()) {
    b.turn();
    for (; seen < b.checkpoints.size(); seen++) {
      const std::uint64_t done = b.checkpoints[seen];
      CHECK(done > (seen == 0 ? 0 : b.checkpoints[seen - 1]));
      CHECK(std::memcmp(b.sim.durable(1).data() + 3 * kBlock, b.sides()[0].data(), done * kBlock) == 0);
    }
  }
  CHECK(b.checkpoints.size() > 3);
  CHECK(b.endedOutcome == ResyncOutcome::done);
}

TEST_CASE("resync: after a checkpoint's sync failed nothing above the last checkpoint is claimed") {
  PlanMaker m = threeSides(8192);
  Bench b(m, 2, {.latencyMax = 20, .turnNanos = 100'000});
  b.sim.fault({.file = 1, .op = IoOp::sync, .skip = 2});
  CHECK(b.volume->startResync({.target = 1, .bufferBlocks = 64, .checkpointMillis = 3}) == 0);
  b.drain();
  CHECK(b.endedOutcome == ResyncOutcome::failed);
  REQUIRE(b.checkpoints.size() == 2);
  CHECK(b.endedDone == b.checkpoints[1]);
}

TEST_CASE("resync: of a component reads and writes what lies on it and nothing else") {
  PlanMaker m;
  const NodeIndex a = m.component(0, 2000);                               // file 0
  const NodeIndex b = m.stripe({{16, 160, {5, 6, 7}}, {32, 2000, {1}}});  // files 1 to 4
  m.mirror({{a, true}, {b, true}}, ReadPolicy::first);
  for (std::uint32_t file = 1; file <= 4; file++) {
    Bench bench(m, file);
    std::vector<std::vector<std::byte>> before;
    for (std::uint32_t f = 0; f <= 4; f++) {
      before.emplace_back(bench.sim.content(f).begin(), bench.sim.content(f).end());
    }
    const auto source = bench.sides()[0];
    CHECK(
        bench.volume->startResync(
            {.target = 1, .kind = ResyncKind::component, .component = m.plan->components[file], .bufferBlocks = 50}) ==
        0);
    bench.drain();
    CHECK(bench.endedOutcome == ResyncOutcome::done);
    CHECK(bench.endedDone == 2000);
    const std::uint64_t own = file < 4 ? 160 : 2000 - 480;
    CHECK(bench.progress.back() == own);
    CHECK(bench.sim.bytesOf(0, IoOp::read) == own * kBlock);
    for (std::uint32_t f = 0; f <= 4; f++) {
      if (f == file) continue;
      CHECK(std::equal(before[f].begin(), before[f].end(), bench.sim.content(f).begin()));
      CHECK(bench.sim.startedOn(f, IoOp::write) == 0);
    }
    CHECK(bench.sim.bytesOf(file, IoOp::write) == own * kBlock);
    // Contiguous on the component: one Io a window.
    CHECK(bench.sim.startedOn(file, IoOp::write) == (own + 49) / 50);
    const auto target = bench.sides()[1];
    const Node& side = m.plan->nodes[b];
    for (std::uint64_t at = 0; at < 2000 * kBlock; at += kBlock) {
      Fragment f;
      std::uint64_t covered = 0;
      mapNode(side, at, kBlock, {&f, 1}, covered);
      if (f.file == file) REQUIRE(std::memcmp(source.data() + at, target.data() + at, kBlock) == 0);
    }
  }
  Bench bench(m, 2);
  CHECK(bench.volume->startResync({.target = 1, .kind = ResyncKind::component, .component = 99}) == EINVAL);
}

TEST_CASE("resync: the label of a side is its own") {
  PlanMaker m = threeSides();
  m.plan->labelled = true;
  Bench b(m, 2);
  const auto before = b.sides();
  CHECK(b.volume->startResync({.target = 1, .bufferBlocks = 64}) == 0);
  b.drain();
  CHECK(b.endedOutcome == ResyncOutcome::done);
  const auto sides = b.sides();
  CHECK(std::memcmp(sides[1].data(), before[1].data(), kBlock) == 0);
  CHECK(std::memcmp(sides[1].data() + kBlock, sides[0].data() + kBlock, sides[0].size() - kBlock) == 0);
}

TEST_CASE("verify: names the blocks that differ, once, and touches nothing") {
  PlanMaker m = threeSides();
  std::get<MirrorNode>(m.plan->nodes.back()).sides[1].readable = true;
  Bench b(m, 2);
  b.equalise();
  const auto spoil = [&](std::uint32_t file, std::uint64_t start, std::uint64_t block, std::uint64_t blocks) {
    b.sim.content(file)[(start + block) * kBlock + 17] ^= std::byte{1};
    for (std::uint64_t i = 1; i < blocks; i++) b.sim.content(file)[(start + block + i) * kBlock] ^= std::byte{0x80};
  };
  spoil(1, 3, 60, 10);  // crosses windows of 64
  spoil(2, 9, 65, 8);   // overlaps it on another side
  spoil(2, 9, 500, 1);
  spoil(0, 0, 999, 1);
  const auto before = b.sides();
  CHECK(b.volume->startVerify({.job = 7, .bufferBlocks = 64}) == 0);
  CHECK(b.volume->startVerify({.job = 8}) == EBUSY);
  b.drain();
  CHECK(b.endedJob == 7);
  CHECK(b.endedOutcome == ResyncOutcome::done);
  CHECK(b.endedMismatches == 13 + 1 + 1);
  CHECK(b.mismatches == std::vector<std::pair<std::uint64_t, std::uint64_t>>{{60, 13}, {500, 1}, {999, 1}});
  CHECK(b.sides() == before);
  CHECK(b.sim.started(IoOp::write) == 0);
  SUBCASE("repair") {
    CHECK(b.volume->startVerify({.job = 9, .repair = true, .bufferBlocks = 64}) == 0);
    b.drain();
    CHECK(b.endedOutcome == ResyncOutcome::done);
    CHECK(b.endedMismatches == 15);
    for (const auto& side : b.sides()) CHECK(side == before[0]);
    for (const std::uint32_t file : {1U, 2U}) CHECK(b.sim.bytesOf(file, IoOp::write) < 40 * kBlock);
    const auto durable = b.sim.durable(2).subspan(9 * kBlock, before[0].size());
    CHECK(std::equal(durable.begin(), durable.end(), before[0].begin()));
    CHECK(b.volume->startVerify({.job = 10, .bufferBlocks = 64}) == 0);
    b.drain();
    CHECK(b.endedMismatches == 0);
  }
  SUBCASE("from") {
    b.mismatches.clear();
    CHECK(b.volume->startVerify({.job = 9, .from = 501, .bufferBlocks = 64}) == 0);
    b.drain();
    CHECK(b.mismatches == std::vector<std::pair<std::uint64_t, std::uint64_t>>{{999, 1}});
    CHECK(b.endedDone == 1000);
  }
}

TEST_CASE("verify: counts everything, names the first thousand places") {
  PlanMaker m = threeSides(4096);
  Bench b(m, 2);
  b.equalise();
  for (std::uint64_t i = 0; i < 1500; i++) b.sim.content(2)[(9 + 2 * i) * kBlock] ^= std::byte{1};
  CHECK(b.volume->startVerify({.job = 7}) == 0);
  b.drain();
  CHECK(b.mismatches.size() == 1000);
  CHECK(b.mismatches.back() == std::pair<std::uint64_t, std::uint64_t>{1998, 1});
  CHECK(b.endedMismatches == 1500);
}

TEST_CASE("verify: a side that cannot be read is told of and not compared there; one that cannot be repaired ends it") {
  PlanMaker m = threeSides();
  std::get<MirrorNode>(m.plan->nodes.back()).sides[1].readable = true;
  Bench b(m, 2);
  b.equalise();
  b.sim.content(2)[(9 + 10) * kBlock] ^= std::byte{1};
  b.sim.content(1)[(3 + 20) * kBlock] ^= std::byte{1};
  SUBCASE("unreadable") {
    b.sim.fault({.file = 0, .op = IoOp::read, .first = 0, .end = 100 * kBlock});
    CHECK(b.volume->startVerify({.job = 7, .bufferBlocks = 100}) == 0);
    b.drain();
    CHECK(b.endedOutcome == ResyncOutcome::done);
    CHECK(b.events.size() == 1);
    CHECK(b.mismatches == std::vector<std::pair<std::uint64_t, std::uint64_t>>{{10, 1}, {20, 1}});
  }
  SUBCASE("unwritable") {
    b.sim.fault({.file = 2, .op = IoOp::write, .error = ENOSPC});
    CHECK(b.volume->startVerify({.job = 7, .repair = true, .bufferBlocks = 100}) == 0);
    b.drain();
    CHECK(b.endedOutcome == ResyncOutcome::failed);
    CHECK(b.endedError == ENOSPC);
    CHECK(b.endedComponent == m.plan->components[2]);
  }
  SUBCASE("the side to copy from has lost what it had not yet written") {
    b.sim.fault({.file = 0, .op = IoOp::sync});
    const auto before = b.sides();
    CHECK(b.volume->startVerify({.job = 7, .repair = true, .bufferBlocks = 100}) == 0);
    b.drain();
    CHECK(b.endedOutcome == ResyncOutcome::failed);
    CHECK(b.endedComponent == m.plan->components[0]);
    CHECK(b.sim.started(IoOp::write) == 0);
    CHECK(b.sides() == before);
  }
  SUBCASE("read-only") {
    m.plan->readOnly = true;
    CHECK(b.volume->startVerify({.job = 7, .repair = true}) == EROFS);
  }
}

namespace {

// Regions of 16 blocks; side 1 stale in some of them.
struct Behind {
  explicit Behind(PlanMaker& m, std::initializer_list<std::uint32_t> regions, bool stale = true) : map(64) {
    auto& mirror = std::get<MirrorNode>(m.plan->nodes.back());
    mirror.region = 16 * kBlock;
    mirror.sides[1].stale = stale;
    mirror.sides[1].readable = stale;
    mirror.sides[1].slot = 1;
    mirror.sides[2].slot = 2;
    map = Bitmap(static_cast<std::uint32_t>((mirror.size + mirror.region - 1) / mirror.region));
    for (const std::uint32_t i : regions) map.set(i);
    sides.mount(*m.plan, map, mirror.region, true);
  }
  Bitmap map;
  StaleSides sides;
};

// The blocks in which side 1 holds what side 0 does.
std::vector<bool> equalBlocks(const Bench& b) {
  const auto sides = b.sides();
  std::vector<bool> equal;
  for (std::size_t at = 0; at < sides[0].size(); at += kBlock) {
    equal.push_back(std::memcmp(sides[0].data() + at, sides[1].data() + at, kBlock) == 0);
  }
  return equal;
}

}  // namespace

TEST_CASE("resync: optimized copies the stale regions, each readable once it is copied") {
  PlanMaker m = threeSides(1003);
  Behind behind(m, {0, 1, 2, 7, 30, 31, 62});
  Bench b(m, 2);
  b.state.stale = &behind.sides;
  b.open(m.plan);
  CHECK(behind.sides.stale(1, 7 * 16 * kBlock, kBlock));
  CHECK(!behind.sides.stale(1, 8 * 16 * kBlock, kBlock));
  CHECK(!behind.sides.stale(0, 7 * 16 * kBlock, kBlock));
  std::uint32_t buffer = 0;
  SUBCASE("windows of several regions") { buffer = 40; }
  SUBCASE("regions of several windows") { buffer = 5; }
  CHECK(b.volume->startResync({.target = 1, .kind = ResyncKind::optimized, .bufferBlocks = buffer}) == 0);
  std::uint32_t cleared = 0;
  while (b.volume->resyncing()) {
    b.turn();
    if (b.sim.idle()) b.sim.advance(1'000'000);
    for (std::uint32_t i = 0; i < behind.map.size(); i++) {
      const bool still = behind.sides.stale(1, i * 16 * kBlock, kBlock);
      if (!behind.map.test(i) || still) continue;
      for (std::uint64_t k = i * 16; k < std::min<std::uint64_t>(1003, i * 16 + 16); k++) {
        REQUIRE(equalBlocks(b)[k]);
      }
      cleared++;
      behind.map.clear(i);
    }
  }
  CHECK(cleared == 7);
  CHECK(b.endedOutcome == ResyncOutcome::done);
  CHECK(b.progress.back() == 6 * 16 + 11);
  CHECK(b.sim.bytesOf(1, IoOp::write) == (6 * 16 + 11) * kBlock);
  CHECK(b.endedDone == 1003);
}

TEST_CASE("resync: optimized goes on where a cancelled one stopped, and needs nothing when nothing is stale") {
  PlanMaker m = threeSides(1000);
  Behind behind(m, {3, 4, 40, 50});
  Bench b(m, 2);
  b.state.stale = &behind.sides;
  b.open(m.plan);
  CHECK(b.volume->startResync(
            {.target = 1, .kind = ResyncKind::optimized, .bufferBlocks = 16, .bytesPerSecond = 1000}) == 0);
  for (int i = 0; i < 50; i++) b.turn();
  b.volume->cancelResync();
  b.drain();
  CHECK(b.endedOutcome == ResyncOutcome::cancelled);
  CHECK(!behind.sides.stale(1, 3 * 16 * kBlock, kBlock));
  CHECK(behind.sides.stale(1, 50 * 16 * kBlock, kBlock));
  const std::uint64_t before = b.sim.bytesOf(1, IoOp::write);
  CHECK(b.volume->startResync({.target = 1, .kind = ResyncKind::optimized, .bufferBlocks = 16}) == 0);
  b.drain();
  CHECK(b.sim.bytesOf(1, IoOp::write) == 4 * 16 * kBlock);
  CHECK(before < 4 * 16 * kBlock);
  CHECK(b.volume->startResync({.target = 1, .kind = ResyncKind::optimized, .bufferBlocks = 16}) == 0);
  b.drain();
  CHECK(b.endedOutcome == ResyncOutcome::done);
  CHECK(b.sim.bytesOf(1, IoOp::write) == 4 * 16 * kBlock);
}

TEST_CASE("resync: a copy that goes on after a crash looks again at what was dirty below its checkpoint") {
  PlanMaker m = threeSides(1000);
  Behind behind(m, {2, 10, 31, 50}, false);
  Bench b(m, 2);
  b.state.stale = &behind.sides;
  b.open(m.plan);
  CHECK(!behind.sides.stale(1, 2 * 16 * kBlock, kBlock));
  const std::uint64_t from = 31 * 16 + 4;
  CHECK(b.volume->startResync({.target = 1, .from = from, .bufferBlocks = 64, .checkpointMillis = 1}) == 0);
  b.drain();
  CHECK(b.endedOutcome == ResyncOutcome::done);
  for (const std::uint64_t done : b.checkpoints) CHECK(done >= from);
  CHECK(b.progress.back() == 1000);
  const auto equal = equalBlocks(b);
  for (std::uint64_t i = 0; i < 1000; i++) {
    CHECK(equal[i] == (i >= 31 * 16 || i / 16 == 2 || i / 16 == 10));
  }
  CHECK(!behind.sides.behind(1)->any());
}

TEST_CASE("resync: a component that goes on after a crash, the same") {
  PlanMaker m;
  const NodeIndex a = m.component(0, 960);
  const NodeIndex b = m.stripe({{16, 320, {5, 6, 7}}});  // files 1 to 3
  const NodeIndex c = m.component(0, 960);
  m.mirror({{a, true}, {b, true}, {c, true}}, ReadPolicy::first);
  auto& mirror = std::get<MirrorNode>(m.plan->nodes.back());
  auto& stripe = std::get<StripeNode>(m.plan->nodes[b]);
  stripe.rows[0].columns[1].service = {.readable = false};
  mirror.region = 64 * kBlock;
  mirror.sides[1].slot = 1;
  mirror.sides[2].slot = 2;
  Bitmap dirty(15);
  for (const std::uint32_t i : {1U, 4U, 9U}) dirty.set(i);
  StaleSides sides;
  sides.mount(*m.plan, dirty, mirror.region, true);
  Bench bench(m, 3);
  bench.state.stale = &sides;
  bench.open(m.plan);
  CHECK(bench.volume->startResync({.target = 1,
                                   .kind = ResyncKind::component,
                                   .component = m.plan->components[2],
                                   .from = 400,
                                   .bufferBlocks = 20}) == 0);
  bench.drain();
  CHECK(bench.endedOutcome == ResyncOutcome::done);
  const auto equal = equalBlocks(bench);
  for (std::uint64_t i = 0; i < 960; i++) {
    const bool on = i / 16 % 3 == 1;
    CHECK(equal[i] == (on && (i >= 400 || i / 64 == 1 || i / 64 == 4)));
  }
  CHECK(bench.progress.back() == 320);
}
