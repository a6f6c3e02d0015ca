// Memory for the engine's own reads and writes: copies, comparisons, repairs.
//
// Invariant: at the moment of fresh() the kernel holds none of it, so each use for something new begins with
// that call; a component that hangs would otherwise read over what came after, or write it. It is freed when the
// kernel holds none of it, which may be after the WorkBuffer is gone.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <utility>

#include "io/backend.h"

namespace metadisk {

class WorkBuffer {
 public:
  WorkBuffer() = default;
  WorkBuffer(const WorkBuffer&) = delete;
  WorkBuffer& operator=(const WorkBuffer&) = delete;
  ~WorkBuffer() { drop(); }

  // Memory of so many bytes, a multiple of 4096, and aligned to that. False without memory.
  bool make(HeldMemory& held, std::size_t bytes) noexcept {
    drop();
    held_ = &held;
    bytes_ = bytes;
    memory_ = static_cast<std::byte*>(std::aligned_alloc(4096, bytes));
    return memory_ != nullptr;
  }
  // Other memory when the kernel holds some of it; what it held is lost. False without memory.
  bool fresh() noexcept {
    if (memory_ != nullptr && !held_->holds(memory_, bytes_)) return true;
    return held_ != nullptr && make(*held_, bytes_);
  }
  void drop() noexcept {
    if (memory_ != nullptr) held_->retire(std::exchange(memory_, nullptr), bytes_);
  }
  std::byte* get() const noexcept { return memory_; }

 private:
  HeldMemory* held_ = nullptr;
  std::byte* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace metadisk
