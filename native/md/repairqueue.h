// Places of a mirror's sides that could not be read and are to be rewritten.
//
// Invariants: bounded; places of one side do not overlap, neighbours are one. A place for which there is
// no room is forgotten: the next read that fails there brings it back. One thread, no allocation.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace metadisk {

class RepairQueue {
 public:
  struct Place {
    std::uint32_t slot = 0;
    std::uint64_t offset = 0;  // bytes of the mirror
    std::uint64_t end = 0;

    bool contains(const Place& other) const noexcept {
      return slot == other.slot && offset <= other.offset && other.end <= end;
    }
  };

  void add(Place place) noexcept {
    // What it touches is taken into it.
    for (std::size_t i = 0; i < count_;) {
      const Place& other = places_[i];
      if (other.slot == place.slot && other.offset <= place.end && place.offset <= other.end) {
        place.offset = std::min(place.offset, other.offset);
        place.end = std::max(place.end, other.end);
        remove(i);
      } else {
        i++;
      }
    }
    if (count_ < places_.size()) places_[count_++] = place;
  }
  // Whether all of it is here already.
  bool holds(const Place& place) const noexcept {
    return std::any_of(places_.begin(), places_.begin() + static_cast<std::ptrdiff_t>(count_),
                       [&](const Place& p) { return p.contains(place); });
  }
  // The oldest; there must be one.
  Place take() noexcept {
    const Place first = places_[0];
    remove(0);
    return first;
  }
  void forget(std::uint32_t slot) noexcept {
    for (std::size_t i = 0; i < count_;) places_[i].slot == slot ? remove(i) : void(i++);
  }
  bool empty() const noexcept { return count_ == 0; }
  std::size_t size() const noexcept { return count_; }
  static constexpr std::size_t capacity() noexcept { return kPlaces; }

 private:
  static constexpr std::size_t kPlaces = 64;
  void remove(std::size_t i) noexcept {
    std::copy(places_.begin() + static_cast<std::ptrdiff_t>(i) + 1,
              places_.begin() + static_cast<std::ptrdiff_t>(count_), places_.begin() + static_cast<std::ptrdiff_t>(i));
    count_--;
  }

  std::array<Place, kPlaces> places_;
  std::size_t count_ = 0;
};

}  // namespace metadisk
