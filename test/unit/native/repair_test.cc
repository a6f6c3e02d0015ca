// What becomes of blocks that cannot be read: rewritten from elsewhere, or the component is reported.
#include "property/native/harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

PlanMaker twoSides(std::uint64_t blocks = 416) {
  PlanMaker m;
  const NodeIndex a = m.component(8, blocks);
  const NodeIndex b = m.stripe({{16, blocks / 2, {0, 24}}});
  m.mirror({{a, true}, {b, true}}, ReadPolicy::first);
  return m;
}

struct Repair : Bench {
  explicit Repair(const PlanMaker& m, SimOptions options = {}) : Bench(m, 7, options) {
    equalise();
    content = sides()[1];
  }
  // A client's read of blocks, which must not notice anything.
  void read(std::uint64_t block, std::uint64_t blocks) {
    Call call(Op::read, block * kBlock, blocks * kBlock);
    CHECK(run(call) == 0);
    CHECK(std::memcmp(call.buffer.data(), content.data() + call.offset, call.length) == 0);
  }
  std::uint64_t blocksRepaired() const {
    std::uint64_t sum = 0;
    for (const Repaired& r : repaired) sum += r.blocks;
    return sum;
  }
  std::vector<std::byte> content;
};

}  // namespace

TEST_CASE("repair: the bad blocks of a read are rewritten, synced and read back, the good ones left alone") {
  for (const unsigned inlined : {0U, 100U}) {
    const PlanMaker m = twoSides();
    Repair b(m, {.inlinePercent = inlined});
    b.sim.damage(0, (8 + 50) * kBlock, (8 + 53) * kBlock);
    b.sim.damage(0, (8 + 200) * kBlock, (8 + 201) * kBlock);
    b.read(0, 400);
    b.rest();
    CHECK(b.sides()[0] == b.content);
    REQUIRE(b.events.size() == 1);
    CHECK(b.events[0].masked);
    CHECK(!b.events[0].repairFailed);
    // Pages of the component: blocks 56 to 64 of it and 208 to 216.
    REQUIRE(b.repaired.size() == 2);
    CHECK(b.repaired[0].component == 100);
    CHECK(b.repaired[0].block == 56);
    CHECK(b.repaired[0].blocks == 8);
    CHECK(b.repaired[1].block == 208);
    CHECK(b.sim.startedOn(0, IoOp::write) == 2);
    CHECK(b.sim.startedOn(0, IoOp::sync) == 2);
    CHECK(b.sim.startedOn(1, IoOp::write) + b.sim.startedOn(2, IoOp::write) == 0);
    const std::uint64_t before = b.sim.startedOn(0, IoOp::read);
    b.read(0, 400);
    CHECK(b.sim.startedOn(0, IoOp::read) == before + 1);
    CHECK(b.events.size() == 1);
  }
}

TEST_CASE("repair: a read that begins inside a page has the whole page rewritten") {
  const PlanMaker m = twoSides();
  Repair b(m);
  b.sim.damage(0, (8 + 53) * kBlock, (8 + 55) * kBlock);
  b.read(54, 1);
  b.rest();
  REQUIRE(b.repaired.size() == 1);
  CHECK(b.repaired[0].block == 56);
  CHECK(b.repaired[0].blocks == 8);
  CHECK(b.sides()[0] == b.content);
}

TEST_CASE("repair: a column is rewritten where its pieces lie, however the stripe cuts them") {
  PlanMaker m;
  const NodeIndex a = m.stripe({{20, 200, {3, 5}}});
  const NodeIndex b = m.component(0, 400);
  m.mirror({{a, true}, {b, true}}, ReadPolicy::first);
  Repair bench(m);
  bench.sim.damage(1, 0, m.sizes[1]);
  bench.read(0, 400);
  bench.rest();
  CHECK(bench.blocksRepaired() == 200);
  CHECK(bench.sides()[0] == bench.content);
  for (const auto& r : bench.repaired) CHECK(r.component == 101);
}

TEST_CASE("repair: the label of a side is never replaced by another side's") {
  PlanMaker m;
  const NodeIndex a = m.component(0, 100);
  const NodeIndex b = m.component(0, 100);
  m.mirror({{a, true}, {b, true}}, ReadPolicy::first);
  m.plan->labelled = true;
  Repair bench(m);
  bench.sim.damage(0, 0, 3 * kBlock);
  bench.read(0, 5);
  bench.rest();
  REQUIRE(bench.repaired.size() == 1);
  CHECK(bench.repaired[0].block == 1);
  CHECK(bench.repaired[0].blocks == 7);
}

TEST_CASE("repair: a block that stays bad, cannot be written, or comes back wrong takes the component out") {
  const PlanMaker m = twoSides();
  Repair b(m);
  int error = EIO;
  SUBCASE("stays bad") {
    b.sim.damage(0, 100 * kBlock, 101 * kBlock, true);
    error = ENODATA;
  }
  SUBCASE("cannot be written") {
    b.sim.damage(0, 100 * kBlock, 101 * kBlock);
    b.sim.fault({.file = 0, .op = IoOp::write, .error = EROFS});
    error = EROFS;
  }
  SUBCASE("cannot be synced") {
    b.sim.damage(0, 100 * kBlock, 101 * kBlock);
    b.sim.fault({.file = 0, .op = IoOp::sync, .error = EIO});
  }
  SUBCASE("comes back wrong") {
    b.sim.damage(0, 100 * kBlock, 101 * kBlock);
    b.sim.corrupt(0, 100 * kBlock, 101 * kBlock);
  }
  b.sim.damage(0, 300 * kBlock, 301 * kBlock);
  b.read(0, 400);
  b.rest();
  REQUIRE(b.events.size() == 2);
  CHECK(!b.events[0].repairFailed);
  CHECK(b.events[1].repairFailed);
  CHECK(b.events[1].op == ComponentOp::read);
  CHECK(b.events[1].component == 100);
  CHECK(b.events[1].masked);
  CHECK(b.events[1].error == error);
  CHECK(b.events[1].block == 96);
  CHECK(b.repaired.empty());
  CHECK(b.state.repairs.empty());
  // Nothing of it is read any more while there is another source, in the next volume either.
  const std::uint64_t before = b.sim.startedOn(0, IoOp::read);
  b.read(10, 300);
  b.open(m.plan);
  b.read(10, 300);
  CHECK(b.sim.startedOn(0, IoOp::read) == before);
}

TEST_CASE("repair: without a source nothing is written and nobody is blamed") {
  const PlanMaker m = twoSides();
  Repair b(m);
  b.sim.damage(0, 100 * kBlock, 116 * kBlock);
  b.sim.damage(1, 0, m.sizes[1]);
  b.sim.damage(2, 0, m.sizes[2]);
  CHECK(b.run(Op::read, 92 * kBlock, 16 * kBlock) == ENODATA);
  b.rest();
  CHECK(b.repaired.empty());
  for (const ComponentFault& event : b.events) CHECK(!event.repairFailed);
  CHECK(b.sim.started(IoOp::write) == 0);
}

TEST_CASE("repair: a block that is bad on two of three sides is looked at once, and mended from the third") {
  PlanMaker m;
  const NodeIndex a = m.component(0, 100);
  const NodeIndex b = m.component(0, 100);
  const NodeIndex c = m.component(0, 100);
  m.mirror({{a, true}, {b, true}, {c, true}}, ReadPolicy::first);
  Repair bench(m);
  std::size_t mended = 2;
  for (const std::uint32_t file : {0, 1}) bench.sim.damage(file, 50 * kBlock, 51 * kBlock);
  SUBCASE("from the third") {}
  SUBCASE("or not at all") {
    bench.sim.damage(2, 50 * kBlock, 51 * kBlock);
    mended = 0;
  }
  CHECK(bench.run(Op::read, 48 * kBlock, 8 * kBlock) == (mended == 0 ? ENODATA : 0));
  bench.rest();
  CHECK(bench.repaired.size() == mended);
  for (const ComponentFault& event : bench.events) CHECK(!event.repairFailed);
}

TEST_CASE("repair: a stable copy is what is written: a side whose sync fails is no source") {
  const PlanMaker m = twoSides();
  Repair b(m);
  b.sim.damage(0, 100 * kBlock, 101 * kBlock);
  b.sim.fault({.file = 1, .op = IoOp::sync, .error = EIO});
  b.sim.fault({.file = 2, .op = IoOp::sync, .error = EIO});
  b.read(90, 8);
  b.rest();
  CHECK(b.sim.startedOn(0, IoOp::write) == 0);
  CHECK(b.repaired.empty());
  REQUIRE(b.events.size() == 2);
  CHECK(b.events[0].component == 100);
  CHECK(!b.events[0].repairFailed);
  CHECK(b.events[1].op == ComponentOp::flush);
  CHECK(b.events[1].component != 100);
  CHECK(b.events[1].masked);
  // It is known now: not even asked.
  const std::uint64_t syncs = b.sim.started(IoOp::sync);
  b.read(90, 8);
  b.rest();
  CHECK(b.sim.started(IoOp::sync) == syncs);
  CHECK(b.sim.startedOn(0, IoOp::write) == 0);
}

TEST_CASE("repair: a component that failed one is no source for others") {
  const PlanMaker m = twoSides();
  Repair b(m);
  b.sim.damage(0, 8 * kBlock, 16 * kBlock);
  b.sim.files()[1]->suspect = true;
  b.open(m.plan);
  b.read(0, 4);
  b.rest();
  CHECK(b.repaired.empty());
  CHECK(b.sim.started(IoOp::write) == 0);
}

TEST_CASE("repair: nothing is written that the plan keeps from being written") {
  PlanMaker m = twoSides();
  auto& mirror = std::get<MirrorNode>(m.plan->nodes.back());
  SUBCASE("all of it") { m.plan->readOnly = true; }
  SUBCASE("the side") { mirror.sides[0].writable = false; }
  SUBCASE("the component") { std::get<ComponentNode>(m.plan->nodes[mirror.sides[0].child]).service.writable = false; }
  Repair b(m);
  b.sim.damage(0, 100 * kBlock, 101 * kBlock);
  for (int i = 0; i < 3; i++) {
    b.read(60, 150);
    b.rest();
  }
  CHECK(b.sim.started(IoOp::write) == 0);
  CHECK(b.sim.started(IoOp::sync) == 0);
  CHECK(b.repaired.empty());
  CHECK(b.events.size() == 3);
  for (const ComponentFault& event : b.events) CHECK(!event.repairFailed);
}

TEST_CASE("repair: what hangs is not rewritten") {
  const PlanMaker m = twoSides();
  Repair b(m);
  SUBCASE("when it is read") {
    b.sim.fault({.file = 0, .op = IoOp::read, .error = ETIMEDOUT});
    b.read(90, 30);
    b.rest();
    REQUIRE(b.events.size() == 1);
    CHECK(b.events[0].error == ETIMEDOUT);
  }
  SUBCASE("when it is looked at") {
    b.sim.fault({.file = 0, .op = IoOp::read, .times = 1});
    b.sim.fault({.file = 0, .op = IoOp::read, .error = ETIMEDOUT});
    b.read(90, 30);
    b.rest();
    REQUIRE(b.events.size() == 2);
    CHECK(b.events[1].error == ETIMEDOUT);
    CHECK(b.events[1].repairFailed);
  }
  CHECK(b.sim.started(IoOp::write) == 0);
}

TEST_CASE("repair: what can be read again is left alone, and told of as a read error") {
  const PlanMaker m = twoSides();
  Repair b(m);
  b.sim.fault({.file = 0, .op = IoOp::read, .times = 1});
  b.read(0, 200);
  b.rest();
  CHECK(b.events.size() == 1);
  CHECK(b.repaired.empty());
  CHECK(b.sim.started(IoOp::write) == 0);
}

TEST_CASE("repair: many reads of one bad block are one report until it was looked at") {
  const PlanMaker m = twoSides();
  Repair b(m, {.latencyMax = 6});
  b.sim.damage(0, (8 + 100) * kBlock, (8 + 101) * kBlock);
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < 40; i++) {
    calls.push_back(std::make_unique<Call>(Op::read, 100 * kBlock, kBlock));
    b.submit(*calls.back());
    if (i % 4 == 3) b.turn();
  }
  b.rest();
  for (const auto& call : calls) CHECK((call->finished() && call->error == 0));
  CHECK(b.events.size() == 1);
  REQUIRE(b.repaired.size() == 1);
  CHECK(b.sides()[0] == b.content);
}

TEST_CASE("repair: one that waits for a write gives way to another plan, and comes back") {
  const PlanMaker m = twoSides();
  Repair b(m);
  Regions regions(416 * kBlock, 512 * kBlock);
  b.state.regions = &regions;
  // A write that waits for its regions to be marked owns its range as long as the control plane likes.
  Call write(Op::write, 100 * kBlock, 8 * kBlock, 7);
  b.submit(write);
  b.sim.damage(0, (8 + 100) * kBlock, (8 + 101) * kBlock);
  b.read(96, 16);
  for (int i = 0; i < 50; i++) b.turn();
  CHECK(b.volume->working());
  CHECK(b.sim.started(IoOp::write) == 0);
  b.volume->quiesce();
  CHECK(b.volume->inFlight() == 1);  // the write
  CHECK(b.state.repairs.size() == 1);
  CHECK(regions.settle(regions.takeMarks().number, true, 0));
  b.drain();
  CHECK((write.finished() && write.error == 0));
  CHECK(b.repaired.empty());
  b.sim.damage(0, (8 + 100) * kBlock, (8 + 101) * kBlock);
  b.open(m.plan);
  b.rest();
  CHECK(b.repaired.size() == 1);
  const auto sides = b.sides();
  CHECK(sides[0] == sides[1]);
  CHECK(sides[0][100 * kBlock] == std::byte{7});
}

TEST_CASE("repair: a client's write waits for the page in hand, and its data is what stays") {
  for (std::uint64_t seed = 1; seed < 60; seed++) {
    const PlanMaker m = twoSides();
    Bench b(m, seed, {.latencyMax = 12});
    b.equalise();
    b.sim.damage(0, 58 * kBlock, 90 * kBlock);
    Call read(Op::read, 40 * kBlock, 60 * kBlock);
    b.run(read);
    for (std::uint64_t i = 0; i < seed % 20; i++) b.turn();
    Call write(Op::write, 55 * kBlock, 10 * kBlock, 9);
    b.submit(write);
    b.rest();
    CHECK((write.finished() && write.error == 0));
    const auto sides = b.sides();
    CHECK(sides[0] == sides[1]);
    CHECK(sides[0][60 * kBlock] == std::byte{9});
    CHECK(b.sim.overlappingWrites() == 0);
  }
}

TEST_CASE("repair: another plan goes on with what is left, or forgets what is no more there") {
  const PlanMaker m = twoSides();
  Repair b(m);
  for (std::uint64_t i = 0; i < 5; i++) {
    b.sim.damage(0, (64 + 64 * i) * kBlock, (65 + 64 * i) * kBlock);
    b.read(56 + 64 * i, 1);
  }
  b.turn();
  CHECK(b.volume->working());
  b.open(m.plan);
  CHECK(b.repaired.size() < 5);
  CHECK(!b.state.repairs.empty());
  SUBCASE("goes on") {
    b.rest();
    CHECK(b.repaired.size() == 5);
    CHECK(b.sides()[0] == b.content);
  }
  SUBCASE("forgets") {
    const auto without = std::make_shared<Plan>(*m.plan);
    auto& mirror = std::get<MirrorNode>(without->nodes.back());
    mirror.sides.erase(mirror.sides.begin());
    mirror.sides[0].readable = false;  // not a plain volume
    mirror.sides[0].slot = 1;
    const std::size_t before = b.repaired.size();
    b.open(without);
    b.rest();
    CHECK(b.state.repairs.empty());
    CHECK(b.repaired.size() == before);
  }
}

TEST_CASE("repair: the queue is bounded and merges what touches") {
  RepairQueue queue;
  queue.add({1, 0, 512});
  queue.add({1, 1024, 2048});
  queue.add({0, 512, 1024});
  CHECK(queue.size() == 3);
  queue.add({1, 512, 1024});
  CHECK(queue.size() == 2);
  CHECK(queue.take().slot == 0);
  const RepairQueue::Place merged = queue.take();
  CHECK(merged.offset == 0);
  CHECK(merged.end == 2048);
  for (std::uint64_t i = 0; i < 200; i++) queue.add({static_cast<std::uint32_t>(i % 2), i * 1024, i * 1024 + 512});
  CHECK(queue.size() == RepairQueue::capacity());
  queue.forget(0);
  CHECK(queue.size() == RepairQueue::capacity() / 2);
  while (!queue.empty()) CHECK(queue.take().slot == 1);
}
