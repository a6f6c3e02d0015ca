// The sum (XOR) of what several buffers hold, by ISA-L.
#pragma once

#include <isa-l.h>

#include <array>
#include <cstddef>

namespace metadisk {

class XorSum {
 public:
  // At least two, at most one of each column and two more; aligned to 32 bytes.
  void add(std::byte* source) noexcept { sources_[count_++] = source; }
  // `to`, which may be one of them, becomes the sum: `length` bytes from `at` on, whole blocks.
  void into(std::byte* to, std::size_t at, std::size_t length) const noexcept {
    std::array<void*, kMost + 1> vectors;
    for (std::size_t i = 0; i < count_; i++) vectors[i] = sources_[i] + at;
    vectors[count_] = to + at;
    xor_gen(static_cast<int>(count_ + 1), static_cast<int>(length), vectors.data());
  }

 private:
  static constexpr std::size_t kMost = 66;
  std::array<std::byte*, kMost> sources_;
  std::size_t count_ = 0;
};

}  // namespace metadisk
