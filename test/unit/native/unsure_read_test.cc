// Reads where sides may differ since a crash: what a client was told is what every later read says.
#include "property/native/harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

constexpr std::uint64_t kRegion = 16 * kBlock;

// Sides of 320 blocks: side 0 in step, side 1 stale in regions 2, 3 and 10, side 2 in region 3. There they differ.
struct Unsure {
  explicit Unsure(SimOptions options = {}, std::uint64_t seed = 3) {
    const NodeIndex a = maker.component(8, 320);
    const NodeIndex b = maker.stripe({{16, 160, {0, 24}}});
    const NodeIndex c = maker.component(0, 320);
    maker.mirror({{a, true}, {b, true, true, true}, {c, true, true, true}}, ReadPolicy::roundrobin);
    mirror().region = kRegion;
    // As a device comes to it: each side has its own regions.
    Plan step = *maker.plan;
    std::get<MirrorNode>(step.nodes.back()).sides[2].stale = false;
    stale.mount(step, bits({2, 3, 10}), kRegion, false);
    stale.mount(*maker.plan, bits({3}), kRegion, false);
    bench = std::make_unique<Bench>(maker, seed, options);
    bench->state.stale = &stale;
    for (std::uint32_t file = 0; file < maker.sizes.size(); file++) {
      std::ranges::fill(bench->sim.content(file), std::byte{0x10});
    }
    for (const std::uint64_t region : {2, 3, 10}) scramble(1, region);
    scramble(2, 3);
    open();
  }
  void scramble(std::size_t side, std::uint64_t region) {
    for (std::uint64_t at = region * kRegion; at < (region + 1) * kRegion; at += kBlock) {
      Fragment f;
      std::uint64_t covered = 0;
      mapNode(maker.plan->nodes[mirror().sides[side].child], at, kBlock, {&f, 1}, covered);
      std::ranges::fill(bench->sim.content(f.file).subspan(f.offset, kBlock), static_cast<std::byte>(0x10 + f.file));
      bench->sim.makeDurable(f.file);
    }
  }
  MirrorNode& mirror() { return std::get<MirrorNode>(maker.plan->nodes.back()); }
  void open() { bench->open(std::make_shared<Plan>(*maker.plan)); }
  static Bitmap bits(std::initializer_list<std::uint32_t> set) {
    Bitmap map(20);
    for (const std::uint32_t i : set) map.set(i);
    return map;
  }
  // The blocks in which a side is not as side 0, as "first-last" runs.
  std::string differs(std::size_t side) const {
    const auto sides = bench->sides();
    std::string runs;
    std::uint64_t from = UINT64_MAX;
    for (std::uint64_t block = 0; block <= 320; block++) {
      const std::uint64_t at = block * kBlock;
      const bool other = block < 320 && std::memcmp(&sides[0][at], &sides[side][at], kBlock) != 0;
      if (other && from == UINT64_MAX) from = block;
      if (other || from == UINT64_MAX) continue;
      runs += (runs.empty() ? "" : " ") + std::to_string(from) + "-" + std::to_string(block - 1);
      from = UINT64_MAX;
    }
    return runs;
  }
  std::vector<std::byte> read(std::uint64_t block, std::uint64_t blocks, int error = 0) {
    Call call(Op::read, block * kBlock, blocks * kBlock);
    CHECK(bench->run(call) == error);
    return call.buffer;
  }

  PlanMaker maker;
  StaleSides stale;
  std::unique_ptr<Bench> bench;
};

}  // namespace

TEST_CASE("unsure read: what was read is on every stale side before it is answered, and nothing else") {
  for (const unsigned inlined : {0U, 100U}) {
    Unsure u({.inlinePercent = inlined});
    const auto data = u.read(20, 50);  // regions 1 to 4
    CHECK(std::ranges::all_of(data, [](std::byte b) { return b == std::byte{0x10}; }));
    CHECK(u.differs(1) == "160-175");
    CHECK(u.differs(2).empty());
    CHECK(u.bench->sim.startedOn(0, IoOp::write) == 0);
    CHECK(u.bench->events.empty());
    // One block of a region.
    u.read(170, 1);
    CHECK(u.differs(1) == "160-169 171-175");
    CHECK(u.bench->sim.bytesOf(1, IoOp::write) + u.bench->sim.bytesOf(2, IoOp::write) == 33 * kBlock);
    CHECK(u.bench->sim.bytesOf(3, IoOp::write) == 16 * kBlock);
  }
}

TEST_CASE("unsure read: elsewhere a read is a read, and waits for nobody") {
  Unsure u({.latencyMax = 50});
  Call write(Op::write, 70 * kBlock, 20 * kBlock, 5);
  u.bench->submit(write);
  const std::uint64_t writes = u.bench->sim.started(IoOp::write);
  for (const std::uint64_t block : {0, 31, 64, 72, 176}) u.read(block, 1);
  CHECK(u.bench->sim.started(IoOp::write) == writes);
  // Nor with nothing stale, or a side that is only copied to.
  for (MirrorSide& side : u.mirror().sides) side.stale = false;
  u.mirror().sides[1].readable = false;
  u.bench->drain();
  u.open();
  u.read(0, 320);
  CHECK(u.bench->sim.started(IoOp::write) == writes);
}

TEST_CASE("unsure read: the source dies, and the next read says the same") {
  Unsure u;
  const auto before = u.read(16, 160);
  u.bench->sim.fault({.file = 0, .op = IoOp::read});
  const auto after = u.read(32, 32);
  CHECK(std::memcmp(after.data(), before.data() + 16 * kBlock, after.size()) == 0);
}

TEST_CASE("unsure read: a source that fails and comes back says what was told meanwhile") {
  Unsure u;
  u.bench->sim.fault({.file = 0, .op = IoOp::read, .first = (8 + 50) * kBlock, .end = (8 + 51) * kBlock, .times = 1});
  const auto before = u.read(48, 16);
  CHECK(before[0] != std::byte{0x10});
  CHECK(u.differs(1) == "32-47 160-175");
  CHECK(u.differs(2).empty());
  CHECK(u.read(48, 16) == before);
  for (const std::uint32_t file : {1, 2, 3}) u.bench->sim.fault({.file = file, .op = IoOp::read});
  CHECK(u.read(48, 16) == before);
}

TEST_CASE("unsure read: a side that cannot be written holds the read until that is decided") {
  Unsure u;
  u.bench->sim.fault({.file = 3, .op = IoOp::write, .error = EROFS});
  Call call(Op::read, 40 * kBlock, 20 * kBlock);
  u.bench->submit(call);
  // Behind it, in order.
  Call second(Op::read, 50 * kBlock, kBlock);
  u.bench->submit(second);
  u.bench->drain();
  CHECK(call.doneCount == 0);
  CHECK(second.doneCount == 0);
  REQUIRE(u.bench->state.hold.closing());
  REQUIRE(u.bench->events.size() == 1);
  CHECK(u.bench->events[0].op == ComponentOp::write);
  CHECK(u.bench->events[0].component == 103);
  CHECK(u.bench->events[0].masked);
  auto& service = std::get<ComponentNode>(u.maker.plan->nodes[u.mirror().sides[2].child]).service;
  service = {false, false, 0};
  u.open();
  const std::uint64_t hold = u.bench->state.hold.announce();
  CHECK(u.bench->state.hold.settle(hold, true));
  u.bench->state.hold.release([&](Request& r) { u.bench->volume->submit(r); });
  u.bench->drain();
  CHECK((call.finished() && call.error == 0));
  CHECK((second.finished() && second.error == 0));
  CHECK(call.buffer[0] == std::byte{0x10});
  CHECK(u.differs(1) == "32-39 60-63 160-175");
}

TEST_CASE("unsure read: Last Erred components are no source where they are stale, and are not written") {
  Unsure u;
  std::get<ComponentNode>(u.maker.plan->nodes[u.mirror().sides[2].child]).service.lastErred = 1;
  u.bench->sim.fault({.file = 3, .op = IoOp::write});
  u.open();
  u.read(40, 20);
  CHECK(u.bench->sim.startedOn(3, IoOp::write) == 0);
  CHECK(u.differs(1) == "32-39 60-63 160-175");
  CHECK(u.bench->events.empty());
}

TEST_CASE("unsure read: a read-only plan and the label keep their blocks") {
  Unsure u;
  SUBCASE("read-only") {
    u.maker.plan->readOnly = true;
    u.open();
    u.read(30, 40);
    CHECK(u.bench->sim.started(IoOp::write) == 0);
  }
  SUBCASE("label") {
    u.maker.plan->labelled = true;
    for (MirrorSide& side : u.mirror().sides) side.stale = false;
    u.stale.mount(*u.maker.plan, Unsure::bits({0}), kRegion, false);
    for (MirrorSide& side : u.mirror().sides) side.stale = side.slot == 1;
    u.stale.mount(*u.maker.plan, Unsure::bits({0}), kRegion, false);
    u.scramble(1, 0);
    u.open();
    u.read(0, 16);
    CHECK(u.differs(1) == "0-0 32-63 160-175");
    u.read(0, 1);
    CHECK(u.differs(1) == "0-0 32-63 160-175");
  }
}

TEST_CASE("unsure read: without a source nothing is read or written") {
  Unsure u;
  std::get<ComponentNode>(u.maker.plan->nodes[u.mirror().sides[0].child]).service = {false, false, 0};
  u.mirror().sides[1].readable = false;
  std::get<ComponentNode>(u.maker.plan->nodes[u.mirror().sides[2].child]).service.lastErred = 1;
  u.open();
  u.read(50, 2, EIO);
  CHECK(u.bench->sim.started(IoOp::read) == 0);
  CHECK(u.bench->sim.started(IoOp::write) == 0);
}

TEST_CASE("unsure read: reads and writes of the same blocks take turns") {
  for (std::uint64_t seed = 1; seed < 80; seed++) {
    Unsure u({.latencyMax = 15}, seed);
    std::mt19937_64 random(seed);
    std::vector<std::unique_ptr<Call>> calls;
    for (int i = 0; i < 12; i++) {
      const bool write = random() % 3 == 0;
      const std::uint64_t first = 32 + random() % 24;
      calls.push_back(std::make_unique<Call>(write ? Op::write : Op::read, first * kBlock,
                                             (1 + random() % (64 - first)) * kBlock,
                                             static_cast<std::uint8_t>(0x80 + i)));
      u.bench->submit(*calls.back());
      if (random() % 3 == 0) u.bench->turn();
    }
    u.bench->drain();
    std::vector<bool> touched(320);
    for (const auto& call : calls) {
      CHECK((call->finished() && call->error == 0));
      for (std::uint64_t at = 0; at < call->length; at += kBlock) touched[(call->offset + at) / kBlock] = true;
    }
    const auto sides = u.bench->sides();
    for (std::uint64_t block = 32; block < 64; block++) {
      if (!touched[block]) continue;
      const std::uint64_t at = block * kBlock;
      CHECK(std::memcmp(&sides[0][at], &sides[1][at], kBlock) == 0);
      if (block >= 48) CHECK(std::memcmp(&sides[0][at], &sides[2][at], kBlock) == 0);
    }
    CHECK(u.bench->sim.overlappingWrites() == 0);
  }
}
