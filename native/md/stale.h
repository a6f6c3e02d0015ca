// Which regions of which sides are behind the others, across plans: what an optimized resync copies, and
// what an interrupted copy must look at again below its checkpoint.
//
// Invariants: a side that is fully in step has no map. A side gets the dirty regions of the moment when
// its device appears and the side is not in step, and when its plan first calls it stale. A bit goes only
// when its region was copied as a whole. One thread; plans change only with nothing in flight.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "core/bitmap.h"
#include "plan/plan.h"

namespace metadisk {

class StaleSides {
 public:
  static constexpr std::uint32_t kSlots = 4;

  // Another plan takes over. `dirty`: of the log now, in regions of `regionBytes`; `first`: the device is new.
  void mount(const Plan& plan, const Bitmap& dirty, std::uint64_t regionBytes, bool first);

  // Whether any region of the bytes [offset, offset + length) is stale on the side in `slot`: always false
  // unless its plan says stale.
  bool stale(std::uint32_t slot, std::uint64_t offset, std::uint64_t length) const noexcept {
    const std::optional<Bitmap>& map = behind_[slot];
    return stale_[slot] && map && map->any(regionOf(offset), regionOf(offset + length - 1));
  }
  // A power of two.
  std::uint64_t regionBytes() const noexcept { return regionBytes_; }

  // What is still to be copied of a side, if anything is known.
  const Bitmap* behind(std::uint32_t slot) const noexcept { return behind_[slot] ? &*behind_[slot] : nullptr; }
  // [from, end) has been copied, as a whole and while nobody wrote: regions that end in it are in step.
  void copied(std::uint32_t slot, std::uint64_t from, std::uint64_t end, std::uint64_t size) noexcept;

 private:
  std::uint32_t regionOf(std::uint64_t offset) const noexcept {
    return static_cast<std::uint32_t>(offset / regionBytes_);
  }

  std::uint64_t regionBytes_ = 1;
  std::array<bool, kSlots> stale_{};
  std::array<std::optional<Bitmap>, kSlots> behind_;
};

}  // namespace metadisk
