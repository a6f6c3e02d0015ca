// Which regions of which sides are behind, as plans come and go.
#include "md/stale.h"

#include "property/native/harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

constexpr std::uint64_t kRegion = 64 * kBlock;

// Two sides of 640 blocks; slot 1 as said.
std::shared_ptr<Plan> plan(MirrorSide second, std::uint64_t region = kRegion, std::uint64_t blocks = 640) {
  PlanMaker m;
  const NodeIndex a = m.component(0, blocks);
  const NodeIndex b = m.stripe({{16, blocks / 2, {0, 0}}});
  second.child = b;
  second.slot = 1;
  m.mirror({{a, true}, second});
  std::get<MirrorNode>(m.plan->nodes.back()).region = region;
  return m.plan;
}

Bitmap bits(std::initializer_list<std::uint32_t> set, std::uint32_t size = 10) {
  Bitmap map(size);
  for (const std::uint32_t i : set) map.set(i);
  return map;
}

constexpr MirrorSide kInStep{0, true, true, false, 0};
constexpr MirrorSide kStale{0, true, true, true, 0};
constexpr MirrorSide kCopied{0, false, true, false, 0};
constexpr MirrorSide kOffline{0, false, false, false, 0};

}  // namespace

TEST_CASE("stale: a side is behind in the dirty regions of the moment in which it becomes stale") {
  StaleSides sides;
  sides.mount(*plan(kInStep), bits({1, 2}), kRegion, true);
  CHECK(sides.behind(1) == nullptr);
  sides.mount(*plan(kOffline), bits({2}), kRegion, false);
  CHECK(sides.behind(1) == nullptr);
  sides.mount(*plan(kStale), bits({2, 5}), kRegion, false);
  REQUIRE(sides.behind(1) != nullptr);
  CHECK(*sides.behind(1) == bits({2, 5}));
  CHECK(sides.behind(0) == nullptr);
  CHECK(sides.stale(1, 2 * kRegion + 100, 1));
  CHECK(sides.stale(1, 0, 10 * kRegion));
  CHECK(!sides.stale(1, 3 * kRegion, 2 * kRegion));
  CHECK(!sides.stale(0, 0, 10 * kRegion));
  // Another plan that says the same changes nothing.
  sides.copied(1, 2 * kRegion, 3 * kRegion, 10 * kRegion);
  sides.mount(*plan(kStale), bits({2, 5, 7}), kRegion, false);
  CHECK(*sides.behind(1) == bits({5}));
  sides.mount(*plan(kInStep), bits({2, 5, 7}), kRegion, false);
  CHECK(sides.behind(1) == nullptr);
}

TEST_CASE("stale: what a crash left dirty is remembered for a side in a full copy, and stops no read") {
  StaleSides sides;
  sides.mount(*plan(kCopied), bits({3}), kRegion, true);
  REQUIRE(sides.behind(1) != nullptr);
  CHECK(!sides.stale(1, 3 * kRegion, 1));
  // A copy that begins later knows of no crash.
  StaleSides later;
  later.mount(*plan(kInStep), bits({3}), kRegion, true);
  later.mount(*plan(kCopied), bits({3}), kRegion, false);
  CHECK(later.behind(1) == nullptr);
}

TEST_CASE("stale: the same for a component in resync") {
  const auto p = plan(kInStep);
  std::get<StripeNode>(p->nodes[std::get<MirrorNode>(p->root()).sides[1].child]).rows[0].columns[1].service.readable =
      false;
  StaleSides sides;
  sides.mount(*p, bits({3}), kRegion, true);
  REQUIRE(sides.behind(1) != nullptr);
  CHECK(*sides.behind(1) == bits({3}));
}

TEST_CASE("stale: regions that grow take what was behind with them") {
  StaleSides sides;
  sides.mount(*plan(kStale), bits({0, 3, 9}), kRegion, true);
  sides.mount(*plan(kStale, 2 * kRegion, 1280), bits({}, 10), 2 * kRegion, false);
  CHECK(*sides.behind(1) == bits({0, 1, 4}, 10));
  sides.mount(*plan(kStale, 2 * kRegion, 2560), bits({}, 20), 2 * kRegion, false);
  CHECK(*sides.behind(1) == bits({0, 1, 4}, 20));
  CHECK(sides.stale(1, 9 * kRegion, kRegion));
}

TEST_CASE("stale: without a log a stale side is stale everywhere") {
  StaleSides sides;
  sides.mount(*plan(kStale, 0), Bitmap(), 0, true);
  CHECK(sides.stale(1, 0, 1));
  CHECK(sides.stale(1, 639 * kBlock, 1));
  sides.copied(1, 0, 640 * kBlock, 640 * kBlock);
  CHECK(!sides.stale(1, 0, 640 * kBlock));
}

TEST_CASE("stale: only whole regions, and the last one as far as it goes") {
  StaleSides sides;
  sides.mount(*plan(kStale, kRegion, 600), bits({0, 1, 9}), kRegion, true);
  sides.copied(1, 1, 2 * kRegion - 1, 600 * kBlock);
  CHECK(*sides.behind(1) == bits({0, 1, 9}));
  sides.copied(1, 0, 2 * kRegion - 1, 600 * kBlock);
  CHECK(*sides.behind(1) == bits({1, 9}));
  sides.copied(1, kRegion, 600 * kBlock, 600 * kBlock);
  CHECK(*sides.behind(1) == bits({}));
}
