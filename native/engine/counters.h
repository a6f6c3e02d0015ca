// Counters of one device on one thread; read by the control thread at any time.
//
// The order is the order of src/dataplane/counters.ts.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace metadisk {

enum class Counter : std::uint8_t {
  reads,
  readBytes,
  readErrors,
  writes,
  writeBytes,
  writeErrors,
  flushes,
  flushErrors,
  trims,
  trimBytes,
  trimErrors,
  zeroes,
  zeroBytes,
  zeroErrors,
  caches,
  cacheBytes,
  cacheErrors,
  blockStatuses,
  blockStatusErrors,
  badRequests,
  repairedBlocks,
  connections,  // now
  inFlight,     // requests now
  count,
};

inline constexpr std::size_t kCounters = static_cast<std::size_t>(Counter::count);

class Counters {
 public:
  // One writer: the device's thread.
  void add(Counter which, std::uint64_t n) noexcept {
    auto& value = values_[static_cast<std::size_t>(which)];
    value.store(value.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  std::uint64_t get(std::size_t index) const noexcept { return values_[index].load(std::memory_order_relaxed); }

 private:
  std::array<std::atomic<std::uint64_t>, kCounters> values_{};
};

}  // namespace metadisk
