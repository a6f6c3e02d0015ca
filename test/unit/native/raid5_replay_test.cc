// What a replay makes of rings that cannot be read everywhere.
#include "md/raid5_replay.h"

#include <doctest/doctest.h>

#include "raid5_asked.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

constexpr Shape5 kShape{.originals = 3, .columns = 3, .interlace = 16, .lines = 40, .prewrite = 400};
constexpr std::uint64_t kLine = 2 * 16 * kBlock;
constexpr std::uint32_t kRing = 399;

struct Broken : Asked5 {
  explicit Broken(std::uint64_t seed = 1, const Shape5& shape = kShape) : Asked5(shape, seed, {}, patient()) {}

  // Committed; whatever was not synced is lost with the power.
  void powerFails() {
    disk.crash();
    for (unsigned turns = 0; inFlight() != 0; turns++) {
      REQUIRE(turns < 10'000);
      disk.poll();
      io->tick();
    }
    hold->drop(ESHUTDOWN);
    jobs.reset();
    io.reset();
    disk.reopen();
    events.clear();
  }
  void spoil(std::uint32_t column, std::uint32_t block, std::uint32_t blocks = 1) {
    const std::uint64_t at = node().columns[column].prewrite + (1 + block) * kBlock;
    disk.damage(column, at, at + blocks * kBlock);
  }
  Raid5Replayed replay() {
    nodeToChange().replay = true;
    const Raid5Node node5 = node();
    auto plan = std::make_shared<Plan>();
    plan->components = {100, 101, 102, 103, 104, 105};
    plan->nodes.emplace_back(node5);
    ended_ = false;
    const auto over = [](void* self, const Raid5Replayed& found) noexcept {
      static_cast<Broken*>(self)->ended_ = true;
      static_cast<Broken*>(self)->result = found;
    };
    const std::vector<ComponentFile*> files = disk.files();
    Raid5Replay made(*plan, files, disk, *this, over, this);
    made.start();
    for (unsigned turns = 0; !ended_; turns++) {
      REQUIRE(turns < 1'000'000);
      disk.poll();
    }
    return result;
  }
  void serve() {
    Raid5Node& changed = nodeToChange();
    changed.replay = false;
    changed.epoch++;
    open();
  }
  // The last one has parts of different lengths.
  void threeGroups() {
    CHECK(run(Op::write, 0, 5 * kBlock, 1, true) == 0);
    CHECK(run(Op::write, 2 * kBlock, 20 * kBlock, 2, true) == 0);
    CHECK(run(Op::write, 3 * kLine + 512, 512, 3, true) == 0);
  }
  void bringsThemBack() {
    const Raid5Replayed done = replay();
    CHECK(done.error == 0);
    CHECK(done.damaged == 0);
    CHECK(!toldUnmasked());
    CHECK(wrongParity() == 0);
    serve();
    CHECK(holds(0, 2 * kBlock, 1));
    CHECK(holds(2 * kBlock, 20 * kBlock, 2));
    CHECK(holds(3 * kLine + 512, 512, 3));
  }
  bool toldUnmasked() const {
    return std::any_of(events.begin(), events.end(), [](const ComponentFault& f) { return !f.masked; });
  }

 private:
  bool ended_ = false;
};

}  // namespace

TEST_CASE("raid5 replay: a whole device gets everything, whichever block of one ring is bad") {
  for (std::uint32_t column = 0; column < 3; column++) {
    for (std::uint32_t block = 0; block < 40; block++) {
      Broken rig(column * 100 + block);
      rig.threeGroups();
      rig.powerFails();
      rig.spoil(column, block);
      INFO("column " << column << ", block " << block);
      rig.bringsThemBack();
      CHECK(rig.run(Op::write, 0, 4 * kLine, 4, true) == 0);  // over the bad block, too
    }
  }
}

TEST_CASE("raid5 replay: a whole device gets everything, whatever a block of one ring before the last group holds") {
  for (std::uint32_t column = 0; column < 3; column++) {
    std::uint32_t last = 1;
    for (std::uint32_t block = 0; block < last; block++) {
      Broken rig(column * 100 + block);
      rig.threeGroups();
      for (const Raid5Group& group : rig.state->groups) last = std::max(last, group.position);
      rig.powerFails();
      rig.disk.content(column)[rig.node().columns[column].prewrite + (1 + block) * kBlock + block] ^= std::byte{1};
      INFO("column " << column << ", block " << block);
      rig.bringsThemBack();
    }
    CHECK(last > 6);
  }
}

TEST_CASE("raid5 replay: nothing is in place before what says so is on stable storage") {
  for (std::uint32_t column = 0; column < 3; column++) {
    Broken rig(column);
    CHECK(rig.run(Op::write, 0, 5 * kBlock, 1, true) == 0);
    rig.powerFails();
    const std::uint64_t before = rig.disk.started(IoOp::write);
    rig.disk.fault({.file = column, .op = IoOp::sync});
    CHECK(rig.replay().error == EIO);
    CHECK(rig.disk.started(IoOp::write) == before);
    rig.disk.clearFaults();
    rig.disk.reopen();
    const std::uint64_t synced = rig.disk.started(IoOp::sync);
    CHECK(rig.replay().groups == 1);
    CHECK(rig.disk.started(IoOp::sync) == synced + 6);
    rig.serve();
    CHECK(rig.holds(0, 5 * kBlock, 1));
  }
}

TEST_CASE("raid5 replay: degraded, a bad block that no group needs costs nothing") {
  for (const std::uint32_t block : {150U, kRing - 1}) {
    Broken rig;
    rig.takeOut(0);
    rig.openPlan();
    CHECK(rig.run(Op::write, 100, 2 * kLine, 4, true) == 0);
    rig.powerFails();
    rig.spoil(1, block);
    rig.spoil(2, 160, 9);
    const Raid5Replayed done = rig.replay();
    CHECK(done.error == 0);
    CHECK(done.groups == 1);
    CHECK(done.damaged == 0);
    // One report for neighbours.
    CHECK(rig.events.size() == 2);
    CHECK(!rig.toldUnmasked());
    rig.serve();
    CHECK(rig.holds(100, 2 * kLine, 4));
  }
}

TEST_CASE("raid5 replay: degraded, what is left of a certain group is carried out, and it is told of") {
  // The first group: a header block, then what was written to each column.
  for (std::uint32_t block = 0; block < 8; block++) {
    Broken rig(block);
    rig.takeOut(0);
    rig.openPlan();
    CHECK(rig.run(Op::write, 0, 2 * kLine, 4, true) == 0);
    CHECK(rig.run(Op::write, 8 * kLine, kLine, 5, true) == 0);
    const std::uint32_t position = 0;
    rig.powerFails();
    rig.spoil(1, position + block);
    const Raid5Replayed done = rig.replay();
    CHECK(done.error == 0);
    CHECK(!rig.toldUnmasked());
    rig.serve();
    CHECK(rig.holds(8 * kLine, kLine, 5));
    CHECK(rig.run(Op::read, 0, 2 * kLine) == 0);
  }
}

TEST_CASE("raid5 replay: degraded, a last group that cannot be read is not half carried out") {
  Broken rig;
  rig.takeOut(0);
  rig.openPlan();
  CHECK(rig.run(Op::write, 0, 4 * kLine, 4) == 0);
  CHECK(rig.run(Op::flush) == 0);
  rig.rest();
  const std::vector<std::byte> before(rig.disk.content(2).begin(), rig.disk.content(2).end());
  CHECK(rig.run(Op::write, 0, 4 * kLine, 5, true) == 0);
  rig.rest();
  // As it is before anything was written in place: what is told apart is the journal alone.
  const std::uint64_t start = rig.node().columns[2].start;
  rig.powerFails();
  std::copy(before.begin() + static_cast<std::ptrdiff_t>(start), before.end(),
            rig.disk.content(2).begin() + static_cast<std::ptrdiff_t>(start));
  rig.disk.makeDurable(2);
  rig.spoil(1, 1, 398);
  const Raid5Replayed done = rig.replay();
  CHECK(done.error == 0);
  CHECK(done.damaged != 0);
  CHECK(std::equal(before.begin() + static_cast<std::ptrdiff_t>(start), before.end(),
                   rig.disk.content(2).begin() + static_cast<std::ptrdiff_t>(start)));
}

TEST_CASE("raid5 replay: degraded, a group whose only header cannot be read is told of") {
  Broken rig;
  rig.takeOut(0);
  rig.openPlan();
  // Parity of line 1 lies in column 0: only data is written, in one column.
  CHECK(rig.run(Op::write, kLine, 512, 4, true) == 0);
  rig.powerFails();
  rig.spoil(1, 0);
  rig.spoil(2, 5);
  const Raid5Replayed done = rig.replay();
  CHECK(done.error == 0);
  CHECK(done.groups == 0);
  CHECK(done.damaged == 1);
}

TEST_CASE("raid5 replay: a column that is gone has no bad blocks") {
  for (const bool degraded : {true, false}) {
    Broken rig;
    if (degraded) rig.takeOut(0);
    rig.openPlan();
    CHECK(rig.run(Op::write, 100, 2 * kLine, 4, true) == 0);
    rig.powerFails();
    rig.disk.fault({.file = 1, .op = IoOp::read});
    const Raid5Replayed done = rig.replay();
    CHECK(done.error == EIO);
    CHECK(done.groups == 0);
    REQUIRE(!rig.events.empty());
    CHECK(rig.events.back().component == 101);
    CHECK(rig.events.back().op == ComponentOp::read);
    CHECK(!rig.events.back().masked);
    // Nothing was written: made again when it is back, it brings everything.
    rig.disk.clearFaults();
    CHECK(rig.replay().error == 0);
    rig.serve();
    CHECK(rig.holds(100, 2 * kLine, 4));
  }
}

TEST_CASE("raid5 replay: a record that is out of date brings nothing older than what the journal has") {
  Broken rig;
  CHECK(rig.run(Op::write, 0, 3 * kLine, 4, true) == 0);
  rig.rest();
  rig.powerFails();
  CHECK(rig.replay().epoch == 1);
  rig.serve();
  CHECK(rig.run(Op::write, 512, kLine, 5, true) == 0);
  rig.powerFails();
  const std::uint64_t epoch = rig.node().epoch;
  // The first group lies behind the ones of the newer epoch, or was overwritten by them.
  rig.nodeToChange().epoch = epoch - 1;
  const Raid5Replayed done = rig.replay();
  CHECK(done.error == 0);
  CHECK(done.epoch == epoch);
  CHECK(done.damaged == 0);
  CHECK(rig.wrongParity() == 0);
  rig.nodeToChange().epoch = done.epoch;
  rig.serve();
  CHECK(rig.holds(512, kLine, 5));
  CHECK(rig.holds(512 + kLine, 2 * kLine - 512, 4));
}
