// Read sources against an oracle that judges every block by itself, over every combination of states.
#include <map>

#include "md/mirror.h"
#include "property/native/harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

constexpr Service kOkay{};
constexpr Service kResync{false, true, 0};
constexpr Service kClosed{false, false, 0};
constexpr Service erred(std::uint32_t order) { return {true, true, order}; }

constexpr std::uint64_t kRegion = 8 * kBlock;

// Which regions of which slot are behind, and the sides that know it: only those that a plan calls stale.
struct Pattern {
  std::map<std::uint32_t, std::vector<bool>> regions;
  StaleSides sides;

  // As a device comes to it: one slot after another becomes stale, each with the regions dirty just then.
  void mount(const Plan& plan) {
    Plan step = plan;
    auto& mirror = std::get<MirrorNode>(step.nodes.back());
    const auto last = std::get<MirrorNode>(plan.root()).sides;
    for (MirrorSide& side : mirror.sides) side.stale = false;
    for (std::size_t i = 0; i < last.size(); i++) {
      mirror.sides[i].stale = last[i].stale;
      const auto& dirty = regions[last[i].slot];
      Bitmap map(static_cast<std::uint32_t>(mirror.size / kRegion));
      for (std::uint32_t r = 0; r < dirty.size() && r < map.size(); r++) {
        if (dirty[r]) map.set(r);
      }
      sides.mount(step, map, kRegion, false);
    }
  }
};

// One side of 64 blocks for each list of column states: side i has an interlace of 16 * (i + 1) blocks.
PlanMaker planOf(const std::vector<std::vector<Service>>& columns, const std::vector<MirrorSide>& flags) {
  PlanMaker m;
  std::vector<MirrorSide> sides = flags;
  for (std::size_t i = 0; i < columns.size(); i++) {
    const std::uint64_t interlace = 16 * (i + 1);
    const std::vector<std::uint64_t> starts(columns[i].size(), i);
    sides[i].child = m.stripe({{interlace, 64 / columns[i].size() / interlace * interlace, starts}});
    auto& row = std::get<StripeNode>(m.plan->nodes[sides[i].child]).rows[0];
    for (std::size_t c = 0; c < columns[i].size(); c++) {
      row.columns[c].service = columns[i][c];
      if (!columns[i][c].writable) row.columns[c].file = kNoFile;
    }
  }
  m.mirror(sides);
  return m;
}

// The best source of one block by the rules, with nothing but the mapping of that block.
int oracle(const Plan& plan, const Pattern& pattern, std::uint64_t offset, std::uint32_t tried,
           const std::vector<bool>& avoided) {
  const auto& mirror = std::get<MirrorNode>(plan.root());
  int okay = -1, last = -1, stale = -1, avoid = -1;
  std::uint32_t latest = 0;
  for (int i = static_cast<int>(mirror.sides.size()) - 1; i >= 0; i--) {
    const MirrorSide& side = mirror.sides[static_cast<std::size_t>(i)];
    if ((tried >> i & 1U) != 0 || !side.readable) continue;
    Fragment f;
    std::uint64_t covered = 0;
    mapNode(plan.nodes[side.child], offset, kBlock, {&f, 1}, covered);
    if (!f.service->readable) continue;
    const bool old = side.stale && pattern.regions.at(side.slot)[offset / kRegion];
    if (old && f.service->lastErred != 0) continue;
    if (avoided[f.file]) {
      avoid = i;
    } else if (!old && f.service->lastErred == 0) {
      okay = i;
    } else if (!old && f.service->lastErred >= latest) {
      last = i;
      latest = f.service->lastErred;
    } else if (old && f.service->lastErred == 0) {
      stale = i;
    }
  }
  return okay >= 0 ? okay : last >= 0 ? last : stale >= 0 ? stale : avoid;
}

void check(const PlanMaker& m, Pattern pattern, const std::vector<std::uint32_t>& avoid = {}) {
  const Plan& plan = *m.plan;
  const auto& mirror = std::get<MirrorNode>(plan.root());
  pattern.mount(plan);
  ReadSources sources(plan, mirror, &pattern.sides);
  std::vector<bool> avoided(plan.components.size());
  for (const std::uint32_t file : avoid) {
    sources.avoid(file, true);
    avoided[file] = true;
  }
  const std::uint64_t blocks = mirror.size / kBlock;
  for (std::uint32_t tried = 0; tried < 1U << mirror.sides.size(); tried++) {
    std::vector<int> best;
    for (std::uint64_t b = 0; b < blocks; b++) best.push_back(oracle(plan, pattern, b * kBlock, tried, avoided));
    for (std::uint64_t b = 0; b < blocks; b += 3) {
      const std::uint64_t length = std::min<std::uint64_t>(blocks - b, 1 + b % 29);
      const auto source = sources.at(b * kBlock, length * kBlock, tried);
      REQUIRE(source.length > 0);
      REQUIRE(source.length <= length * kBlock);
      bool covered = true;
      for (std::uint64_t k = 0; k < length; k++) {
        if (k * kBlock < source.length) REQUIRE(source.side == best[b + k]);
        covered = covered && best[b + k] >= 0;
      }
      REQUIRE(sources.cover(b * kBlock, length * kBlock, tried) == covered);
      if (tried != 0) continue;
      const int fast = sources.fast(b * kBlock, length * kBlock);
      if (fast < 0) continue;
      const MirrorSide& side = mirror.sides[static_cast<std::size_t>(fast)];
      REQUIRE(side.readable);
      REQUIRE(!(side.stale && pattern.sides.stale(side.slot, b * kBlock, length * kBlock)));
      for (const Column& column : std::get<StripeNode>(plan.nodes[side.child]).rows[0].columns) {
        REQUIRE(column.service.okay());
        REQUIRE(!avoided[column.file]);
      }
    }
    if (sources.coverAll()) REQUIRE(sources.cover(0, mirror.size, 0));
  }
}

constexpr MirrorSide kRead{0, true, true, false, 0};
constexpr MirrorSide kTarget{0, false, true, false, 0};
constexpr MirrorSide kOffline{0, false, false, false, 0};
constexpr MirrorSide kStale{0, true, true, true, 0};
constexpr MirrorSide kComing{0, false, true, true, 0};

}  // namespace

TEST_CASE("sources: every combination of states of two sides with two columns each") {
  const std::vector<Service> states{kOkay, kResync, kClosed, erred(5), erred(9)};
  const std::vector<MirrorSide> flags{kRead, kTarget, kOffline, kStale, kComing};
  Pattern pattern;
  pattern.regions[0] = {false, true, true, false, false, false, true, false};
  pattern.regions[1] = {true, false, true, false, false, true, false, false};
  for (std::size_t n = 0; n < 625; n++) {
    const std::vector<std::vector<Service>> columns{{states[n % 5], states[n / 5 % 5]},
                                                    {states[n / 25 % 5], states[n / 125]}};
    for (std::size_t f = 0; f < 25; f++) {
      INFO("states " << n << " flags " << f);
      check(planOf(columns, {flags[f % 5], flags[f / 5]}), pattern);
    }
  }
}

TEST_CASE("sources: three sides of different shapes, components to be avoided") {
  const std::vector<Service> states{kOkay, kResync, erred(5), erred(9), erred(7)};
  const std::vector<MirrorSide> flags{kRead, kRead, kStale, kTarget};
  std::mt19937_64 random(4);
  for (int round = 0; round < 1500; round++) {
    INFO("round " << round);
    std::vector<std::vector<Service>> columns;
    std::vector<MirrorSide> sides;
    Pattern pattern;
    for (const std::size_t count : {4U, 2U, 1U}) {
      columns.emplace_back();
      for (std::size_t c = 0; c < count; c++) columns.back().push_back(states[random() % states.size()]);
      sides.push_back(flags[random() % flags.size()]);
      auto& regions = pattern.regions[static_cast<std::uint32_t>(sides.size() - 1)];
      for (int r = 0; r < 8; r++) regions.push_back(random() % 3 == 0);
    }
    check(planOf(columns, sides), pattern, {static_cast<std::uint32_t>(random() % 7), 6});
  }
}

TEST_CASE("sources: of Last Erred components the one that erred last, and no other order") {
  const PlanMaker m = planOf({{erred(3)}, {erred(8)}, {erred(5)}}, {kRead, kRead, kRead});
  ReadSources sources(*m.plan, std::get<MirrorNode>(m.plan->root()), nullptr);
  CHECK(sources.fast(0, kBlock) == -1);
  CHECK(sources.at(0, kBlock, 0).side == 1);
  CHECK(sources.at(0, kBlock, 0b010).side == 2);
  CHECK(sources.at(0, kBlock, 0b110).side == 0);
  CHECK(sources.at(0, kBlock, 0b111).side == -1);
}

TEST_CASE("sources: a column that serves only what lies beyond the mirror does not make a side slow") {
  PlanMaker m;
  const NodeIndex a = m.stripe({{16, 32, {0}}, {16, 32, {0}}});
  const NodeIndex b = m.component(0, 32);
  std::get<StripeNode>(m.plan->nodes[a]).rows[1].columns[0].service = kResync;
  m.mirror({{a, true}, {b, false}});
  ReadSources sources(*m.plan, std::get<MirrorNode>(m.plan->root()), nullptr);
  CHECK(sources.fast(0, 32 * kBlock) == 0);
}
