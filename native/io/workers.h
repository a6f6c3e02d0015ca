// Threads that make blocking calls: for a component on an unknown file system, which has threads of its
// own, and for a whole backend where io_uring is forbidden (containers, hardened kernels).
//
// io_uring is no way out for the former: the kernel takes a FUSE file for one that can be polled, and then
// reads it on the thread that submits.
// Invariants: any thread may enqueue(); every call comes back exactly once, to the Finished it names, unless it
// was withdrawn before a thread took it; a call that hangs holds one thread of its own pool and nobody else's;
// the destructor waits for calls under way. Threads are started when calls wait and none is free.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "core/mailbox.h"

namespace metadisk {

enum class SysKind : std::uint8_t { read, write, sync, fallocate, advise, extents };

class Finished;
struct SysCall;

// On this thread; the result as io_uring reports it, all or an error where the call has `offsets`.
std::int32_t perform(SysCall& call) noexcept;

// One system call on a component. Embedded in the backend's pooled operation.
struct SysCall {
  SysKind kind = SysKind::read;
  int fd = -1;
  int flags = 0;  // RWF_..., the fallocate mode, or the advice
  std::byte* data = nullptr;
  std::uint64_t length = 0;
  const iovec* iov = nullptr;  // read, write: when not null, used instead of `data`
  unsigned iovCount = 0;
  const std::uint64_t* offsets = nullptr;  // as in Io
  std::uint64_t offset = 0;
  // As io_uring reports it. extents: 1 is a hole, 0 data, and `length` has become how far it goes.
  std::int32_t result = 0;
  Finished* finished = nullptr;
  SysCall* next = nullptr;
  // Workers' own:
  SysCall* before = nullptr;
  bool waits = false;  // no thread has taken it
};

// Calls that are done and wait for their backend's thread.
class Finished {
 public:
  explicit Finished(Mailbox& home) : home_(home) {}
  void push(SysCall& call) noexcept;
  // Without a word to the owner: whoever calls it sees to it that wake() follows.
  void add(SysCall& call) noexcept;
  void wake() noexcept { home_.wake(); }
  // The owner only. A list of finished calls, oldest last; null when there is none.
  SysCall* take() noexcept {
    return head_.load(std::memory_order_relaxed) == nullptr ? nullptr
                                                            : head_.exchange(nullptr, std::memory_order_acquire);
  }

 private:
  Mailbox& home_;
  std::atomic<SysCall*> head_{nullptr};
};

class Workers {
 public:
  // At most `threads`, one of them now. Throws when there is none to be had. With `bundle` above 1 the owner, of whom
  // there is one that outlives this, is not woken for each call: after so many pieces, or when no call waits any more.
  explicit Workers(unsigned threads, unsigned bundle = 1);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  void enqueue(SysCall& call) noexcept;
  // A list by `next`, from `first` to `last`.
  void enqueue(SysCall& first, SysCall& last, std::size_t count) noexcept;
  // Takes a call back that waits for a thread. False: a thread has it, or had it.
  bool withdraw(SysCall& call) noexcept;
  // For how many more calls, or how many fewer, there may be threads: those that hang are lost to the others.
  void allowMore(int change) noexcept;

 private:
  void run() noexcept;
  void startThread() noexcept;

  unsigned limit_;
  const unsigned bundle_;
  std::mutex mutex_;
  std::condition_variable some_;
  SysCall* head_ = nullptr;
  SysCall* tail_ = nullptr;
  std::size_t waiting_ = 0;  // calls in the queue
  std::size_t idle_ = 0;     // threads that wait for one
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace metadisk
