// A RAID5 device that is asked one thing at a time, and stages nothing by itself.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "property/native/raid5_rig.h"

namespace metadisk::test {

// Nothing is staged unless somebody asks.
inline Raid5Options patient() {
  Raid5Options options;
  options.cacheBytes = 400 * 4096;
  options.ageNanos = 1'000'000'000'000;
  return options;
}

class Asked5 : public Rig5 {
 public:
  using Rig5::Rig5;

  int run(Op op, std::uint64_t offset = 0, std::uint64_t length = 0, std::uint8_t fill = 0, bool fua = false) {
    Call call(op, offset, length, fill);
    call.fua = fua;
    submit(call);
    for (unsigned turns = 0; call.doneCount == 0; turns++) {
      REQUIRE(turns < 100'000);
      turn();
    }
    read_ = std::move(call.buffer);
    return call.error;
  }
  bool holds(std::uint64_t offset, std::uint64_t length, std::uint8_t fill) {
    return run(Op::read, offset, length) == 0 &&
           std::all_of(read_.begin(), read_.end(), [&](std::byte b) { return b == static_cast<std::byte>(fill); });
  }
  // Reads of that block of its data fail.
  void damage(std::uint32_t column, std::uint64_t block) {
    const std::uint64_t first = node().columns[column].start + block * kBlock;
    disk.damage(column, first, first + kBlock);
  }

 private:
  decltype(Call::buffer) read_;
};

}  // namespace metadisk::test
