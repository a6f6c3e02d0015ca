#include "md/stale.h"

#include <algorithm>
#include <bit>

namespace metadisk {

namespace {

bool readableEverywhere(const Node& node) noexcept {
  if (const auto* part = std::get_if<ComponentNode>(&node)) return part->service.readable;
  const auto* stripe = std::get_if<StripeNode>(&node);
  return std::all_of(stripe->rows.begin(), stripe->rows.end(), [](const Row& row) {
    return std::all_of(row.columns.begin(), row.columns.end(), [](const Column& c) { return c.service.readable; });
  });
}

}  // namespace

void StaleSides::mount(const Plan& plan, const Bitmap& dirty, std::uint64_t regionBytes, bool first) {
  const auto* const mirror = std::get_if<MirrorNode>(&plan.root());
  std::array<bool, kSlots> present{};
  // Without a log nothing is known of single regions: the whole side is one.
  const bool logged = regionBytes != 0;
  Bitmap everything(1);
  everything.set(0);
  const Bitmap& now = logged ? dirty : everything;
  if (!logged) regionBytes = std::bit_ceil(std::max<std::uint64_t>(plan.size(), 512));
  for (std::optional<Bitmap>& map : behind_) {
    if (!map || regionBytes == regionBytes_) continue;
    if (regionBytes > regionBytes_) {
      const auto shift = static_cast<unsigned>(std::countr_zero(regionBytes) - std::countr_zero(regionBytes_));
      map = map->merged(shift, now.size());
    } else {
      map = now;  // never asked for; all that is dirty is certainly enough
    }
  }
  regionBytes_ = regionBytes;
  for (std::uint32_t i = 0; mirror != nullptr && i < mirror->sides.size(); i++) {
    const MirrorSide& side = mirror->sides[i];
    const bool inStep = side.readable && side.writable && !side.stale && readableEverywhere(plan.nodes[side.child]);
    const bool newlyStale = side.stale && !stale_[side.slot];
    std::optional<Bitmap>& map = behind_[side.slot];
    present[side.slot] = true;
    stale_[side.slot] = side.stale;
    if (inStep) {
      map.reset();
    } else if ((first && logged) || newlyStale) {
      map = now;
    } else if (map && map->size() != now.size()) {
      map = map->merged(0, now.size());
    }
  }
  for (std::uint32_t slot = 0; slot < kSlots; slot++) {
    if (present[slot]) continue;
    behind_[slot].reset();
    stale_[slot] = false;
  }
}

void StaleSides::copied(std::uint32_t slot, std::uint64_t from, std::uint64_t end, std::uint64_t size) noexcept {
  std::optional<Bitmap>& map = behind_[slot];
  if (!map) return;
  const std::uint64_t first = (from + regionBytes_ - 1) / regionBytes_;
  const std::uint64_t last = end >= size ? map->size() : end / regionBytes_;
  for (std::uint64_t i = first; i < last && i < map->size(); i++) map->clear(static_cast<std::uint32_t>(i));
}

}  // namespace metadisk
