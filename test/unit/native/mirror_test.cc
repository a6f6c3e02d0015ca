// Read policies, overlaps, and mirrors whose components fail.
#include "md/mirror.h"

#include "property/native/harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

// Of four sides, those in `sides` (one bit each) are fast.
ReadBalance balance(ReadPolicy read, std::uint32_t sides, std::uint64_t size = 1000 * kBlock) {
  MirrorNode mirror{size, read, WritePolicy::parallel, {}};
  mirror.sides.resize(4);
  return ReadBalance(mirror, sides);
}

PlanMaker twoStripes(ReadPolicy read = ReadPolicy::roundrobin, WritePolicy write = WritePolicy::parallel) {
  PlanMaker m;
  const NodeIndex a = m.stripe({{16, 64, {0, 0}}});
  const NodeIndex b = m.stripe({{32, 64, {3, 5}}});
  m.mirror({{a, true}, {b, true}}, read, write);
  return m;
}

}  // namespace

TEST_CASE("mirror: first reads the first fast side") {
  ReadBalance b = balance(ReadPolicy::first, 0b110);
  for (std::uint64_t i = 0; i < 5; i++) CHECK(b.choose(i * 77, 10) == 1);
}

TEST_CASE("mirror: geometric cuts the volume among the fast sides") {
  ReadBalance b = balance(ReadPolicy::geometric, 0b1101, 1000);
  CHECK(b.choose(0, 1) == 0);
  CHECK(b.choose(333, 1) == 0);
  CHECK(b.choose(334, 1) == 2);
  CHECK(b.choose(667, 1) == 2);
  CHECK(b.choose(668, 1) == 3);
  CHECK(b.choose(999, 1) == 3);
}

TEST_CASE("mirror: round robin takes turns for random reads and keeps streams together") {
  ReadBalance b = balance(ReadPolicy::roundrobin, 0b0111);
  unsigned counts[3] = {};
  for (std::uint64_t i = 0; i < 300; i++) counts[b.choose(i * 7919 % 1000 * 4096, 512)]++;
  for (const unsigned count : counts) CHECK(count >= 90);
  const std::uint32_t one = b.choose(1 << 30, 4096);
  const std::uint32_t two = b.choose(1 << 29, 4096);
  CHECK(one != two);
  for (std::uint64_t i = 1; i < 50; i++) {
    CHECK(b.choose((1 << 30) + i * 4096, 4096) == one);
    CHECK(b.choose((1 << 29) + i * 4096, 4096) == two);
  }
}

TEST_CASE("mirror: writes reach every side, readable or not") {
  for (const WritePolicy policy : {WritePolicy::parallel, WritePolicy::serial}) {
    PlanMaker m;
    const NodeIndex a = m.component(0, 100);
    const NodeIndex b = m.component(7, 100);
    const NodeIndex c = m.stripe({{16, 32, {0, 1, 2, 3}}});
    m.mirror({{a, true}, {b, false}, {c, true}}, ReadPolicy::roundrobin, policy);
    Bench bench(m, 5);
    bench.equalise();
    CHECK(bench.volume->stateful());
    CHECK(bench.run(Op::write, 10 * kBlock, 50 * kBlock, 0x5a) == 0);
    CHECK(bench.run(Op::trim, 20 * kBlock, 10 * kBlock) == 0);
    const auto sides = bench.sides();
    CHECK(sides[0] == sides[1]);
    CHECK(sides[0] == sides[2]);
    CHECK(sides[0][10 * kBlock] == std::byte{0x5a});
    CHECK(sides[0][25 * kBlock] == std::byte{0});
    CHECK(bench.sim.started(IoOp::discard) == 0);  // sides could read back differently
  }
}

TEST_CASE("mirror: a look ahead and its read are one read for the policy, and a range nobody may lend is not lent") {
  PlanMaker m = twoStripes();
  const auto& node = std::get<MirrorNode>(m.plan->root());
  ReadSources plain(*m.plan, node, nullptr);
  ReadSources looking(*m.plan, node, nullptr);
  for (const std::uint64_t offset : {7, 3, 5, 1, 6, 2}) {
    const int side = plain.fast(offset * 9 * kBlock, kBlock);
    CHECK(looking.lookAhead(offset * 9 * kBlock, kBlock) == side);
    CHECK(looking.lookAhead(offset * 9 * kBlock, kBlock) == side);
    CHECK(looking.fast(offset * 9 * kBlock, kBlock) == side);
  }
  for (std::uint32_t file = 0; file < m.plan->components.size(); file++) looking.avoid(file, true);
  CHECK(looking.lookAhead(0, kBlock) == -1);
}

TEST_CASE("mirror: serial writes one side after another") {
  PlanMaker m;
  const NodeIndex a = m.component(0, 100);
  const NodeIndex b = m.component(0, 100);
  m.mirror({{a, true}, {b, true}}, ReadPolicy::first, WritePolicy::serial);
  Bench bench(m, 5);
  Call call(Op::write, 0, 4096, 1);
  bench.volume->submit(call);
  CHECK(bench.sim.startedOn(0, IoOp::write) == 1);
  CHECK(bench.sim.startedOn(1, IoOp::write) == 0);
  bench.drain();
  CHECK(bench.sim.startedOn(1, IoOp::write) == 1);
  CHECK(call.error == 0);
}

TEST_CASE("mirror: one side only is a plain volume") {
  PlanMaker m;
  const NodeIndex a = m.component(0, 100);
  m.mirror({{a, true}});
  Bench bench(m, 5);
  CHECK(!bench.volume->stateful());
  CHECK(bench.run(Op::write, 0, 512, 3) == 0);
  CHECK(bench.volume->startResync({}) == EINVAL);
}

TEST_CASE("mirror: a read error is answered by another side and reported once for each failing Io") {
  PlanMaker m = twoStripes(ReadPolicy::first);
  Bench bench(m, 5);
  bench.equalise();
  bench.sim.fault({.file = 1, .op = IoOp::read, .first = 0, .end = 512});
  for (const std::uint64_t length : {16 * kBlock, 128 * kBlock}) {
    bench.events.clear();
    Call read(Op::read, length == 16 * kBlock ? 16 * kBlock : 0, length);
    CHECK(bench.run(read) == 0);
    const auto whole = bench.sides()[1];
    CHECK(std::memcmp(read.buffer.data(), whole.data() + read.offset, length) == 0);
    REQUIRE(bench.events.size() == 1);
    CHECK(bench.events[0].component == 101);
    CHECK(bench.events[0].op == ComponentOp::read);
  }
}

TEST_CASE("mirror: errors at different places of both sides are still masked") {
  PlanMaker m = twoStripes(ReadPolicy::first);
  Bench bench(m, 5);
  bench.equalise();
  bench.sim.fault({.file = 1, .op = IoOp::read, .first = 0, .end = 512});            // blocks 16..
  bench.sim.fault({.file = 3, .op = IoOp::read, .first = 5 * 512, .end = 6 * 512});  // blocks 32..
  Call read(Op::read, 0, 128 * kBlock);
  CHECK(bench.run(read) == 0);
  CHECK(read.buffer == bench.sides()[0]);
}

TEST_CASE("mirror: a read no side can answer fails with the error, and unreadable sides are not asked") {
  PlanMaker m;
  const NodeIndex a = m.component(0, 100);
  const NodeIndex b = m.component(0, 100);
  const NodeIndex c = m.component(0, 100);
  m.mirror({{a, true}, {b, true}, {c, false}});
  Bench bench(m, 5);
  bench.sim.fault({.file = 0, .op = IoOp::read, .error = ETIMEDOUT});
  bench.sim.fault({.file = 1, .op = IoOp::read, .error = ETIMEDOUT});
  CHECK(bench.run(Op::read, 0, 512) == ETIMEDOUT);
  REQUIRE(bench.events.size() == 2);
  CHECK(bench.events[0].masked);
  CHECK(!bench.events[1].masked);
  CHECK(bench.sim.startedOn(2, IoOp::read) == 0);
}

TEST_CASE("mirror: a write that a side missed is parked when it is over, and nothing after it is taken") {
  for (const WritePolicy policy : {WritePolicy::parallel, WritePolicy::serial}) {
    for (const std::uint32_t bad : {0U, 3U}) {
      PlanMaker m = twoStripes(ReadPolicy::first, policy);
      Bench bench(m, 5);
      bench.sim.fault({.file = bad, .op = IoOp::write, .error = EIO});
      Call write(Op::write, 0, 128 * kBlock, 1);
      bench.submit(write);
      bench.drain();
      CHECK(write.doneCount == 0);
      CHECK(bench.state.hold.closing());
      REQUIRE(bench.events.size() == 1);
      CHECK(bench.events[0].component == 100 + bad);
      CHECK(bench.events[0].op == ComponentOp::write);
      CHECK(bench.events[0].masked);
      CHECK(bench.sim.startedOn(2, IoOp::write) == 1);
      // Without a new plan it fails again; the verdict `fail` is what ends it.
      REQUIRE(bench.state.hold.settle(bench.state.hold.announce(), true));
      bench.state.hold.release([&](Request& r) { bench.volume->submit(r); });
      bench.drain();
      CHECK(write.doneCount == 0);
      REQUIRE(bench.state.hold.settle(bench.state.hold.announce(), false));
      bench.state.hold.release([&](Request& r) { bench.volume->submit(r); });
      CHECK(write.finished());
      CHECK(write.error == EIO);
    }
  }
}

TEST_CASE("mirror: what waits for a write that parks is parked behind it, and what is in flight finishes") {
  PlanMaker m = twoStripes();
  Bench bench(m, 5, {.latencyMax = 20});
  bench.sim.fault({.file = 1, .op = IoOp::write, .error = ENOSPC, .times = 1});
  Call first(Op::write, 16 * kBlock, 32 * kBlock, 1);  // fails on component 1
  Call behind(Op::write, 20 * kBlock, kBlock, 2);
  Call farther(Op::write, 20 * kBlock, 100 * kBlock, 3);
  Call beside(Op::write, 0, kBlock, 4);
  Call read(Op::read, 0, kBlock);
  for (Call* call : {&first, &behind, &farther, &beside, &read}) bench.submit(*call);
  bench.drain();
  CHECK(first.doneCount == 0);
  CHECK(behind.doneCount == 0);
  CHECK(farther.doneCount == 0);
  CHECK(beside.finished());
  CHECK(read.finished());
  REQUIRE(bench.state.hold.settle(bench.state.hold.announce(), true));
  bench.state.hold.release([&](Request& r) { bench.volume->submit(r); });
  bench.drain();
  for (Call* call : {&first, &behind, &farther}) CHECK((call->finished() && call->error == 0));
  for (const auto& side : bench.sides()) {
    CHECK(side[16 * kBlock] == std::byte{1});
    CHECK(side[20 * kBlock] == std::byte{3});
    CHECK(side[119 * kBlock] == std::byte{3});
  }
}

TEST_CASE("mirror: components that are Last Erred answer with their error, others with them or not") {
  PlanMaker m = twoStripes(ReadPolicy::first);
  std::get<StripeNode>(m.plan->nodes[std::get<MirrorNode>(m.plan->root()).sides[0].child])
      .rows[0]
      .columns[1]
      .service.lastErred = 4;
  Bench bench(m, 5);
  bench.sim.fault({.file = 1, .op = IoOp::write, .error = ENOSPC});
  CHECK(bench.run(Op::write, 16 * kBlock, kBlock, 1) == ENOSPC);
  CHECK(!bench.state.hold.closed());
  CHECK(bench.state.unequal);
  REQUIRE(bench.events.size() == 1);
  CHECK(!bench.events[0].masked);
  bench.sim.fault({.file = 3, .op = IoOp::write, .error = EIO});
  Call write(Op::write, 16 * kBlock, 32 * kBlock, 1);
  bench.submit(write);
  bench.drain();
  CHECK(write.doneCount == 0);
  CHECK(bench.state.hold.closing());
}

TEST_CASE("mirror: only what may be written is written, and a write with no way back is refused") {
  PlanMaker m;
  const NodeIndex a = m.stripe({{16, 32, {0, 0}}});
  const NodeIndex b = m.component(0, 64);
  const NodeIndex c = m.component(0, 64);
  auto& columns = std::get<StripeNode>(m.plan->nodes[a]).rows[0].columns;
  columns[0].service = {false, false, 0};
  columns[0].file = kNoFile;
  columns[1].service = {false, true, 0};
  SUBCASE("another side has everything") {
    m.mirror({{a, true}, {b, true}, {c, false, false}});
    Bench bench(m, 5);
    CHECK(bench.run(Op::write, 0, 64 * kBlock, 7) == 0);
    CHECK(bench.run(Op::zero, 8 * kBlock, 16 * kBlock) == 0);
    CHECK(bench.run(Op::flush) == 0);
    CHECK(bench.sim.startedOn(0, IoOp::write) == 0);
    CHECK(bench.sim.startedOn(1, IoOp::write) == 1);
    CHECK(bench.sim.startedOn(3, IoOp::write) == 0);
    CHECK(bench.sim.startedOn(0, IoOp::zero) == 0);
    CHECK(bench.sim.startedOn(1, IoOp::zero) == 1);
    CHECK(bench.sim.startedOn(0, IoOp::sync) == 0);
    CHECK(bench.sim.startedOn(1, IoOp::sync) == 1);
    CHECK(bench.sim.startedOn(3, IoOp::sync) == 0);
    Call read(Op::read, 0, 64 * kBlock);
    CHECK(bench.run(read) == 0);
    CHECK(read.buffer == bench.sideContent(b, 64 * kBlock));
  }
  SUBCASE("no side has it all") {
    columns[1].service = {true, true, 0};
    m.mirror({{a, true}, {b, false, true}, {c, false, false}});
    Bench bench(m, 5);
    CHECK(bench.run(Op::write, 0, 64 * kBlock, 7) == EIO);
    CHECK(bench.run(Op::read, 15 * kBlock, 2 * kBlock) == EIO);
    CHECK(bench.run(Op::cache, 0, 64 * kBlock) == 0);
    CHECK(bench.sim.started(IoOp::write) == 0);
    CHECK(bench.sim.started(IoOp::read) == 0);
    CHECK(bench.events.empty());
    CHECK(bench.run(Op::write, 16 * kBlock, 16 * kBlock, 7) == 0);
    CHECK(bench.run(Op::read, 16 * kBlock, 16 * kBlock) == 0);
  }
}

TEST_CASE("mirror: one side is held like several when something is wrong with it") {
  PlanMaker m;
  const NodeIndex a = m.stripe({{16, 32, {0, 0}}});
  std::get<StripeNode>(m.plan->nodes[a]).rows[0].columns[1].service.readable = false;
  m.mirror({{a, true}});
  Bench bench(m, 5);
  CHECK(bench.volume->stateful());
  CHECK(bench.run(Op::read, 0, 16 * kBlock) == 0);
  CHECK(bench.run(Op::read, 0, 17 * kBlock) == EIO);
}

TEST_CASE("mirror: flush covers every side that is written, and one that fails parks it") {
  PlanMaker m;
  const NodeIndex a = m.component(0, 100);
  const NodeIndex b = m.component(0, 100);
  m.mirror({{a, true}, {b, false}});
  Bench bench(m, 5);
  CHECK(bench.run(Op::flush) == 0);
  CHECK(bench.sim.started(IoOp::sync) == 2);
  bench.sim.fault({.file = 1, .op = IoOp::sync, .error = EIO, .times = 1});
  std::vector<Call> flushes;
  flushes.reserve(3);
  for (int i = 0; i < 3; i++) {
    flushes.emplace_back(Op::flush, 0, 0);
    bench.submit(flushes.back());
  }
  bench.drain();
  for (const Call& flush : flushes) CHECK(flush.doneCount == 0);
  CHECK(bench.events.at(0).op == ComponentOp::flush);
  CHECK(bench.events[0].component == 101);
  // The component stays, so its lost pages stay lost.
  REQUIRE(bench.state.hold.settle(bench.state.hold.announce(), true));
  bench.state.hold.release([&](Request& r) { bench.volume->submit(r); });
  bench.drain();
  for (const Call& flush : flushes) CHECK(flush.doneCount == 0);
  // It leaves: the others are flushed and answered.
  const auto without = std::make_shared<Plan>(*m.plan);
  std::get<MirrorNode>(without->nodes.back()).sides[1].writable = false;
  bench.open(without);
  REQUIRE(bench.state.hold.settle(bench.state.hold.announce(), true));
  bench.state.hold.release([&](Request& r) { bench.volume->submit(r); });
  bench.drain();
  for (const Call& flush : flushes) CHECK((flush.finished() && flush.error == 0));
}

TEST_CASE("mirror: fast zero is refused, because only one side might be able to") {
  PlanMaker m = twoStripes();
  Bench bench(m, 5);
  Call zero(Op::zero, 0, 4096);
  zero.fastZero = true;
  CHECK(bench.run(zero) == ENOTSUP);
  CHECK(bench.sim.started(IoOp::zero) == 0);
}

TEST_CASE("mirror: a long line of overlapping writes that complete inline does not nest") {
  PlanMaker m = twoStripes();
  Bench bench(m, 5, {.latencyMax = 1, .inlinePercent = 0});
  std::vector<Call> calls;
  calls.reserve(5000);
  for (int i = 0; i < 5000; i++) {
    calls.emplace_back(Op::write, 0, 512, static_cast<std::uint8_t>(i));
    bench.volume->submit(calls.back());
  }
  bench.drain();
  for (const Call& call : calls) CHECK((call.finished() && call.error == 0));
  const auto sides = bench.sides();
  CHECK(sides[0][0] == static_cast<std::byte>(4999 & 0xff));
  CHECK(sides[0][0] == sides[1][0]);
  CHECK(bench.sim.overlappingWrites() == 0);
}
