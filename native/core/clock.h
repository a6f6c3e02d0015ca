// Monotonic time in nanoseconds.
#pragma once

#include <time.h>

#include <cstdint>

namespace metadisk {

inline std::uint64_t monotonicNanos() noexcept {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(t.tv_nsec);
}

// The same as of the last tick of the kernel, at most kCoarse behind, for a fraction of the price.
inline constexpr std::uint64_t kCoarse = 10'000'000;
inline std::uint64_t coarseNanos() noexcept {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(t.tv_nsec);
}

}  // namespace metadisk
