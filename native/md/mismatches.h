// What a comparison finds, as it is told: neighbours in one, the first thousand places by name, all by number.
//
// Invariants: one thread; blocks come in rising order; what is open is told by flush().
#pragma once

#include <cstdint>

#include "md/volume.h"

namespace metadisk {

class Mismatches {
 public:
  void begin(std::uint64_t job) noexcept {
    job_ = job;
    openBlock_ = openBlocks_ = told_ = count_ = 0;
  }
  void add(VolumeHost& host, std::uint64_t block) noexcept {
    count_++;
    if (openBlocks_ > 0 && openBlock_ + openBlocks_ == block) {
      openBlocks_++;
      return;
    }
    flush(host);
    openBlock_ = block;
    openBlocks_ = 1;
  }
  void flush(VolumeHost& host) noexcept {
    if (openBlocks_ > 0 && told_++ < kReported) host.verifyMismatch(job_, openBlock_, openBlocks_);
    openBlocks_ = 0;
  }
  std::uint64_t count() const noexcept { return count_; }

 private:
  static constexpr std::uint64_t kReported = 1000;
  std::uint64_t job_ = 0;
  std::uint64_t openBlock_ = 0;  // not told yet, because the next window may go on with it
  std::uint64_t openBlocks_ = 0;
  std::uint64_t told_ = 0;
  std::uint64_t count_ = 0;
};

}  // namespace metadisk
