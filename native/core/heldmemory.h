// Memory that the kernel may still read or write although nobody waits for it any more.
//
// An operation that was given up holds the memory it was started with until the kernel returns it. Whoever owns
// such memory gives it away with retire() instead of using it again; it is freed when the last hold on it ends.
// Invariants: one thread; retired memory is never touched; its amount is bounded by what was in flight on
// components that hang, because nothing more is started on those. Nothing is allocated while nothing is held.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>

namespace metadisk {

class HeldMemory {
  using Address = std::uintptr_t;
  using Holds = std::multimap<Address, Address>;  // beginning, end

 public:
  using Hold = Holds::iterator;

  HeldMemory() = default;
  HeldMemory(const HeldMemory&) = delete;
  HeldMemory& operator=(const HeldMemory&) = delete;
  // Whoever could hold something has gone before.
  ~HeldMemory() {
    for (const auto& [first, bytes] : retired_) std::free(reinterpret_cast<void*>(first));
  }

  bool any() const noexcept { return !holds_.empty(); }

  // Whether the kernel may touch one of these bytes.
  bool holds(const std::byte* memory, std::size_t bytes) const noexcept {
    if (holds_.empty()) return false;
    const auto first = reinterpret_cast<Address>(memory);
    // A hold that begins further below cannot reach up here.
    auto at = holds_.lower_bound(first - (first < longest_ ? first : longest_));
    for (; at != holds_.end() && at->first < first + bytes; ++at) {
      if (at->second > first) return true;
    }
    return false;
  }

  Hold hold(const std::byte* memory, std::size_t bytes) {
    const auto first = reinterpret_cast<Address>(memory);
    if (bytes > longest_ || holds_.empty()) longest_ = bytes;
    return holds_.emplace(first, first + bytes);
  }

  // Frees what was retired and nobody holds any more.
  void release(Hold hold) noexcept {
    const Address first = hold->first;
    const Address end = hold->second;
    holds_.erase(hold);
    auto at = retired_.upper_bound(first);
    if (at != retired_.begin()) --at;
    while (at != retired_.end() && at->first < end) {
      auto* const memory = reinterpret_cast<std::byte*>(at->first);
      if (holds(memory, at->second)) {
        ++at;
        continue;
      }
      retiredBytes_ -= at->second;
      at = retired_.erase(at);
      std::free(memory);
    }
  }

  // Takes over memory of malloc and its like; at once free when nobody holds it.
  void retire(std::byte* memory, std::size_t bytes) {
    if (!holds(memory, bytes)) return std::free(memory);
    retired_.emplace(reinterpret_cast<Address>(memory), bytes);
    retiredBytes_ += bytes;
  }

  std::size_t retiredBytes() const noexcept { return retiredBytes_; }

 private:
  Holds holds_;
  std::size_t longest_ = 0;  // at least the longest hold
  std::map<Address, std::size_t> retired_;
  std::size_t retiredBytes_ = 0;
};

}  // namespace metadisk
