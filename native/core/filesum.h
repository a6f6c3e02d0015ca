// The sum (XOR) of what several files hold, as their page caches have it.
//
// Invariants: used by one thread. Blocks are so small that what is read and summed is still in the processor's cache
// when the sum is taken. A file that can say so is not waited for; of others the caller knows that they are cached.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

#include "core/filerange.h"

namespace metadisk {

class FileSum {
 public:
  static constexpr std::size_t kBlock = 64 * 1024;

  // Bytes `at` to `at + length` of the ranges' sum, `length` at most kBlock; there until the next call. Null: not all
  // of them could be read.
  const std::byte* sum(std::span<const FileRange> ranges, std::uint64_t at, std::size_t length) noexcept;

 private:
  struct Freed {
    void operator()(std::byte* memory) const noexcept { std::free(memory); }
  };
  // The sum, and files that are added to it at once.
  static constexpr std::size_t kBlocks = 4;

  bool read(const FileRange& range, std::uint64_t at, std::size_t length, std::byte* to) noexcept;

  std::unique_ptr<std::byte, Freed> memory_;  // had when it is needed first
  bool nowait_ = true;                        // the file that was read last knows RWF_NOWAIT
};

}  // namespace metadisk
