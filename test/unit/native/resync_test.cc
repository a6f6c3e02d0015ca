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
  CHECK(b.events.size() == 10);
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
  CHECK(busy > quiet * 3 / 2);
  CHECK(busy < quiet * 4);
}
