// Threads that make blocking calls, for hosts where io_uring is forbidden (containers, hardened kernels).
//
// Invariants: enqueue() and take() belong to the I/O thread; every call is returned by take() exactly
// once; the destructor waits for calls under way.
#pragma once

#include <sys/uio.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "core/mailbox.h"

namespace metadisk {

enum class SysKind : std::uint8_t { read, write, sync, fallocate, advise };

// One system call on a component. Embedded in the backend's pooled operation.
struct SysCall {
  SysKind kind = SysKind::read;
  int fd = -1;
  int flags = 0;  // RWF_... or the fallocate mode
  std::byte* data = nullptr;
  std::uint64_t length = 0;
  const iovec* iov = nullptr;  // read, write: when not null, used instead of `data`
  unsigned iovCount = 0;
  std::uint64_t offset = 0;
  std::int32_t result = 0;  // as io_uring reports it
  SysCall* next = nullptr;
};

class Workers {
 public:
  Workers(Mailbox& home, unsigned threads);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  void enqueue(SysCall& call) noexcept;
  // A list of finished calls, oldest last; null when there is none.
  SysCall* take() noexcept;

 private:
  void run() noexcept;

  Mailbox& home_;
  std::mutex mutex_;
  std::condition_variable some_;
  SysCall* head_ = nullptr;
  SysCall* tail_ = nullptr;
  SysCall* finished_ = nullptr;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace metadisk
