// A set of small numbers: which regions of a mirror are dirty, stale, still to be copied.
//
// Invariants: bits at or above size() are zero. The byte form has the least significant bit first:
// number i is byte i >> 3, bit i & 7 (driver.md 2.8).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace metadisk {

class Bitmap {
 public:
  Bitmap() = default;
  explicit Bitmap(std::uint32_t size) : size_(size), words_((std::size_t{size} + 63) / 64) {}

  // What `bytes` does not reach is clear; what lies at or above `size` is ignored.
  static Bitmap fromBytes(std::span<const std::uint8_t> bytes, std::uint32_t size) {
    Bitmap map(size);
    for (std::uint32_t i = 0; i < size && i / 8 < bytes.size(); i++) {
      if ((bytes[i / 8] >> (i % 8) & 1U) != 0) map.set(i);
    }
    return map;
  }

  std::uint32_t size() const noexcept { return size_; }
  bool test(std::uint32_t i) const noexcept { return (words_[i / 64] >> (i % 64) & 1U) != 0; }
  void set(std::uint32_t i) noexcept { words_[i / 64] |= std::uint64_t{1} << (i % 64); }
  void clear(std::uint32_t i) noexcept { words_[i / 64] &= ~(std::uint64_t{1} << (i % 64)); }

  // The first number at or above `from` that is in the set (or is not); size() when there is none.
  std::uint32_t nextSet(std::uint32_t from) const noexcept { return next(from, 0); }
  std::uint32_t nextClear(std::uint32_t from) const noexcept { return next(from, ~std::uint64_t{0}); }
  bool any() const noexcept { return nextSet(0) < size_; }
  // Any of first to last, both included.
  bool any(std::uint32_t first, std::uint32_t last) const noexcept { return nextSet(first) <= last && last < size_; }
  std::uint32_t count() const noexcept {
    std::uint32_t n = 0;
    for (const std::uint64_t word : words_) n += static_cast<std::uint32_t>(std::popcount(word));
    return n;
  }

  // The same places when one number stands for 2^shift old ones and there are `size` numbers.
  Bitmap merged(unsigned shift, std::uint32_t size) const {
    Bitmap map(size);
    for (std::uint32_t i = nextSet(0); i < size_; i = nextSet(i + 1)) {
      if (i >> shift < size) map.set(i >> shift);
    }
    return map;
  }

  friend bool operator==(const Bitmap&, const Bitmap&) = default;

 private:
  std::uint32_t next(std::uint32_t from, std::uint64_t flip) const noexcept {
    for (std::size_t w = from / 64; w < words_.size(); w++) {
      std::uint64_t word = words_[w] ^ flip;
      if (w == from / 64) word &= ~std::uint64_t{0} << (from % 64);
      if (word == 0) continue;
      const auto found = static_cast<std::uint32_t>(w * 64) + static_cast<std::uint32_t>(std::countr_zero(word));
      return found < size_ ? found : size_;
    }
    return size_;
  }

  std::uint32_t size_ = 0;
  std::vector<std::uint64_t> words_;
};

}  // namespace metadisk
