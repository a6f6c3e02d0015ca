// Latencies in nanoseconds, 64 buckets per power of two: within 1.6 % everywhere, no allocation.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace metadisk::load {

class Histogram {
 public:
  void add(std::uint64_t ns) noexcept {
    ++buckets_[index(ns)];
    ++total_;
  }
  void merge(const Histogram& other) noexcept {
    for (std::size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
    total_ += other.total_;
  }
  // Lower edge of the bucket that holds the quantile; 0 when empty.
  [[nodiscard]] std::uint64_t quantile(double q) const noexcept {
    const auto wanted = static_cast<std::uint64_t>(q * static_cast<double>(total_));
    std::uint64_t seen = 0;
    std::uint64_t last = 0;
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      if (buckets_[i] == 0) continue;
      last = edge(i);
      seen += buckets_[i];
      if (seen > wanted) return last;
    }
    return last;
  }

 private:
  static constexpr std::size_t kSub = 64;
  static std::size_t index(std::uint64_t ns) noexcept {
    if (ns < kSub) return static_cast<std::size_t>(ns);
    const auto shift = static_cast<std::size_t>(std::bit_width(ns)) - 7;
    return (shift + 1) * kSub + static_cast<std::size_t>((ns >> shift) - kSub);
  }
  static std::uint64_t edge(std::size_t i) noexcept {
    if (i < kSub) return i;
    const std::size_t shift = i / kSub - 1;
    return static_cast<std::uint64_t>(kSub + i % kSub) << shift;
  }
  std::array<std::uint64_t, kSub * 60> buckets_{};
  std::uint64_t total_ = 0;
};

}  // namespace metadisk::load
