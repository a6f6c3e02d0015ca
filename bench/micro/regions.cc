// What the dirty region log costs a write into a region that is dirty already: enter() and leave().
// Prints nanoseconds per write; the goal is below 50 (docs/ARCHITECTURE.md).
#include "core/regions.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "core/clock.h"

int main() {
  using namespace metadisk;
  constexpr std::uint32_t kRegions = 32768;
  constexpr std::uint64_t kRegionBytes = 1 << 20;
  constexpr std::uint64_t kWrite = 4096;
  constexpr std::uint64_t kWrites = 20'000'000;
  Regions regions(kRegions * kRegionBytes, kRegionBytes);
  Bitmap dirty(kRegions);
  for (std::uint32_t i = 0; i < kRegions; i++) dirty.set(i);
  regions.load(dirty);
  std::vector<RegionWaiter> waiters(64);
  std::vector<double> rounds;
  for (int round = 0; round < 7; round++) {
    std::uint64_t place = 12345;
    std::uint64_t waited = 0;
    const std::uint64_t begin = monotonicNanos();
    for (std::uint64_t i = 0; i < kWrites; i++) {
      // 64 in flight, at random places.
      RegionWaiter& waiter = waiters[i % waiters.size()];
      if (i >= waiters.size()) regions.leave(waiter);
      place = place * 6364136223846793005U + 1442695040888963407U;
      waited += regions.enter(waiter, (place >> 20U) % (kRegions * kRegionBytes / kWrite) * kWrite, kWrite) ? 0 : 1;
    }
    for (const RegionWaiter& waiter : waiters) regions.leave(waiter);
    const std::uint64_t end = monotonicNanos();
    if (waited != 0) return 1;
    rounds.push_back(static_cast<double>(end - begin) / static_cast<double>(kWrites));
  }
  std::sort(rounds.begin(), rounds.end());
  std::printf("%.2f ns per write (median of %zu rounds; best %.2f, worst %.2f)\n", rounds[rounds.size() / 2],
              rounds.size(), rounds.front(), rounds.back());
  return 0;
}
