// RAID5's jobs, one by one: zeroes, a column from the others, parity compared and repaired.
#include <doctest/doctest.h>

#include "property/native/raid5_rig.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

constexpr Shape5 kShape{.originals = 3, .columns = 4, .interlace = 11, .lines = 40, .prewrite = 60};
constexpr std::uint64_t kData = 11 * 40;  // blocks of a column

struct Bench5 : Rig5 {
  explicit Bench5(const Shape5& shape = kShape, std::uint64_t seed = 1)
      : Rig5(shape, seed, {.latencyMax = 6}, {.cacheBytes = 64 * 4096}) {}

  // Until it ends.
  ResyncEnd job(const Raid5Job& wanted) {
    const std::size_t before = ends.size();
    REQUIRE(jobs->start(wanted) == 0);
    for (unsigned turns = 0; ends.size() == before; turns++) {
      REQUIRE(turns < 100'000);
      turn();
    }
    return ends.back();
  }
  void write(std::uint64_t offset, std::uint64_t length, std::uint8_t fill) {
    Call call(Op::write, offset, length, fill);
    call.fua = true;
    submit(call);
    for (unsigned turns = 0; call.doneCount == 0; turns++) {
      REQUIRE(turns < 100'000);
      turn();
    }
    REQUIRE(call.error == 0);
  }
};

bool zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

TEST_CASE("raid5 jobs: a column is computed from the others, however small the windows") {
  for (const std::uint32_t blocks : {1U, 8U, 9U, 100U, 2048U}) {
    Bench5 rig(kShape, blocks);
    for (std::uint32_t c = 0; c < 4; c++) {
      const std::vector<std::byte> before(rig.data(c).begin(), rig.data(c).begin() + kData * kBlock);
      rig.takeOut(c);
      rig.swapPlan();
      rig.write(c * 7000, 3000, 7);
      rig.replacing(c);
      const ResyncEnd end =
          rig.job({.job = 5, .kind = Raid5Work::regenerate, .columns = 1U << c, .bufferBlocks = blocks});
      CHECK(end.job == 5);
      CHECK(end.outcome == ResyncOutcome::done);
      CHECK(end.done == kData);
      rig.rest();
      CHECK(rig.wrongParity() == 0);
      rig.restored(c);
      rig.swapPlan();
    }
  }
}

TEST_CASE("raid5 jobs: regeneration begins where it is told, and nothing below is touched") {
  Bench5 rig;
  rig.replacing(1);
  const std::vector<std::byte> before(rig.data(1).begin(), rig.data(1).begin() + 100 * kBlock);
  const Raid5Job job{.kind = Raid5Work::regenerate, .columns = 2, .from = 100, .bufferBlocks = 16};
  CHECK(rig.job(job).done == kData);
  CHECK(std::equal(before.begin(), before.end(), rig.data(1).begin()));
  const auto sum = rig.wrongParity();
  CHECK(sum > 0);
  CHECK(sum <= 100 * kBlock);
}

TEST_CASE("raid5 jobs: a column that cannot be written, or another that cannot be read, ends regeneration by name") {
  Bench5 rig;
  rig.replacing(1);
  rig.disk.fault({.file = 1, .op = IoOp::write, .first = (60 + 1 + 200) * kBlock, .end = (60 + 1 + 300) * kBlock});
  const Raid5Job job{.kind = Raid5Work::regenerate, .columns = 2, .bufferBlocks = 16};
  ResyncEnd end = rig.job(job);
  CHECK(end.outcome == ResyncOutcome::failed);
  CHECK(end.component == 101);
  CHECK(end.error == EIO);
  CHECK(end.done <= 200);
  CHECK(rig.events.back().op == ComponentOp::write);
  CHECK(rig.events.back().masked);
  rig.disk.clearFaults();
  rig.disk.fault({.file = 3, .op = IoOp::read, .first = (60 + 300) * kBlock, .end = (60 + 301) * kBlock});
  end = rig.job(job);
  CHECK(end.outcome == ResyncOutcome::failed);
  CHECK(end.component == 103);
  rig.disk.clearFaults();
  rig.disk.fault({.file = 1, .op = IoOp::sync});
  end = rig.job(job);
  CHECK(end.outcome == ResyncOutcome::failed);
  CHECK(end.component == 101);
  CHECK(end.done == 0);
}

TEST_CASE("raid5 jobs: a column is copied, clients write meanwhile, and what cannot be read comes from the others") {
  Shape5 shape = kShape;
  shape.spare = true;
  for (const std::uint32_t blocks : {7U, 64U}) {
    Bench5 rig(shape, blocks);
    rig.copying(2);
    const std::uint64_t bad = rig.node().columns[2].start + 200 * kBlock;
    rig.disk.fault({.file = 2, .op = IoOp::read, .first = bad, .end = bad + kBlock});
    REQUIRE(rig.jobs->start({.kind = Raid5Work::copy, .columns = 4, .bufferBlocks = blocks}) == 0);
    for (std::uint64_t i = 0; rig.jobs->running(); i++)
      rig.write(i * 8111 % 200000, 5000, static_cast<std::uint8_t>(i));
    CHECK(rig.ends.back().outcome == ResyncOutcome::done);
    // Above and below: what was copied already, and what was not.
    rig.write(0, 300000, 9);
    const std::uint64_t failed = rig.events.size();
    CHECK(failed > 0);
    CHECK(rig.events.back().component == 102);
    CHECK(rig.events.back().op == ComponentOp::read);
    rig.rest();
    rig.swapIn();
    CHECK(rig.wrongParity() == 0);
    rig.write(70000, 3000, 8);
    rig.rest();
    CHECK(rig.wrongParity() == 0);
  }
}

TEST_CASE("raid5 jobs: what a column is copied to fails by its own name, and the column serves on") {
  Shape5 shape = kShape;
  shape.spare = true;
  Bench5 rig(shape);
  const Raid5Job job{.kind = Raid5Work::copy, .columns = 2, .bufferBlocks = 16};
  CHECK(rig.jobs->start(job) == EINVAL);  // the plan knows of no copy
  rig.copying(1);
  CHECK(rig.jobs->start({.kind = Raid5Work::copy, .columns = 4}) == EINVAL);
  CHECK(rig.jobs->start({.kind = Raid5Work::initialise, .columns = 16}) == EINVAL);
  CHECK(rig.jobs->start({.kind = Raid5Work::parity, .repair = true}) == EINVAL);
  for (const IoOp op : {IoOp::write, IoOp::sync}) {
    rig.disk.fault({.file = 4, .op = op});
    const ResyncEnd end = rig.job(job);
    CHECK(end.outcome == ResyncOutcome::failed);
    CHECK(end.component == 104);
    rig.disk.clearFaults();
    rig.disk.files()[4]->syncFailed = false;
  }
  // A client's write, or the sync it waits for, meets it: nothing is lost but the copy.
  for (const IoOp op : {IoOp::write, IoOp::sync}) {
    rig.disk.fault({.file = 4, .op = op, .times = 1});
    rig.write(0, 100000, 3);
    CHECK(rig.events.back().component == 104);
    CHECK(rig.node().copied == Raid5Node::kNone);
    CHECK(!rig.missing());
    rig.rest();
    CHECK(rig.wrongParity() == 0);
    rig.copying(1);
  }
  // What others found out about the column's syncs is not hidden by its copy.
  rig.disk.files()[1]->syncFailed = true;
  rig.write(0, 100000, 4);
  CHECK(rig.events.back().component == 101);
  CHECK(rig.events.back().op == ComponentOp::flush);
  CHECK(rig.missing() == 1);
}

TEST_CASE("raid5 jobs: all that is written to a column that is copied, and every sync, is the copy's too") {
  Shape5 shape = kShape;
  shape.spare = true;
  Bench5 rig(shape);
  rig.rest();
  rig.copying(2);
  const auto both = [&](IoOp op) {
    CHECK(rig.disk.startedOn(4, op) == rig.disk.startedOn(2, op));
    CHECK(rig.disk.bytesOf(4, op) == rig.disk.bytesOf(2, op));
    return rig.disk.startedOn(2, op);
  };
  for (unsigned i = 0; i < 100; i++) rig.write(i * 8111 % 200000, 9000, static_cast<std::uint8_t>(i));
  rig.rest();
  CHECK(both(IoOp::write) > 100);
  const std::uint64_t before = both(IoOp::sync);
  // Somebody wants the journal to forget them: they are synced where they are in place.
  Raid5Claim claim;
  claim.end = 1;
  claim.tail = rig.io->lastGroup();
  claim.granted = [](Raid5Claim&) noexcept {};
  rig.io->claim(claim);
  for (unsigned turns = 0; !claim.owned; turns++) {
    REQUIRE(turns < 10'000);
    rig.turn();
  }
  rig.io->unclaim(claim);
  rig.rest();
  CHECK(both(IoOp::sync) > before);
}

TEST_CASE("raid5 jobs: nothing is copied before the journal has forgotten what the copy's ring does not have") {
  Shape5 shape = kShape;
  shape.spare = true;
  Bench5 rig(shape);
  rig.write(0, 100000, 3);
  rig.rest();
  rig.copying(2);
  const std::uint64_t before = rig.io->lastGroup();
  REQUIRE(rig.state->journal.durableTail() <= before);
  REQUIRE(rig.jobs->start({.kind = Raid5Work::copy, .columns = 4, .bufferBlocks = 16}) == 0);
  while (rig.disk.startedOn(4, IoOp::write) == 0) rig.turn();
  CHECK(rig.state->journal.durableTail() > before);
}

TEST_CASE("raid5 jobs: while another column is missing a copy needs the column alone") {
  Shape5 shape = kShape;
  shape.spare = true;
  Bench5 rig(shape);
  rig.copying(1);
  rig.takeOut(3);
  rig.swapPlan();
  const Raid5Job job{.kind = Raid5Work::copy, .columns = 2, .bufferBlocks = 16};
  CHECK(rig.job(job).outcome == ResyncOutcome::done);
  rig.disk.fault({.file = 1, .op = IoOp::read});
  const ResyncEnd end = rig.job(job);
  CHECK(end.outcome == ResyncOutcome::failed);
  CHECK(end.component == 101);
}

TEST_CASE("raid5 jobs: what a column's state does not allow is refused") {
  Shape5 shape = kShape;
  shape.joining = 1;
  Bench5 rig(shape);
  const auto start = [&](Raid5Work kind, ColumnSet columns, std::uint64_t from = 0) {
    return rig.jobs->start({.kind = kind, .columns = columns, .from = from});
  };
  CHECK(start(Raid5Work::regenerate, 1) == EINVAL);  // readable
  CHECK(start(Raid5Work::regenerate, 8) == EINVAL);  // joining
  CHECK(start(Raid5Work::regenerate, 0) == EINVAL);
  CHECK(start(Raid5Work::initialise, 1) == EINVAL);  // somebody uses it
  CHECK(start(Raid5Work::initialise, 9) == EINVAL);
  CHECK(start(Raid5Work::initialise, 16) == EINVAL);  // none
  CHECK(start(Raid5Work::initialise, 8, kData + 1) == EINVAL);
  CHECK(start(Raid5Work::parity, 1) == EINVAL);
  rig.replacing(2);
  CHECK(start(Raid5Work::parity, 0) == EINVAL);
  CHECK(start(Raid5Work::initialise, 4) == EINVAL);  // the others are in use
  CHECK(start(Raid5Work::regenerate, 6) == EINVAL);
  CHECK(start(Raid5Work::regenerate, 4) == 0);
  CHECK(start(Raid5Work::regenerate, 4) == EBUSY);
  rig.jobs->cancel();
  for (unsigned turns = 0; rig.jobs->running() && turns < 1000; turns++) rig.turn();
  CHECK(rig.ends.back().outcome == ResyncOutcome::cancelled);
}

TEST_CASE("raid5 jobs: zeroes over all of a column, and nothing beyond") {
  Shape5 shape = kShape;
  shape.joining = 1;
  Bench5 rig(shape);
  const auto all = rig.disk.content(3);
  std::copy_n(rig.data(0).begin(), 100, all.begin());
  const ResyncEnd end = rig.job({.kind = Raid5Work::initialise, .columns = 8});
  CHECK(end.outcome == ResyncOutcome::done);
  CHECK(end.done == kData);
  const std::uint64_t first = rig.node().columns[3].prewrite;
  CHECK(zero(all.subspan(first, (60 + kData) * kBlock)));
  CHECK(!zero(all.subspan(first + (60 + kData) * kBlock)));
  CHECK(!zero(rig.disk.content(2)));
  // It joins: what it adds is zero, and parity holds.
  Raid5Node& grown = rig.nodeToChange();
  grown.serving = 4;
  grown.columns[3].service = {};
  rig.rest();
  rig.swapPlan();
  CHECK(rig.wrongParity() == 0);
}

TEST_CASE("raid5 jobs: all columns at creation, slowly when asked to, from where it was") {
  Bench5 rig;
  Raid5Node& fresh = rig.nodeToChange();
  for (Raid5Column& column : fresh.columns) column.service = {false, true, 0};
  rig.swapPlan();
  const std::uint64_t begun = rig.disk.now();
  ResyncEnd end = rig.job({.kind = Raid5Work::initialise,
                           .columns = 15,
                           .from = 40,
                           .bufferBlocks = 8,
                           .bytesPerSecond = 100 * 1024 * 1024,
                           .checkpointMillis = 1});
  CHECK(end.outcome == ResyncOutcome::done);
  CHECK(rig.disk.now() - begun >= (kData - 40) * kBlock * 9);
  for (std::uint32_t c = 0; c < 4; c++) {
    CHECK(!zero(rig.data(c).first(40 * kBlock)));
    CHECK(zero(rig.data(c).subspan(40 * kBlock, (kData - 40) * kBlock)));
  }
  CHECK(rig.checkpoint > 40);
  CHECK(rig.checkpoint < kData);
  // Each of 50 windows on 4 columns: where data ends is asked once a column, by those in flight then.
  CHECK(rig.disk.started(IoOp::zero) >= 200);
  CHECK(rig.disk.started(IoOp::extents) <= 16);
  rig.disk.fault({.file = 2, .op = IoOp::zero});
  for (std::uint32_t c = 0; c < 4; c++) rig.scribble(c);
  end = rig.job({.kind = Raid5Work::initialise, .columns = 15});
  CHECK(end.outcome == ResyncOutcome::failed);
  CHECK(end.component == 102);
  CHECK(end.done == 0);
}

TEST_CASE("raid5 jobs: wrong parity is named by block, and made right from the data") {
  Bench5 rig;
  rig.write(0, 60000, 3);
  rig.rest();
  // In line 2 parity is on column 1; line 5 is wrong as a whole, and one data block is.
  const auto spoil = [&](std::uint32_t c, std::uint64_t block) { rig.data(c)[block * kBlock + 77] ^= std::byte{1}; };
  spoil(1, 25);
  spoil(1, 26);
  for (std::uint64_t b = 55; b < 66; b++) spoil(1, b);
  spoil(0, 200);
  for (std::uint32_t c = 0; c < 4; c++) rig.disk.makeDurable(c);
  const auto held = std::vector<std::byte>(rig.data(0).begin(), rig.data(0).end());
  ResyncEnd end = rig.job({.job = 9, .kind = Raid5Work::parity, .bufferBlocks = 20});
  CHECK(end.outcome == ResyncOutcome::done);
  CHECK(end.mismatches == 14);
  using Places = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
  CHECK(rig.mismatches == Places{{25, 2}, {55, 11}, {200, 1}});
  CHECK(rig.wrongParity() == 14);
  end = rig.job({.kind = Raid5Work::parity, .repair = true, .bufferBlocks = 20});
  CHECK(end.outcome == ResyncOutcome::done);
  CHECK(end.mismatches == 14);
  CHECK(rig.wrongParity() == 0);
  CHECK(std::equal(held.begin(), held.end(), rig.data(0).begin()));
  CHECK(rig.job({.kind = Raid5Work::parity}).mismatches == 0);
}

// A group that is live at a restart would bring the old parity back.
TEST_CASE("raid5 jobs: parity that was repaired stays so after a crash") {
  Bench5 rig;
  rig.write(0, 512, 3);
  rig.rest();
  // The group covers column 0 and its parity; what rots is in the same row of another column.
  rig.data(1)[5] ^= std::byte{1};
  rig.disk.makeDurable(1);
  CHECK(rig.job({.kind = Raid5Work::parity, .repair = true}).mismatches == 1);
  rig.crash(false);
  CHECK(rig.wrongParity() == 0);
  CHECK(rig.result.blocks == 0);
}

// Its part on the column that failed is torn, and it is the last group: after the column has come back nothing may
// ask for that part.
TEST_CASE("raid5 jobs: a group that went on without a column is not doubted when the column is back") {
  for (const std::uint64_t seed : {1, 2, 3, 4, 5, 6}) {
    Bench5 rig(kShape, seed);
    rig.disk.fault({.file = 0, .op = IoOp::write});
    rig.write(0, 11 * 512, 3);
    rig.rest();
    REQUIRE(rig.missing() == std::optional<std::uint32_t>(0));
    rig.disk.clearFaults();
    rig.replacing(0);
    CHECK(rig.job({.kind = Raid5Work::regenerate, .columns = 1}).outcome == ResyncOutcome::done);
    rig.restored(0);
    rig.swapPlan();
    rig.crash(false);
    CHECK(rig.result.damaged == 0);
    CHECK(rig.wrongParity() == 0);
    for (std::uint64_t s = 0; s < 11; s++) CHECK(rig.onDisk(s)[0] == std::byte{3});
  }
}

TEST_CASE("raid5 jobs: beside a column that is Last Erred regeneration goes on once everything is in place") {
  const Raid5Job job{.kind = Raid5Work::regenerate, .columns = 1};
  for (const bool journaled : {false, true}) {
    Bench5 rig;
    if (journaled) {
      rig.write(0, 11 * 512, 3);
      rig.write(11 * 512, 11 * 512, 4);
      rig.rest();
    }
    rig.replacing(0);
    rig.nodeToChange().columns[1].service.lastErred = 1;
    rig.swapPlan();
    // Nor may what tells so depend on that column.
    rig.disk.fault({.file = 1, .op = IoOp::write});
    CHECK(rig.job(job).outcome == ResyncOutcome::done);
    CHECK(rig.wrongParity() == 0);
    rig.restored(0);
    rig.swapPlan();
    CHECK(rig.state->journal.durableTail() > (journaled ? 2 : 0));
    rig.crash(false);
    CHECK(rig.result.groups <= 1);  // the one without data
  }
}

TEST_CASE("raid5 jobs: regeneration ends when a column that is Last Erred keeps the journal as it is") {
  const Raid5Job job{.kind = Raid5Work::regenerate, .columns = 1};
  Bench5 rig;
  rig.write(0, 44 * 512, 3);
  rig.rest();
  rig.replacing(0);
  rig.nodeToChange().columns[1].service.lastErred = 1;
  rig.swapPlan();
  // What is in place there may not be on stable storage.
  rig.disk.fault({.file = 1, .op = IoOp::sync});
  const ResyncEnd end = rig.job(job);
  CHECK(end.outcome == ResyncOutcome::failed);
  CHECK(end.error == EIO);
  CHECK(rig.jobs->start(job) == EIO);
  rig.disk.clearFaults();
  rig.disk.files()[1]->syncFailed = false;
  rig.nodeToChange().columns[1].service.lastErred = 0;
  rig.swapPlan();
  CHECK(rig.job(job).outcome == ResyncOutcome::done);
  CHECK(rig.wrongParity() == 0);
}
