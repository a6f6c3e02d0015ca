// Reads of RAID5 while too much is missing for anything to be staged: past the cache.
#include <doctest/doctest.h>

#include "raid5_asked.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

constexpr Shape5 kShape{.originals = 4, .columns = 4, .interlace = 16, .lines = 40, .prewrite = 400};
constexpr std::uint64_t kSegment = 16 * kBlock;
constexpr std::uint64_t kLine = 3 * kSegment;

// The first columns hold data in line 0, the last one its parity.
struct Small : Asked5 {
  explicit Small(const Shape5& shape = kShape, Raid5Options options = patient())
      : Asked5(shape, 1, {.latencyMax = 3}, options) {}
  // Everything reads so, from the columns alone.
  void fill(std::uint8_t with) {
    for (std::uint64_t at = 0; at < node().size; at += kLine) REQUIRE(run(Op::write, at, kLine, with) == 0);
    REQUIRE(run(Op::flush) == 0);
    rest();
    state->cache->forgetClean();
  }
  void err(std::uint32_t c) {
    nodeToChange().columns[c].service.lastErred = 1;
    openPlan();
  }
  Raid5Row& row(std::uint64_t key) {
    Raid5Row* const found = state->cache->find(key);
    REQUIRE(found != nullptr);
    return *found;
  }
  template <typename Done>
  void until(Done done) {
    for (unsigned turns = 0; !done(); turns++) {
      REQUIRE(turns < 10'000);
      turn();
    }
  }
};

}  // namespace

TEST_CASE("raid5 apart: a column is computed from what parity knows of, whatever is dirty beside it") {
  Small rig;
  rig.fill(8);
  CHECK(rig.run(Op::write, kSegment + 512, 1024, 9) == 0);       // of the second column
  CHECK(rig.run(Op::write, 512, 512, 7) == 0);                   // of the first one itself
  CHECK(rig.run(Op::write, 2 * kSegment + 1024, 4096, 6) == 0);  // of the third, two rows
  rig.takeOut(0);
  rig.err(1);
  CHECK(rig.holds(0, 512, 8));
  CHECK(rig.holds(512, 512, 7));
  CHECK(rig.holds(1024, 7168, 8));
  CHECK(rig.holds(100, 300, 8));
  Call both(Op::read, 100, 900);
  rig.submit(both);
  rig.until([&] { return both.doneCount == 1; });
  for (std::size_t i = 0; i < 900; i++) REQUIRE(both.buffer[i] == std::byte(i < 412 ? 8 : 7));
  CHECK(rig.holds(kSegment + 512, 1024, 9));
  CHECK(rig.holds(2 * kSegment + 1024, 4096, 6));
  // A request over all of it, and over lines in which other columns are data.
  CHECK(rig.run(Op::read, 0, rig.node().size) == 0);
  CHECK(rig.holds(kLine, rig.node().size - kLine, 8));
  // None of it is lost, nor taken for staged.
  CHECK(rig.run(Op::flush) == EIO);
  rig.nodeToChange().columns[1].service.lastErred = 0;
  rig.openPlan();
  CHECK(rig.run(Op::flush) == 0);
  rig.rest();
  rig.state->cache->forgetClean();
  CHECK(rig.holds(512, 512, 7));
  CHECK(rig.holds(kSegment + 512, 1024, 9));
  CHECK(rig.holds(0, 512, 8));
}

TEST_CASE("raid5 apart: what is on its way counts as staged, also when it was written again since") {
  for (const bool again : {false, true}) {
    Small rig;
    rig.fill(8);
    rig.takeOut(0);
    rig.openPlan();
    // Lines that lie like the first one.
    const auto each = [&](auto visit) {
      for (std::uint64_t line = 0; line < 40; line += 4) visit(line * kLine + kSegment);
    };
    each([&](std::uint64_t at) { CHECK(rig.run(Op::write, at, 2048, 9) == 0); });
    Call flush(Op::flush, 0, 0);
    rig.submit(flush);
    rig.until([&] {
      const auto& groups = rig.state->groups;
      return std::any_of(groups.begin(), groups.end(), [](const Raid5Group& group) {
        return group.phase == Raid5Group::Phase::syncing && group.rows.size() == 10;
      });
    });
    rig.disk.fault({.file = 1, .op = IoOp::write});  // in place: what fails so is there, or not
    if (again) {
      each([&](std::uint64_t at) { CHECK(rig.run(Op::write, at + 512, 512, 5) == 0); });
      each([&](std::uint64_t at) { CHECK(rig.run(Op::write, at + 2560, 512, 4) == 0); });  // not in the group
    }
    rig.until([&] { return rig.hold->closed(); });
    CHECK(flush.doneCount == 1);
    CHECK(flush.error == 0);
    rig.nodeToChange().columns[1].service.lastErred = 1;
    rig.until([&] { return !rig.hold->closed(); });
    rig.swapPlan();
    CHECK(rig.row(0).pins != 0);
    CHECK(rig.row(0).dirty == again);
    each([&](std::uint64_t at) {
      CHECK(rig.holds(at - kSegment, kSegment, 8));
      CHECK(rig.holds(at, 512, 9));
      CHECK(rig.holds(at + 512, 512, again ? 5 : 9));
      CHECK(rig.holds(at + 1024, 1024, 9));
      CHECK(rig.holds(at + 2048, 512, 8));
      CHECK(rig.holds(at + 2560, 512, again ? 4 : 8));
      CHECK(rig.holds(at + 3072, kSegment - 3072, 8));
    });
    CHECK(rig.run(Op::flush) == (again ? EIO : 0));
  }
}

TEST_CASE("raid5 apart: the cache is not needed, so it may be full") {
  Raid5Options options = patient();
  options.cacheBytes = 4096;
  Small rig(kShape, options);
  rig.fill(8);
  rig.takeOut(0);
  rig.err(2);
  const std::size_t free = rig.state->cache->freePages();
  Call read(Op::read, 0, rig.node().size);
  rig.submit(read);
  while (read.doneCount == 0) {
    rig.turn();
    REQUIRE(rig.state->cache->freePages() == free);
  }
  CHECK(read.error == 0);
  CHECK(std::all_of(read.buffer.begin(), read.buffer.end(), [](std::byte b) { return b == std::byte{8}; }));
}

TEST_CASE("raid5 apart: what two missing columns hold is refused at once, all else of these rows is read") {
  Small rig;
  rig.fill(8);
  CHECK(rig.run(Op::write, 512, 512, 7) == 0);
  CHECK(rig.run(Op::write, 2 * kSegment + 512, 512, 6) == 0);
  rig.takeOut(0);
  rig.takeOut(1);
  rig.openPlan();
  const std::uint64_t reads = rig.disk.started(IoOp::read);
  CHECK(rig.run(Op::read, 0, 512) == EIO);
  CHECK(rig.run(Op::read, 0, 1024) == EIO);
  CHECK(rig.run(Op::read, kSegment, 1) == EIO);
  CHECK(rig.disk.started(IoOp::read) == reads);
  CHECK(rig.holds(512, 512, 7));
  CHECK(rig.holds(2 * kSegment, 512, 8));
  CHECK(rig.holds(2 * kSegment + 512, 512, 6));
  CHECK(rig.run(Op::read, 2 * kSegment, 1024) == 0);
  CHECK(rig.run(Op::write, 0, 512, 1) == EIO);
}

TEST_CASE("raid5 apart: a sector is refused only when it cannot be had, whatever else of its row is bad") {
  for (const bool broken : {false, true}) {
    Small rig;
    rig.fill(8);
    if (broken) {
      rig.takeOut(2);
      rig.err(3);
    }
    // Sectors 1 of the first column, 3 of the second one, in one row.
    rig.damage(0, 1);
    rig.damage(1, 3);
    if (!broken) rig.damage(3, 5);
    const bool whole = rig.holds(0, 4096, 8);
    CHECK(whole == !broken);
    CHECK(rig.holds(512, 512, 8) == !broken);
    CHECK(rig.holds(0, 512, 8));
    CHECK(rig.holds(1024, 3072, 8));
    CHECK(rig.holds(kSegment, 1536, 8));
    CHECK(rig.holds(2 * kSegment + 1024, 512, 8));
    CHECK(rig.holds(2 * kSegment + 512, 512, 8) == !broken);
  }
}

TEST_CASE("raid5 apart: a row that cannot be staged is read all the same") {
  Small rig;
  rig.fill(8);
  rig.takeOut(0);
  rig.openPlan();
  rig.damage(1, 0);
  CHECK(rig.run(Op::write, kSegment, 512, 9) == 0);  // what it was cannot be read, nor computed
  CHECK(rig.run(Op::write, 2 * kSegment + 512, 512, 7) == 0);
  CHECK(rig.run(Op::flush) == EIO);
  CHECK(rig.row(0).lost);
  Call read(Op::read, 512, 3584);
  rig.submit(read);
  bool owned = false;  // meanwhile nobody else may stage it
  rig.until([&] {
    owned = owned || (rig.row(0).lost && rig.row(0).busy);
    return read.doneCount == 1;
  });
  CHECK(read.error == 0);
  CHECK(owned);
  CHECK(rig.holds(512, 3584, 8));
  CHECK(rig.run(Op::read, 0, 512) == EIO);
  CHECK(rig.holds(kSegment, 512, 9));
  CHECK(rig.holds(2 * kSegment + 512, 512, 7));
  // Nothing is kept busy by that.
  rig.disk.clearFaults();
  rig.disk.mend(1);
  CHECK(rig.holds(0, 4096, 8));
  CHECK(rig.run(Op::flush) == 0);
  rig.rest();
  rig.state->cache->forgetClean();
  CHECK(rig.holds(0, 4096, 8));
  CHECK(rig.holds(kSegment, 512, 9));
}

TEST_CASE("raid5 apart: who only reads finds space although rows that cannot be staged fill their share of the cache") {
  Raid5Options options = patient();
  options.cacheBytes = 4096;
  Small rig(kShape, options);
  rig.fill(8);
  rig.takeOut(0);
  rig.openPlan();
  // What was there before cannot be read, nor computed.
  Raid5Cache& cache = *rig.state->cache;
  std::uint64_t at = 0;
  for (; cache.dirtyPages() < cache.pages() / 2; at += 4096) {
    const Raid5Place place = cache.shape().placeOf(at);
    if (place.column == 0 || cache.shape().parityColumn(place.line) == 0) continue;
    if (place.column != (place.line % 4 == 3 ? 2 : 1) && place.line % 4 != 2) continue;
    rig.damage(place.column, place.line * 16 + place.within / kBlock);
    REQUIRE(rig.run(Op::write, at, 512, 9) == 0);
  }
  CHECK(rig.run(Op::flush) == EIO);
  CHECK(rig.state->lostRows != 0);
  const std::uint64_t from = (at + kLine) / kLine * kLine;
  REQUIRE(from + 2 * kLine < rig.node().size);
  std::vector<Call> calls;
  for (int i = 0; i < 8; i++) calls.emplace_back(Op::read, from, rig.node().size - from);
  for (Call& call : calls) rig.submit(call);
  for (Call& call : calls) {
    rig.until([&] { return call.doneCount == 1; });
    CHECK(call.error == 0);
  }
}
