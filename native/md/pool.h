// Fixed-address objects handed out and taken back without the allocator once the pool has grown.
//
// Invariants: one thread; objects stay put until the pool dies; T has a `T* poolNext` member, which
// belongs to the pool while the object is free. take() answers null when memory is out.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <vector>

namespace metadisk {

template <typename T, std::size_t kChunk = 64>
class Pool {
 public:
  T* take() noexcept {
    if (free_ == nullptr && !grow()) return nullptr;
    T* const taken = free_;
    free_ = taken->poolNext;
    return taken;
  }
  void give(T& object) noexcept {
    object.poolNext = free_;
    free_ = &object;
  }
  std::size_t capacity() const noexcept { return chunks_.size() * kChunk; }

 private:
  bool grow() noexcept {
    std::unique_ptr<T[]> chunk(new (std::nothrow) T[kChunk]);
    if (chunk == nullptr) return false;
    for (std::size_t i = kChunk; i-- > 0;) give(chunk[i]);
    chunks_.push_back(std::move(chunk));
    return true;
  }

  T* free_ = nullptr;
  std::vector<std::unique_ptr<T[]>> chunks_;
};

}  // namespace metadisk
