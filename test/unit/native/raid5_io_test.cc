// What RAID5 asks of its columns, and what it answers when they fail.
#include "md/raid5_io.h"

#include <doctest/doctest.h>

#include "raid5_asked.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

constexpr Shape5 kShape{.originals = 4, .columns = 4, .interlace = 16, .lines = 40, .prewrite = 400};
constexpr std::uint64_t kLine = 3 * 16 * kBlock;

struct Counts {
  std::uint64_t reads, writes, syncs;
};

struct Small : Asked5 {
  explicit Small(const Shape5& shape = kShape, SimOptions sim = {.latencyMax = 3}, Raid5Options options = patient())
      : Asked5(shape, 1, sim, options) {}
  Counts counts() const { return {disk.started(IoOp::read), disk.started(IoOp::write), disk.started(IoOp::sync)}; }
  template <typename Body>
  Counts during(Body body) {
    const Counts before = counts();
    body();
    const Counts after = counts();
    return {after.reads - before.reads, after.writes - before.writes, after.syncs - before.syncs};
  }
};

}  // namespace

TEST_CASE("raid5 io: a write is answered from memory, and many share one journal write and one sync of each column") {
  Small rig;
  const Counts writes = rig.during([&] {
    for (std::uint64_t i = 0; i < 30; i++) CHECK(rig.run(Op::write, i * kLine, 4096, 7) == 0);
  });
  CHECK(writes.reads + writes.writes + writes.syncs == 0);
  CHECK(!rig.io->committed());
  const Counts flush = rig.during([&] { CHECK(rig.run(Op::flush) == 0); });
  CHECK(flush.syncs <= 4 * 4);  // the ring takes them in a few groups, not in thirty
  CHECK(rig.io->committed());
  rig.rest();
  CHECK(rig.wrongParity() == 0);
  CHECK(rig.during([&] { CHECK(rig.run(Op::flush) == 0); }).syncs == 0);
}

TEST_CASE("raid5 io: a full row needs no reads") {
  Small rig;
  CHECK(rig.run(Op::write, 2 * kLine, 2 * kLine, 9) == 0);
  const Counts full = rig.during([&] {
    CHECK(rig.run(Op::flush) == 0);
    rig.rest();
  });
  CHECK(full.reads == 0);
  CHECK(full.syncs == 4);
  CHECK(full.writes == 4 + 4);  // the ring, and neighbours in place in one
  CHECK(rig.wrongParity() == 0);
  CHECK(rig.holds(2 * kLine, 2 * kLine, 9));
}

TEST_CASE("raid5 io: what is read for parity is what costs less") {
  Shape5 wide = kShape;
  wide.originals = wide.columns = 8;
  Small rig(wide);
  const std::uint64_t row = 7 * 16 * kBlock;
  // One of seven: what it was, and the parity.
  const Counts one = rig.during([&] {
    CHECK(rig.run(Op::write, row, 4096, 1) == 0);
    rig.run(Op::flush);
    rig.rest();
  });
  CHECK(one.reads == 2);
  CHECK(one.writes == 2 + 2);
  CHECK(one.syncs == 2);
  // Six of seven: the seventh.
  const Counts six = rig.during([&] {
    for (std::uint64_t c = 0; c < 6; c++) CHECK(rig.run(Op::write, 3 * row + c * 16 * kBlock, 4096, 2) == 0);
    rig.run(Op::flush);
    rig.rest();
  });
  CHECK(six.reads == 1);
  // Written again: the parity is still there.
  const Counts again = rig.during([&] {
    CHECK(rig.run(Op::write, row, 4096, 3) == 0);
    rig.run(Op::flush);
    rig.rest();
  });
  CHECK(again.reads == 1);
  CHECK(rig.wrongParity() == 0);
}

TEST_CASE("raid5 io: a flush waits for a group that is being synced although nothing is dirty") {
  Small rig(kShape, {.latencyMax = 1});
  CHECK(rig.run(Op::write, 0, 4096, 5) == 0);
  Call first(Op::flush, 0, 0);
  rig.submit(first);
  while (rig.disk.started(IoOp::sync) == 0) rig.turn();
  REQUIRE(first.doneCount == 0);
  Call second(Op::flush, 0, 0);
  rig.submit(second);
  CHECK(second.doneCount == 0);
  while (first.doneCount == 0) rig.turn();
  CHECK(second.doneCount == 1);
  rig.rest();
}

TEST_CASE("raid5 io: FUA is in the journal when it is answered, and a replay brings it") {
  Small rig;
  CHECK(rig.run(Op::write, 5000, 700, 3, true) == 0);
  CHECK(rig.io->committed());
  rig.crash(false);
  CHECK(rig.replays >= 1);
  CHECK(rig.holds(5000, 700, 3));
  CHECK(rig.wrongParity() == 0);
}

TEST_CASE("raid5 io: what is on its way is not changed by what is written meanwhile") {
  for (const bool placing : {false, true}) {
    Small rig;
    CHECK(rig.run(Op::write, 0, kLine, 5) == 0);
    Call flush(Op::flush, 0, 0);
    const std::uint64_t before = rig.disk.started(IoOp::write);
    rig.submit(flush);
    // The sixteen kilobytes of each column go into the ring, then, with the flush answered, into place.
    while (placing ? flush.doneCount == 0 : rig.disk.started(IoOp::write) == before) rig.turn();
    REQUIRE(!rig.disk.idle());
    CHECK(rig.run(Op::write, 0, 700, 6) == 0);
    CHECK(rig.run(Op::write, 4096, 4096, 6) == 0);
    CHECK(rig.holds(0, 700, 6));
    CHECK(rig.holds(700, 4096 - 700, 5));
    CHECK(rig.holds(4096, 4096, 6));
    while (flush.doneCount == 0) rig.turn();
    if (placing) {
      while (!rig.disk.idle()) rig.turn();
      CHECK(rig.wrongParity() == 0);
      CHECK(rig.onDisk(0)[0] == std::byte{5});
    }
    rig.crash(false);
    // The second writes were never flushed, nor staged.
    CHECK(rig.holds(0, kLine, 5));
    CHECK(rig.wrongParity() == 0);
  }
}

TEST_CASE("raid5 io: nothing a client writes looks like a header in the ring") {
  Small rig;
  Call call(Op::write, 0, 2 * kLine, 0);
  for (std::size_t at = 0; at < call.length; at += kBlock) {
    // In some places two words in a row, so that more than one flip is needed.
    const std::uint32_t word = journal::kMagic ^ static_cast<std::uint32_t>(at / kBlock % 3 == 0 ? 1 : 0);
    std::memcpy(call.buffer.data() + at, &word, 4);
  }
  rig.submit(call);
  REQUIRE(call.doneCount == 1);
  CHECK(rig.run(Op::flush) == 0);
  const auto ring = static_cast<std::uint32_t>(rig.node().prewrite / kBlock - 1);
  std::uint64_t headers = 0;
  for (std::uint16_t c = 0; c < rig.columns(); c++) {
    const journal::Place place{.unit = rig.node().unit,
                               .epoch = rig.node().epoch,
                               .column = c,
                               .columns = rig.columns(),
                               .ringBlocks = ring,
                               .dataBlocks = rig.node().lines * rig.node().segment / kBlock};
    const auto bytes = rig.disk.content(c).subspan(rig.node().columns[c].prewrite + kBlock, ring * kBlock);
    for (std::uint32_t position = 0; position < ring; position++) {
      const auto here = bytes.subspan(position * kBlock);
      std::uint32_t word = 0;
      std::memcpy(&word, here.data(), 4);
      if (word != journal::kMagic) continue;
      journal::Header header;
      CHECK(journal::read(here, place, position, header) == journal::Reading::found);
      CHECK(journal::whole(here, header));
      headers++;
    }
  }
  CHECK(headers >= 4);
  rig.crash(false);
  Call read(Op::read, 0, call.length);
  rig.submit(read);
  while (read.doneCount == 0) rig.turn();
  CHECK(read.buffer == call.buffer);
  CHECK(rig.wrongParity() == 0);
}

TEST_CASE("raid5 io: a stream leaves nothing behind in the cache, single writes what their parity needs") {
  Small rig;
  CHECK(rig.run(Op::write, 0, 4 * kLine, 5) == 0);
  CHECK(rig.run(Op::flush) == 0);
  rig.rest();
  CHECK(rig.state->cache->rowsUsed() == 0);
  CHECK(rig.state->cache->fullRows() == 0);
  CHECK(rig.run(Op::write, 0, 4096, 6) == 0);
  CHECK(rig.run(Op::flush) == 0);
  rig.rest();
  CHECK(rig.state->cache->rowsUsed() == 1);
}

TEST_CASE("raid5 io: full rows go on without anybody asking, others wait") {
  Shape5 shape = kShape;
  shape.lines = 160;
  shape.prewrite = 4000;
  Raid5Options options = patient();
  options.cacheBytes = 4000 * 4096;
  Small rig(shape, {.latencyMax = 3}, options);
  CHECK(rig.run(Op::write, 150 * kLine, 4096, 7) == 0);
  CHECK(rig.run(Op::write, 0, 100 * kLine, 8) == 0);
  for (int turns = 0; turns < 1000; turns++) rig.turn();
  CHECK(rig.disk.idle());
  CHECK(!rig.io->committed());
  CHECK(rig.state->cache->fullRows() < 64);
  CHECK(rig.state->cache->dirtyPages() < 64 * 3);
  CHECK(rig.disk.started(IoOp::read) == 0);
  // A flush is not kept waiting by full rows.
  Call flush(Op::flush, 0, 0);
  rig.submit(flush);
  for (std::uint64_t round = 0; flush.doneCount == 0; round++) {
    REQUIRE(round < 100);
    CHECK(rig.run(Op::write, round % 3 * 50 * kLine, 50 * kLine, 9) == 0);
    rig.turn();
  }
  CHECK(rig.disk.started(IoOp::read) != 0);
  rig.rest();
  CHECK(rig.wrongParity() == 0);
}

TEST_CASE("raid5 io: full rows that came after a flush do not go before what it waits for") {
  Shape5 shape = kShape;
  shape.lines = 160;
  shape.prewrite = 4000;
  Raid5Options options = patient();
  options.cacheBytes = 4000 * 4096;
  Small rig(shape, {.latencyMax = 3}, options);
  CHECK(rig.run(Op::write, 150 * kLine, 4096, 7) == 0);
  const Raid5Row& single = *rig.state->cache->oldestDirty();
  Call flush(Op::flush, 0, 0);
  rig.submit(flush);
  CHECK(rig.run(Op::write, 0, 100 * kLine, 8) == 0);
  for (unsigned turns = 0; single.dirty; turns++) {
    REQUIRE(turns < 1000);
    CHECK(rig.state->cache->fullRows() == 200);
    rig.turn();
  }
  const auto& groups = rig.state->groups;
  const auto first = std::min_element(groups.begin(), groups.end(), [](const Raid5Group& a, const Raid5Group& b) {
    const bool idle = a.phase == Raid5Group::Phase::idle;
    return idle == (b.phase == Raid5Group::Phase::idle) ? a.sequence < b.sequence : !idle;
  });
  REQUIRE(first->rows.size() == 1);
  CHECK(first->rows.front() == &single);
  while (flush.doneCount == 0) rig.turn();
  CHECK(rig.run(Op::flush) == 0);
  rig.rest();
  CHECK(rig.wrongParity() == 0);
}

TEST_CASE("raid5 io: for want of pages rows go by their place, but not the youngest; for a flush the oldest first") {
  Shape5 shape = kShape;
  shape.lines = 160;
  bool flushing = false;
  SUBCASE("for want of pages alone") {}
  SUBCASE("with a flush that waits") { flushing = true; }
  Small rig(shape);
  const Raid5Shape place(rig.node());
  const auto offset = [&](std::uint64_t row) { return row / 2 * kLine + row % 2 * 4096; };
  const auto dirty = [&](std::uint64_t row) {
    const Raid5Row* const found = rig.state->cache->find(place.rowOf(place.placeOf(offset(row))));
    return found != nullptr && found->dirty;
  };
  std::vector<Call> calls(rig.state->cache->pages() / 4, Call(Op::write, 0, 4096, 3));
  const std::uint64_t top = 319;
  const std::uint64_t bottom = top + 1 - calls.size();
  Call flush(Op::flush, 0, 0);
  for (std::uint64_t i = 0; i < calls.size(); i++) {
    calls[i].offset = offset(top - i);
    calls[i].data = calls[i].buffer.data();
    rig.submit(calls[i]);
    CHECK(calls[i].doneCount == 1);
    // What is asked for first is on its way when it is one row alone: half of them are waited for.
    if (flushing && i == calls.size() / 2) rig.submit(flush);
  }
  for (unsigned turns = 0; dirty(top) && dirty(bottom + calls.size() / 4); turns++) {
    REQUIRE(turns < 1000);
    rig.turn();
  }
  CHECK(dirty(top) == !flushing);
  for (std::uint64_t row = bottom; row < bottom + calls.size() / 4; row++) CHECK(dirty(row));
  CHECK(rig.run(Op::flush) == 0);
  rig.rest();
  CHECK(rig.wrongParity() == 0);
  for (std::uint64_t row = bottom; row <= top; row++) CHECK(rig.holds(offset(row), 4096, 3));
}

TEST_CASE("raid5 io: dirty memory is bounded") {
  Raid5Options options = patient();
  options.cacheBytes = 1;
  Small rig(kShape, {.latencyMax = 3}, options);
  const std::uint64_t size = rig.node().size;
  Call all(Op::write, 0, size, 6);
  rig.submit(all);
  while (all.doneCount == 0) {
    rig.turn();
    REQUIRE(rig.state->cache->dirtyPages() <= rig.state->cache->pages() / 2 + 1);
  }
  CHECK(all.error == 0);
  CHECK(rig.holds(0, size, 6));
  CHECK(rig.run(Op::zero, 3, size - 5) == 0);
  CHECK(rig.holds(3, size - 5, 0));
}

TEST_CASE("raid5 io: a bad sector is made up for, and told of") {
  Small rig;
  CHECK(rig.run(Op::write, 0, kLine, 8) == 0);
  rig.run(Op::flush);
  rig.rest();
  rig.state->cache->forgetClean();
  rig.disk.fault({.file = 1, .op = IoOp::read});
  CHECK(rig.holds(0, kLine, 8));
  REQUIRE(!rig.events.empty());
  CHECK(rig.events[0].component == 101);
  CHECK(rig.events[0].masked);
  CHECK(rig.io->requests() == 0);
}

TEST_CASE("raid5 io: a column that cannot be written closes the gate; the flush is answered without it") {
  Small rig;
  rig.disk.fault({.file = 2, .op = IoOp::write});
  CHECK(rig.run(Op::write, 0, 4 * kLine, 4) == 0);
  CHECK(rig.run(Op::flush) == 0);
  CHECK(rig.decisions == 1);
  REQUIRE(rig.missing().has_value());
  CHECK(*rig.missing() == 2);
  rig.rest();
  rig.state->cache->forgetClean();
  CHECK(rig.holds(0, 4 * kLine, 4));
}

TEST_CASE("raid5 io: when a second column fails, what can be read is read, and it goes on when it is back") {
  Small rig;
  rig.takeOut(0);
  rig.openPlan();
  CHECK(rig.run(Op::write, 0, 2 * kLine, 4) == 0);
  CHECK(rig.run(Op::flush) == 0);
  rig.rest();
  rig.nodeToChange().columns[1].service.lastErred = 1;
  rig.openPlan();
  CHECK(rig.run(Op::write, 0, 4096, 5) == EIO);
  CHECK(rig.run(Op::flush) == 0);  // there is nothing that it could miss
  rig.state->cache->forgetClean();
  CHECK(rig.holds(0, 2 * kLine, 4));
  rig.nodeToChange().columns[1].service.lastErred = 0;
  rig.openPlan();
  CHECK(rig.run(Op::write, 0, 4096, 5) == 0);
  CHECK(rig.run(Op::flush) == 0);
  CHECK(rig.holds(0, 4096, 5));
}

TEST_CASE("raid5 io: what was acknowledged is kept while too much is missing") {
  Small rig;
  CHECK(rig.run(Op::write, 100, 3 * kLine, 4) == 0);
  rig.takeOut(0);
  rig.takeOut(1);
  rig.openPlan();
  CHECK(rig.run(Op::flush) == EIO);
  CHECK(rig.holds(100, 3 * kLine, 4));
  rig.restored(1);
  rig.openPlan();
  CHECK(rig.run(Op::flush) == 0);
  rig.rest();
  rig.state->cache->forgetClean();
  CHECK(rig.holds(100, 3 * kLine, 4));
}

TEST_CASE("raid5 io: requests that cannot be carried out") {
  Small rig;
  const std::uint64_t size = rig.node().size;
  CHECK(rig.run(Op::read, size, 1) == EINVAL);
  CHECK(rig.run(Op::write, size - 1, 2) == EINVAL);
  CHECK(rig.run(Op::write, size, 0) == 0);
  CHECK(rig.run(Op::trim, 0, size) == 0);
  Call fast(Op::zero, 0, 512);
  fast.fastZero = true;
  rig.submit(fast);
  CHECK(fast.error == ENOTSUP);
}

TEST_CASE(
    "raid5 io: more columns are taken in at once, another shape only in another epoch, when everything is in place") {
  Small rig;
  CHECK(rig.run(Op::write, 0, 4096, 1) == 0);
  Raid5Node other = rig.node();
  other.lines--;
  CHECK(Raid5Io::prepare(other, *rig.state) == EINVAL);
  other.epoch++;
  CHECK(Raid5Io::prepare(other, *rig.state) == EBUSY);
  CHECK(Raid5Io::prepare(rig.node(), *rig.state) == 0);
  Raid5Node grown = rig.node();
  grown.columns.push_back(grown.columns.back());
  grown.serving++;
  CHECK(Raid5Io::prepare(grown, *rig.state) == 0);
  CHECK(rig.state->cache->oldestDirty() != nullptr);
  CHECK(rig.state->cache->shape().columns() == rig.columns() + 1);
  // Nor when nothing is on its way: the journal would use its numbers a second time.
  Small still;
  CHECK(still.run(Op::write, 0, 4096, 1, true) == 0);
  still.rest();
  const std::uint64_t last = still.state->journal.last();
  other = still.node();
  other.lines--;
  CHECK(Raid5Io::prepare(other, *still.state) == EINVAL);
  CHECK(still.state->journal.last() == last);
  other.epoch++;
  CHECK(Raid5Io::prepare(other, *still.state) == 0);
  CHECK(still.state->journal.last() == 0);
}

TEST_CASE("raid5 io: bad sectors of several columns in one request are made up for when each row has one alone") {
  Small rig;
  CHECK(rig.run(Op::write, 0, 12 * kLine, 8) == 0);
  rig.run(Op::flush);
  rig.rest();
  rig.state->cache->forgetClean();
  rig.damage(0, 0);
  rig.damage(1, 40);
  rig.damage(2, 100);
  CHECK(rig.holds(0, 12 * kLine, 8));
  // The edges of what is written are read as well.
  CHECK(rig.run(Op::write, 10, 12 * kLine - 20, 9) == 0);
  CHECK(rig.run(Op::flush) == 0);
  CHECK(rig.holds(10, 12 * kLine - 20, 9));
}

TEST_CASE("raid5 io: what could not be read once is asked for again") {
  for (const bool replan : {false, true}) {
    Small rig;
    CHECK(rig.run(Op::write, 0, kLine, 8) == 0);
    rig.run(Op::flush);
    rig.rest();
    rig.state->cache->forgetClean();
    rig.takeOut(0);
    rig.openPlan();
    rig.disk.fault({.file = 1, .op = IoOp::read});
    CHECK(rig.run(Op::read, 0, 4096) == EIO);
    rig.disk.clearFaults();
    if (replan) rig.openPlan();
    CHECK(rig.holds(0, 4096, 8));
  }
}

TEST_CASE("raid5 io: while nothing can be staged a dirty row is read past the cache, but for what needs two columns") {
  for (const bool erred : {false, true}) {
    Small rig;
    CHECK(rig.run(Op::write, 0, kLine, 8) == 0);
    CHECK(rig.run(Op::flush) == 0);
    rig.rest();
    rig.state->cache->forgetClean();
    CHECK(rig.run(Op::write, 16 * kBlock, 4096, 9) == 0);  // of the second column, and not staged
    rig.takeOut(0);
    if (erred) {
      rig.nodeToChange().columns[2].service.lastErred = 1;
    } else {
      rig.takeOut(2);
    }
    rig.openPlan();
    Call read(Op::read, 0, 4096);
    rig.submit(read);
    for (unsigned turns = 0; turns < 1000; turns++) rig.turn();
    CHECK(read.doneCount == 1);
    CHECK(read.error == (erred ? 0 : EIO));
    if (erred) CHECK(rig.holds(0, 4096, 8));
    CHECK(rig.holds(16 * kBlock, 4096, 9));
    if (read.doneCount == 0) std::abort();
    // The next plan is not kept out, and brings everything.
    Raid5Node& changed = rig.nodeToChange();
    changed.columns[2].service = {};
    changed.columns[2].file = 2;
    rig.swapPlan();
    CHECK(rig.holds(0, 4096, 8));
    CHECK(rig.run(Op::flush) == 0);
    rig.rest();
  }
}

TEST_CASE("raid5 io: a row that could not be staged is tried again by a flush although somebody reads into it") {
  Small rig;
  rig.takeOut(0);
  rig.openPlan();
  rig.disk.fault({.file = 1, .op = IoOp::read});
  CHECK(rig.run(Op::write, 0, kBlock, 5) == 0);  // its parity needs the second column
  CHECK(rig.run(Op::flush) == EIO);
  rig.disk.clearFaults();
  Call write(Op::write, 35 * kBlock + 100, 200, 6);
  rig.submit(write);
  REQUIRE(write.doneCount == 0);  // the rest of the sector is read
  Call flush(Op::flush, 0, 0);
  rig.submit(flush);
  for (unsigned turns = 0; turns < 1000; turns++) rig.turn();
  CHECK(write.doneCount == 1);
  CHECK(flush.doneCount == 1);
  CHECK(flush.error == 0);
  CHECK(rig.state->lostRows == 0);
  CHECK(rig.run(Op::flush) == 0);
  rig.rest();
}

TEST_CASE("raid5 io: bad sectors of two columns, in neighbouring rows and in one") {
  bool scatters = false;
  SUBCASE("rows in their own Ios") {}
  SUBCASE("rows from all over in one") { scatters = true; }
  Small rig(kShape, {.latencyMax = 3, .scatters = scatters});
  CHECK(rig.run(Op::write, 0, kLine, 8) == 0);
  rig.run(Op::flush);
  rig.rest();
  rig.state->cache->forgetClean();
  rig.damage(0, 0);
  rig.damage(1, 8);
  CHECK(rig.holds(0, kLine, 8));
  CHECK(rig.run(Op::write, 32 * kBlock, 8192, 9) == 0);
  rig.state->cache->forgetClean();
  CHECK(rig.run(Op::flush) == 0);
  rig.rest();
  rig.state->cache->forgetClean();
  // What was there and its parity are enough, whatever the other columns hold.
  rig.damage(1, 0);
  CHECK(rig.run(Op::write, 32 * kBlock, 4096, 7) == 0);
  CHECK(rig.run(Op::flush) == 0);
  rig.rest();
  rig.state->cache->forgetClean();
  CHECK(rig.holds(32 * kBlock, 4096, 7));
  CHECK(rig.holds(40 * kBlock, 4096, 9));
}
