// Time limits: what is given up, who hears of it, and that nothing the kernel holds is used again.
#include "io/limits.h"

#include <utility>

#include "core/buffers.h"
#include "property/native/harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

constexpr std::uint64_t kMillis = 1'000'000;
constexpr std::uint64_t kLimit = 1000 * kMillis;

PlanMaker sidesOf(unsigned count, ReadPolicy read = ReadPolicy::first, std::uint64_t blocks = 400) {
  PlanMaker m;
  std::vector<MirrorSide> sides;
  for (unsigned i = 0; i < count; i++) sides.push_back({m.component(i * 3, blocks), true});
  m.mirror(sides, read);
  return m;
}

// Turns of a millisecond.
struct Slow : Bench {
  explicit Slow(const PlanMaker& maker) : Bench(maker, 7, {.latencyMax = 1, .turnNanos = kMillis}) {
    equalise();
    sim.limit(kLimit);
  }
  void pass(std::uint64_t millis) {
    for (std::uint64_t i = 0; i < millis; i++) turn();
  }
  void hang(std::uint32_t file, IoOp op, unsigned times = UINT32_MAX) {
    sim.fault({.file = file, .op = op, .times = times, .hangs = true});
  }
  // Everything comes back at last.
  void letGo(std::uint32_t file) {
    sim.clearFaults();
    sim.letGo(file);
    pass(10);
    CHECK(!sim.hangs(file));
    CHECK(!sim.held().any());
    CHECK(sim.held().retiredBytes() == 0);
  }
};

std::vector<std::byte> sideBytes(const Bench& bench, std::size_t side, const Call& call) {
  const auto all = bench.sides()[side];
  const auto first = all.begin() + static_cast<std::ptrdiff_t>(call.offset);
  return {first, first + static_cast<std::ptrdiff_t>(call.length)};
}

}  // namespace

TEST_CASE("held memory: retired memory lives as long as anybody holds a byte of it") {
  HeldMemory held;
  const auto take = [] { return static_cast<std::byte*>(std::aligned_alloc(4096, 4096)); };
  std::byte* const a = take();
  std::byte* const b = take();
  CHECK(!held.any());
  const auto first = held.hold(a, 512);
  const auto second = held.hold(a + 1024, 512);
  const auto same = held.hold(a + 1024, 100);
  CHECK(held.holds(a, 4096));
  CHECK(held.holds(a + 511, 1));
  CHECK(!held.holds(a + 512, 512));
  CHECK(held.holds(a + 1500, 10));
  CHECK(!held.holds(b, 4096));
  held.retire(b, 4096);
  held.retire(a, 4096);
  CHECK(held.retiredBytes() == 4096);
  held.release(second);
  a[0] = std::byte{1};
  held.release(first);
  CHECK(held.retiredBytes() == 4096);
  a[1024] = std::byte{1};
  held.release(same);
  CHECK(held.retiredBytes() == 0);
  CHECK(!held.any());
}

TEST_CASE("buffer pool: what the kernel holds is not lent again, and takes no room from others") {
  HeldMemory held;
  BufferPool pool(16 * 4096);
  pool.guard(&held);
  std::byte* const a = pool.acquire(4096);
  const auto hold = held.hold(a, 100);
  pool.release(a, 4096);
  CHECK(pool.lent() == 0);
  CHECK(pool.kept() == 0);
  std::vector<std::byte*> all;
  for (int i = 0; i < 16; i++) all.push_back(pool.acquire(4096));
  for (std::byte* buffer : all) CHECK((buffer != nullptr && buffer != a));
  CHECK(pool.acquire(4096) == nullptr);
  // Another in its place, even when the pool is exhausted; nobody else's memory is needed for it.
  const auto second = held.hold(all[0], 4096);
  std::byte* const other = pool.unheld(all[0], 4096);
  CHECK(other != all[0]);
  CHECK(pool.unheld(other, 4096) == other);
  CHECK(pool.lent() == 16 * 4096);
  pool.release(other, 4096);
  for (std::size_t i = 1; i < all.size(); i++) pool.release(all[i], 4096);
  held.release(second);
  held.release(hold);
  CHECK(held.retiredBytes() == 0);
}

TEST_CASE("buffer pool: memory that is held beyond the limit counts after all") {
  HeldMemory held;
  BufferPool pool(4 * 4096);
  pool.guard(&held);
  std::vector<HeldMemory::Hold> holds;
  unsigned given = 0;
  while (std::byte* const buffer = pool.acquire(4096)) {
    REQUIRE(++given < 100);
    holds.push_back(held.hold(buffer, 4096));
    pool.release(buffer, 4096);
  }
  CHECK(given == 8);
  for (const auto hold : holds) held.release(hold);
  std::byte* const again = pool.acquire(4096);
  CHECK(again != nullptr);
  pool.release(again, 4096);
}

TEST_CASE("limits: a read that hangs is answered by another side, and what comes late reaches nobody") {
  Slow bench(sidesOf(2));
  bench.hang(0, IoOp::read);
  for (const std::uint64_t blocks : {1U, 40U}) {
    Call call(Op::read, 8 * kBlock, blocks * kBlock);
    submitLent(bench, call);
    bench.pass(990);
    CHECK(call.doneCount == (blocks == 1 ? 0 : 1));  // by then nothing is started on it
    bench.pass(300);
    REQUIRE(call.finished());
    CHECK(call.error == 0);
    CHECK(call.redone == (blocks == 1 ? 1 : 0));
    CHECK(call.buffer == sideBytes(bench, 1, call));
  }
  REQUIRE(!bench.events.empty());
  for (const ComponentFault& event : bench.events) {
    CHECK(event.component == 100);
    CHECK(event.error == ETIMEDOUT);
    CHECK(event.masked);
  }
  CHECK(bench.sim.hangs(0));
  CHECK(bench.sim.held().retiredBytes() > 0);
  bench.letGo(0);
  bench.events.clear();
  CHECK(bench.run(Op::read, 0, 512) == 0);
  CHECK(bench.events.empty());
}

TEST_CASE("limits: without another source the read fails in time, later ones at once, until all has come back") {
  PlanMaker m;
  m.stripe({{16, 64, {0, 0}}});
  Slow bench(m);
  bench.hang(0, IoOp::read, 1);
  Call call(Op::read, 0, 20 * kBlock);
  submitLent(bench, call);
  bench.pass(1300);
  REQUIRE(call.finished());
  CHECK(call.error == ETIMEDOUT);
  Call write(Op::write, 0, 512);
  submitLent(bench, write);
  CHECK(write.finished());
  CHECK(write.error == ETIMEDOUT);
  Call elsewhere(Op::read, 16 * kBlock, 512);
  submitLent(bench, elsewhere);
  bench.pass(3);
  CHECK(elsewhere.error == 0);
  CHECK(elsewhere.finished());
  bench.letGo(0);
  CHECK(bench.run(Op::write, 0, 512, 9) == 0);
}

TEST_CASE("limits: a write that hangs parks, and the memory it was given stays what it was") {
  Slow bench(sidesOf(2));
  bench.hang(1, IoOp::write);
  auto call = std::make_unique<Call>(Op::write, 0, 16 * kBlock, 0x5a);
  submitLent(bench, *call);
  bench.pass(1300);
  CHECK(bench.state.hold.closing());
  CHECK(call->doneCount == 0);
  CHECK(bench.volume->inFlight() == 0);
  REQUIRE(bench.events.size() == 1);
  CHECK(bench.events[0].error == ETIMEDOUT);
  CHECK(bench.events[0].op == ComponentOp::write);
  auto plan = std::make_shared<Plan>(bench.volume->plan());
  std::get<ComponentNode>(plan->nodes[1]).service = {false, false, 0};
  bench.open(plan);
  bench.state.hold.announce();
  CHECK(bench.state.hold.settle(bench.state.hold.number(), true));
  bench.state.hold.release([&](Request& r) { bench.volume->submit(r); });
  bench.pass(5);
  REQUIRE(call->finished());
  CHECK(call->error == 0);
  call.reset();
  // The volume goes too, and other memory is written; the simulation checks what the late write finds.
  bench.volume.reset();
  bench.sim.clearFaults();
  bench.sim.letGo(1);
  for (int i = 0; i < 10; i++) bench.sim.poll();
  CHECK(!bench.sim.hangs(1));
  CHECK(bench.sim.held().retiredBytes() == 0);
  CHECK(bench.sim.content(1)[3 * kBlock] == std::byte{0x5a});
}

TEST_CASE("limits: flushes, zeroes and advice have limits too") {
  Slow bench(sidesOf(2));
  auto plan = std::make_shared<Plan>(bench.volume->plan());
  std::get<ComponentNode>(plan->nodes[0]).service.lastErred = 1;
  std::get<ComponentNode>(plan->nodes[1]).service.lastErred = 2;
  bench.open(plan);
  for (const auto& [op, how] : {std::pair(Op::flush, IoOp::sync), {Op::zero, IoOp::zero}, {Op::cache, IoOp::cache}}) {
    for (const std::uint32_t file : {0U, 1U}) bench.hang(file, how);
    Call call(op, 0, op == Op::flush ? 0 : 512);
    submitLent(bench, call);
    bench.pass(1600);  // the other one gets a while more
    REQUIRE(call.finished());
    CHECK(call.error == (op == Op::cache ? 0 : ETIMEDOUT));
    bench.letGo(0);
    bench.letGo(1);
  }
  CHECK(bench.run(Op::flush) == 0);
}

TEST_CASE("limits: with the oldest everything on its component is given up; what waits for others is not blamed") {
  Slow bench(sidesOf(2, ReadPolicy::geometric));
  bench.hang(0, IoOp::read);
  bench.hang(1, IoOp::read);
  Call old(Op::read, 0, 512);
  submitLent(bench, old);
  bench.pass(900);
  Call young(Op::read, 512, 512);
  submitLent(bench, young);
  Call other(Op::read, 300 * kBlock, 512);
  submitLent(bench, other);
  bench.pass(250);
  CHECK(bench.sim.hangs(0));
  CHECK(!bench.sim.hangs(1));
  CHECK(other.doneCount == 0);
  bench.sim.clearFaults();
  bench.sim.letGo(1);
  bench.pass(5);
  for (Call* call : {&old, &young, &other}) {
    REQUIRE(call->finished());
    CHECK(call->error == 0);
    CHECK(call->buffer == sideBytes(bench, 1, *call));
  }
  CHECK(other.redone == 0);
  bench.letGo(0);
}

TEST_CASE("limits: a copy reads on from another side, and its windows never use what is held") {
  PlanMaker m = sidesOf(3);
  std::get<MirrorNode>(m.plan->nodes[3]).sides[2].readable = false;
  Slow bench(m);
  bench.sim.fault({.file = 0, .op = IoOp::read, .skip = 5, .hangs = true});
  const auto right = bench.sides()[1];
  std::fill_n(bench.sim.content(2).begin(), 6 * kBlock, std::byte{0});
  CHECK(bench.volume->startResync({.job = 1, .target = 2, .bufferBlocks = 16}) == 0);
  bench.drain();
  CHECK(bench.endedOutcome == ResyncOutcome::done);
  CHECK(bench.sim.hangs(0));
  // The job's memory is gone, its late reads come in all the same.
  bench.letGo(0);
  CHECK(bench.sides()[2] == right);
}

TEST_CASE("limits: a target that hangs ends the copy and names the component") {
  PlanMaker m = sidesOf(2);
  std::get<MirrorNode>(m.plan->nodes[2]).sides[1].readable = false;
  for (const IoOp op : {IoOp::write, IoOp::sync}) {
    Slow bench(m);
    bench.hang(1, op);
    CHECK(bench.volume->startResync({.job = 1, .target = 1, .bufferBlocks = 16}) == 0);
    bench.drain();
    CHECK(bench.endedOutcome == ResyncOutcome::failed);
    CHECK(bench.endedError == ETIMEDOUT);
    CHECK(bench.endedComponent == 101);
    bench.letGo(1);
  }
}

TEST_CASE("limits: verify leaves a side that hangs out and compares the others right") {
  Slow bench(sidesOf(3));
  bench.sim.fault({.file = 2, .op = IoOp::read, .skip = 3, .hangs = true});
  bench.sim.content(1)[(3 + 250) * kBlock] ^= std::byte{1};
  CHECK(bench.volume->startVerify({.job = 1, .bufferBlocks = 16}) == 0);
  bench.pass(1200);
  bench.sim.letGo(2);  // in the middle of it
  bench.drain();
  CHECK(bench.endedOutcome == ResyncOutcome::done);
  CHECK(bench.mismatches == std::vector<std::pair<std::uint64_t, std::uint64_t>>{{250, 1}});
  bench.letGo(2);
}
