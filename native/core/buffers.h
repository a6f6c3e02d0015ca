// Payload buffers of one thread: 4096-aligned, in power-of-two classes, reused last-in first-out so
// that hot ones stay in cache.
//
// Invariants: used by one thread; lent plus kept bytes never exceed `limit`, acquire() returns null
// instead; nothing is allocated while a free buffer of the class exists. While somebody is first in line,
// nobody else gets anything: memory that comes back would otherwise always go to the busiest. What the kernel
// still holds is never lent again: it leaves the pool, and counts only once it is more than the limit itself, so
// a disk that hangs cannot starve the clients of others, nor make the memory of all more than twice the limit.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "core/heldmemory.h"

namespace metadisk {

class BufferPool {
 public:
  static constexpr unsigned kSmallest = 12;
  static constexpr unsigned kLargest = 26;

  explicit BufferPool(std::size_t limit) noexcept : limit_(limit) {}
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  ~BufferPool() { trim(); }

  static constexpr std::size_t roundedSize(std::size_t bytes) noexcept {
    return bytes <= (std::size_t{1} << kSmallest) ? std::size_t{1} << kSmallest : std::bit_ceil(bytes);
  }

  // Whose holds keep buffers from being lent again; null: nobody's.
  void guard(HeldMemory* held) noexcept { held_ = held; }

  // Who alone is served from now on; null: everybody.
  void serveOnly(const void* first) noexcept { first_ = first; }

  std::byte* acquire(std::size_t bytes, const void* who = nullptr) noexcept {
    if (first_ != nullptr && first_ != who) return nullptr;
    const std::size_t size = roundedSize(bytes);
    const unsigned index = classOf(size);
    if (index > kLargest - kSmallest) return nullptr;
    if (Free* const hit = free_[index]) {
      free_[index] = hit->next;
      kept_ -= size;
      lent_ += size;
      ++served_;
      return reinterpret_cast<std::byte*>(hit);
    }
    const std::size_t limit = limit_ - beyond();
    if (lent_ + kept_ + size > limit) trim();
    if (lent_ + size > limit) return nullptr;
    auto* const fresh = static_cast<std::byte*>(std::aligned_alloc(4096, size));
    if (fresh == nullptr) return nullptr;
    lent_ += size;
    ++served_;
    return fresh;
  }

  void release(std::byte* buffer, std::size_t bytes) noexcept {
    const std::size_t size = roundedSize(bytes);
    lent_ -= size;
    if (held_ != nullptr && held_->any() && held_->holds(buffer, size)) [[unlikely]]
      return held_->retire(buffer, size);
    const unsigned index = classOf(size);
    auto* const freed = reinterpret_cast<Free*>(buffer);
    freed->next = free_[index];
    free_[index] = freed;
    kept_ += size;
  }

  // The buffer itself, or another in its place when the kernel holds it; null, and nothing lent, without memory.
  // Nobody else's memory is needed for it, so it never waits.
  std::byte* unheld(std::byte* buffer, std::size_t bytes) noexcept {
    const std::size_t size = roundedSize(bytes);
    if (held_ == nullptr || !held_->holds(buffer, size)) return buffer;
    held_->retire(buffer, size);
    auto* const fresh = static_cast<std::byte*>(std::aligned_alloc(4096, size));
    if (fresh == nullptr) lent_ -= size;
    return fresh;
  }

  // Gives what is not lent back to the system.
  void trim() noexcept {
    for (auto& list : free_) {
      while (list != nullptr) {
        Free* const next = list->next;
        std::free(list);
        list = next;
      }
    }
    kept_ = 0;
  }

  std::size_t lent() const noexcept { return lent_; }
  std::size_t kept() const noexcept { return kept_; }
  // How often acquire() gave something.
  std::uint64_t served() const noexcept { return served_; }

 private:
  struct Free {
    Free* next;
  };
  static constexpr unsigned classOf(std::size_t size) noexcept {
    return static_cast<unsigned>(std::countr_zero(size)) - kSmallest;
  }

  std::size_t beyond() const noexcept {
    if (held_ == nullptr || held_->retiredBytes() <= limit_) return 0;
    return held_->retiredBytes() < 2 * limit_ ? held_->retiredBytes() - limit_ : limit_;
  }

  std::array<Free*, kLargest - kSmallest + 1> free_{};
  std::size_t limit_;
  std::size_t lent_ = 0;
  std::size_t kept_ = 0;
  std::uint64_t served_ = 0;
  const void* first_ = nullptr;
  HeldMemory* held_ = nullptr;
};

}  // namespace metadisk
