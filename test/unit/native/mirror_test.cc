// Read policies, overlaps, and mirrors whose components fail.
#include "md/mirror.h"

#include "property/native/harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

MirrorNode node(ReadPolicy read, std::vector<bool> readable, std::uint64_t size = 1000 * kBlock) {
  MirrorNode mirror{size, read, WritePolicy::parallel, {}};
  for (const bool r : readable) mirror.sides.push_back({0, r});
  return mirror;
}

PlanMaker twoStripes(ReadPolicy read = ReadPolicy::roundrobin, WritePolicy write = WritePolicy::parallel) {
  PlanMaker m;
  const NodeIndex a = m.stripe({{16, 64, {0, 0}}});
  const NodeIndex b = m.stripe({{32, 64, {3, 5}}});
  m.mirror({{a, true}, {b, true}}, read, write);
  return m;
}

}  // namespace

TEST_CASE("mirror: first reads the first readable side") {
  ReadBalance b(node(ReadPolicy::first, {false, true, true}));
  for (std::uint64_t i = 0; i < 5; i++) CHECK(b.choose(i * 77, 10) == 1);
}

TEST_CASE("mirror: geometric cuts the volume among the readable sides") {
  ReadBalance b(node(ReadPolicy::geometric, {true, false, true, true}, 1000));
  CHECK(b.choose(0, 1) == 0);
  CHECK(b.choose(333, 1) == 0);
  CHECK(b.choose(334, 1) == 2);
  CHECK(b.choose(667, 1) == 2);
  CHECK(b.choose(668, 1) == 3);
  CHECK(b.choose(999, 1) == 3);
}

TEST_CASE("mirror: round robin takes turns for random reads and keeps streams together") {
  ReadBalance b(node(ReadPolicy::roundrobin, {true, true, true}));
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

TEST_CASE("mirror: overlapping ranges are owned in the order of arrival") {
  struct Entry : OverlapEntry {
    std::vector<int>* log = nullptr;
    int name = 0;
  };
  std::vector<int> log;
  OverlapList list;
  std::vector<Entry> e(6);
  const std::uint64_t ranges[6][2] = {{0, 10}, {5, 15}, {12, 20}, {20, 30}, {0, 30}, {8, 9}};
  for (int i = 0; i < 6; i++) {
    Entry& entry = e[static_cast<std::size_t>(i)];
    entry.first = ranges[i][0];
    entry.end = ranges[i][1];
    entry.log = &log;
    entry.name = i;
    entry.start = [](OverlapEntry& o) noexcept {
      auto& started = static_cast<Entry&>(o);
      started.log->push_back(started.name);
    };
    list.enter(entry);
  }
  CHECK(log == std::vector<int>{0, 3});
  list.leave(e[0]);
  CHECK(log == std::vector<int>{0, 3, 1});
  list.leave(e[1]);
  CHECK(log == std::vector<int>{0, 3, 1, 2});
  list.leave(e[3]);
  list.leave(e[2]);
  CHECK(log == std::vector<int>{0, 3, 1, 2, 4});
  list.leave(e[4]);
  CHECK(log == std::vector<int>{0, 3, 1, 2, 4, 5});
  list.leave(e[5]);
  CHECK(list.empty());
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
  CHECK(bench.events.size() == 2);
  CHECK(bench.sim.startedOn(2, IoOp::read) == 0);
}

TEST_CASE("mirror: a write that a side missed is never acknowledged") {
  for (const WritePolicy policy : {WritePolicy::parallel, WritePolicy::serial}) {
    for (const std::uint32_t bad : {0U, 3U}) {
      PlanMaker m = twoStripes(ReadPolicy::first, policy);
      Bench bench(m, 5);
      bench.sim.fault({.file = bad, .op = IoOp::write, .error = EIO});
      CHECK(bench.run(Op::write, 0, 128 * kBlock, 1) == EIO);
      REQUIRE(bench.events.size() == 1);
      CHECK(bench.events[0].component == 100 + bad);
      CHECK(bench.sim.startedOn(2, IoOp::write) == 1);
    }
  }
}

TEST_CASE("mirror: flush covers every side, one failing component fails it for good") {
  PlanMaker m;
  const NodeIndex a = m.component(0, 100);
  const NodeIndex b = m.component(0, 100);
  m.mirror({{a, true}, {b, false}});
  Bench bench(m, 5);
  CHECK(bench.run(Op::flush) == 0);
  CHECK(bench.sim.started(IoOp::sync) == 2);
  bench.sim.fault({.file = 1, .op = IoOp::sync, .error = EIO, .times = 1});
  CHECK(bench.run(Op::flush) == EIO);
  CHECK(bench.run(Op::flush) == EIO);
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
