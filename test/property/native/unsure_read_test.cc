// Mirrors after a crash, with sides that differ in stale regions: once a read has said what a block holds,
// every later read says the same until it is written, whatever sources fail, come back or are taken out in
// between, and however far the resync has come.
#include <algorithm>
#include <deque>
#include <map>

#include "property/native/control.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

constexpr std::uint64_t kRegion = 16 * kBlock;

// A block's content is known by its first byte: 0 is what side 0 held, 1 to 3 what a stale side held, more is a write.
struct World {
  explicit World(std::uint64_t seed) : random(seed) {
    std::vector<MirrorSide> sides;
    count = 2 + random() % 3;
    for (std::uint64_t i = 0; i < count; i++) sides.push_back({maker.randomStripe(random, 100), true, true, i > 0});
    maker.mirror(sides, static_cast<ReadPolicy>(random() % 3), static_cast<WritePolicy>(random() % 2));
    auto& mirror = std::get<MirrorNode>(maker.plan->nodes.back());
    mirror.region = kRegion;
    blocks = mirror.size / kBlock;
    Bitmap map(static_cast<std::uint32_t>((mirror.size + kRegion - 1) / kRegion));
    for (std::uint32_t i = 0; i < map.size(); i++) {
      if (random() % 2 == 0) map.set(i);
    }
    stale.mount(*maker.plan, map, kRegion, true);
    bench = std::make_unique<Bench>(maker, random(),
                                    SimOptions{.latencyMax = static_cast<unsigned>(1 + random() % 12),
                                               .inlinePercent = random() % 3 == 0 ? 40U : 0U});
    bench->state.stale = &stale;
    allowed.resize(blocks);
    torn.resize(blocks);
    for (std::uint64_t block = 0; block < blocks; block++) {
      const std::uint32_t held = map.test(static_cast<std::uint32_t>(block * kBlock / kRegion)) ? 2 : 1;
      for (std::uint32_t side = 0; side < count; side++) {
        const auto value = static_cast<std::uint8_t>(held == 1 ? 0 : random() % 2 == 0 ? 0 : side);
        fill(side, block, value);
        allowed[block].push_back(value);
      }
    }
    for (std::uint32_t file = 0; file < maker.sizes.size(); file++) bench->sim.makeDurable(file);
    bench->open(std::make_shared<Plan>(*maker.plan));
    control = std::make_unique<Control>(*bench, random, std::make_shared<Plan>(*maker.plan));
    depth = 1 + random() % 8;
  }
  void fill(std::uint32_t side, std::uint64_t block, std::uint8_t value) {
    Fragment f;
    std::uint64_t covered = 0;
    const auto& mirror = std::get<MirrorNode>(maker.plan->root());
    mapNode(maker.plan->nodes[mirror.sides[side].child], block * kBlock, kBlock, {&f, 1}, covered);
    std::ranges::fill(bench->sim.content(f.file).subspan(f.offset, kBlock), static_cast<std::byte>(value));
  }

  // Reads may overlap each other, writes nothing: so what each may answer is exactly known.
  void send() {
    const std::uint64_t first = random() % blocks;
    const std::uint64_t length = 1 + random() % std::min<std::uint64_t>(blocks - first, random() % 4 == 0 ? 60 : 10);
    const bool write = random() % 5 == 0;
    for (const auto& call : flying) {
      const bool touches = call->offset < (first + length) * kBlock && first * kBlock < call->offset + call->length;
      if (touches && (write || call->op == Op::write)) return;
    }
    if (write && ++lastValue == 0) lastValue = 4;
    auto call = std::make_unique<Call>(write ? Op::write : Op::read, first * kBlock, length * kBlock, lastValue);
    flying.push_back(std::move(call));
    bench->submit(*flying.back());
  }
  void collect() {
    for (auto it = flying.begin(); it != flying.end();) {
      Call& call = **it;
      REQUIRE(call.doneCount <= 1);
      if (call.doneCount == 0) {
        ++it;
        continue;
      }
      for (std::uint64_t at = 0; at < call.length; at += kBlock) {
        const std::uint64_t block = (call.offset + at) / kBlock;
        auto& values = allowed[block];
        const auto value = static_cast<std::uint8_t>(call.buffer[at]);
        INFO("block " << block << " holds " << int{value});
        if (call.op == Op::write) {
          // One that was answered with an error is on some sides and not on others.
          torn[block] = call.error != 0;
          if (call.error == 0) values.clear();
          values.push_back(value);
        } else if (call.error == 0) {
          REQUIRE(std::ranges::find(values, value) != values.end());
          if (torn[block]) continue;
          narrowed += values.size() > 1 ? 1 : 0;
          values.assign(1, value);
        }
      }
      errors += call.error != 0 ? 1 : 0;
      it = flying.erase(it);
    }
  }
  void step() {
    while (flying.size() < depth && random() % 4 != 0) send();
    bench->turn();
    control->turn();
    collect();
    if (random() % 60 == 0 && std::getenv("NORESYNC") == nullptr) resync();
  }
  // Of a side, as far as it comes before the next plan.
  void resync() {
    const auto target = static_cast<std::uint32_t>(1 + random() % (count - 1));
    if (bench->state.hold.closed() || bench->volume->resyncing()) return;
    bench->volume->startResync({.target = target,
                                .kind = ResyncKind::optimized,
                                .bufferBlocks = static_cast<std::uint32_t>(5 + random() % 40)});
  }
  void finish() {
    for (unsigned turns = 0; !flying.empty(); turns++) {
      REQUIRE(turns < 1'000'000);
      bench->turn();
      control->turn();
      collect();
      // It may never end while the same error comes again and again.
      if (turns % 100 == 99) bench->volume->cancelResync();
    }
  }
  void fault() {
    constexpr IoOp ops[] = {IoOp::read, IoOp::read, IoOp::read, IoOp::write};
    const auto file = static_cast<std::uint32_t>(random() % maker.sizes.size());
    SimFault f{.file = file, .op = ops[random() % 4], .skip = static_cast<unsigned>(random() % 4)};
    f.times = random() % 3 == 0 ? UINT32_MAX : 1 + static_cast<unsigned>(random() % 3);
    if (random() % 3 != 0) {
      f.first = random() % maker.sizes[file];
      f.end = f.first + (1 + random() % 30) * kBlock;
    }
    bench->sim.fault(f);
    if (random() % 3 == 0)
      bench->sim.damage(file, f.first / kBlock * kBlock, std::min(maker.sizes[file], f.first + kBlock));
  }

  std::mt19937_64 random;
  PlanMaker maker;
  StaleSides stale;
  std::deque<std::unique_ptr<Call>> flying;
  std::unique_ptr<Bench> bench;
  std::unique_ptr<Control> control;
  std::uint64_t count = 0;
  std::uint64_t blocks = 0;
  std::uint64_t depth = 1;
  std::vector<std::vector<std::uint8_t>> allowed;  // by block
  std::vector<bool> torn;
  std::uint8_t lastValue = 3;
  unsigned errors = 0;
  unsigned narrowed = 0;
};

}  // namespace

TEST_CASE("property: two reads of a block never differ after a crash, whatever becomes of their source") {
  unsigned narrowed = 0, decisions = 0, errors = 0;
  eachSeed(300, [&](std::uint64_t seed) {
    World w(seed);
    for (int round = 0; round < 3; round++) {
      for (int i = 0; i < 120; i++) {
        if (w.random() % 20 == 0) w.fault();
        w.step();
      }
      w.finish();
      w.bench->sim.clearFaults();
    }
    CHECK(w.bench->sim.overlappingWrites() == 0);
    narrowed += w.narrowed;
    decisions += w.control->decisions;
    errors += w.errors;
  });
  CHECK(narrowed > 2000);
  CHECK(decisions > 100);
  CHECK(errors > 10);
}
