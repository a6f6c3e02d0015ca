#include "io/workers.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <system_error>
#include <utility>

#include "io/buffers.h"

namespace metadisk {

namespace {

constexpr std::uint64_t kBlock = 512;

// A hole ends at its last whole block, so that no byte of data is ever called one. The file's position, which moves,
// is nobody's: all I/O names its offset.
std::int32_t seekExtent(SysCall& call) noexcept {
  const auto at = static_cast<off_t>(call.offset);
  const std::uint64_t limit = call.offset + call.length;
  const off_t data = ::lseek(call.fd, at, SEEK_DATA);
  std::uint64_t end = limit;
  if (data > at) {
    end = down(std::min(limit, static_cast<std::uint64_t>(data)), kBlock);
  } else if (data == at) {
    const off_t hole = ::lseek(call.fd, at, SEEK_HOLE);
    if (hole > at) end = std::min(limit, up(static_cast<std::uint64_t>(hole), kBlock));
    call.length = end - call.offset;
    return 0;
  } else {
    // No data up to the end of the file; what a component has beyond that fails when it is read.
    struct stat st {};
    if (errno != ENXIO || ::fstat(call.fd, &st) != 0) return 0;
    end = down(std::min(limit, static_cast<std::uint64_t>(st.st_size)), kBlock);
  }
  if (end <= call.offset) {
    call.length = std::min(call.length, kBlock - call.offset % kBlock);
    return 0;
  }
  call.length = end - call.offset;
  return 1;
}

ssize_t transfer(SysKind kind, int fd, std::span<const iovec> list, std::uint64_t offset) noexcept {
  const auto at = static_cast<off_t>(offset);
  const auto count = static_cast<int>(list.size());
  if (count > 1)
    return kind == SysKind::read ? ::preadv(fd, list.data(), count, at) : ::pwritev(fd, list.data(), count, at);
  const iovec& one = list.front();
  return kind == SysKind::read ? ::pread(fd, one.iov_base, one.iov_len, at)
                               : ::pwrite(fd, one.iov_base, one.iov_len, at);
}

// Neighbours in one call.
std::int32_t performScattered(const SysCall& call) noexcept {
  std::int32_t total = 0;
  for (unsigned i = 0; i < call.iovCount;) {
    const unsigned first = i;
    std::uint64_t length = 0;
    do {
      length += call.iov[i++].iov_len;
    } while (i < call.iovCount && call.offsets[i] == call.offsets[first] + length);
    ssize_t n = 0;
    do {
      n = transfer(call.kind, call.fd, {call.iov + first, i - first}, call.offsets[first]);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return -errno;
    // Whoever asked finds out what it was, piece by piece.
    if (static_cast<std::uint64_t>(n) != length) return -EIO;
    total += static_cast<std::int32_t>(length);
  }
  return total;
}

}  // namespace

std::int32_t perform(SysCall& call) noexcept {
  if (call.kind == SysKind::extents) return seekExtent(call);
  if (call.offsets != nullptr) return performScattered(call);
  const iovec one{call.data, call.length};
  const iovec* const iov = call.iov != nullptr ? call.iov : &one;
  const auto count = static_cast<int>(call.iov != nullptr ? call.iovCount : 1);
  const auto at = static_cast<off_t>(call.offset);
  ssize_t n = 0;
  do {
    switch (call.kind) {
      case SysKind::read: n = ::preadv2(call.fd, iov, count, at, call.flags); break;
      case SysKind::write: n = ::pwritev2(call.fd, iov, count, at, call.flags); break;
      case SysKind::sync: n = ::fdatasync(call.fd); break;
      case SysKind::fallocate: n = ::fallocate(call.fd, call.flags, at, static_cast<off_t>(call.length)); break;
      case SysKind::advise:
        errno = ::posix_fadvise(call.fd, at, static_cast<off_t>(call.length), call.flags);
        n = errno == 0 ? 0 : -1;
        break;
      case SysKind::extents: break;
    }
  } while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : static_cast<std::int32_t>(n);
}

void Finished::add(SysCall& call) noexcept {
  call.next = head_.load(std::memory_order_relaxed);
  while (!head_.compare_exchange_weak(call.next, &call, std::memory_order_release, std::memory_order_relaxed)) {
  }
}

void Finished::push(SysCall& call) noexcept {
  Mailbox& home = home_;  // once the call is in the list, its backend may end
  add(call);
  home.wake();
}

Workers::Workers(unsigned threads, unsigned bundle) : limit_(threads), bundle_(bundle) {
  threads_.reserve(limit_);
  threads_.emplace_back([this] { run(); });
}

Workers::~Workers() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  some_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void Workers::enqueue(SysCall& call) noexcept {
  call.next = nullptr;
  enqueue(call, call, 1);
}

void Workers::enqueue(SysCall& first, SysCall& last, std::size_t count) noexcept {
  {
    const std::lock_guard lock(mutex_);
    for (SysCall *call = &first, *before = tail_; call != nullptr; before = call, call = call->next) {
      call->before = before;
      call->waits = true;
    }
    (tail_ != nullptr ? tail_->next : head_) = &first;
    tail_ = &last;
    waiting_ += count;
    startThread();
  }
  count > 1 ? some_.notify_all() : some_.notify_one();
}

void Workers::startThread() noexcept {
  if (waiting_ <= idle_ || threads_.size() >= limit_) return;
  try {
    threads_.emplace_back([this] { run(); });
  } catch (const std::system_error&) {
    // Those that run already take it when they are free.
  }
}

bool Workers::withdraw(SysCall& call) noexcept {
  const std::lock_guard lock(mutex_);
  if (!call.waits) return false;
  call.waits = false;
  (call.before != nullptr ? call.before->next : head_) = call.next;
  (call.next != nullptr ? call.next->before : tail_) = call.before;
  --waiting_;
  return true;
}

void Workers::allowMore(int change) noexcept {
  const std::lock_guard lock(mutex_);
  limit_ += static_cast<unsigned>(change);
  for (std::size_t before = threads_.size(); waiting_ > idle_; before = threads_.size()) {
    startThread();
    if (threads_.size() == before) break;
  }
}

void Workers::run() noexcept {
  // Signals belong to the process's main thread.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  std::unique_lock lock(mutex_);
  Finished* untold = nullptr;  // whose owner is to be woken
  for (unsigned quiet = 0;;) {
    if (untold != nullptr && (head_ == nullptr || quiet >= bundle_)) {
      lock.unlock();
      std::exchange(untold, nullptr)->wake();
      quiet = 0;
      lock.lock();
    }
    ++idle_;
    some_.wait(lock, [this] { return stopping_ || head_ != nullptr; });
    --idle_;
    if (head_ == nullptr) return;
    SysCall& call = *head_;
    head_ = call.next;
    (head_ != nullptr ? head_->before : tail_) = nullptr;
    call.waits = false;
    --waiting_;
    lock.unlock();
    const unsigned pieces = call.offsets != nullptr ? call.iovCount : 1;
    call.result = perform(call);
    if (bundle_ == 1) {
      call.finished->push(call);
    } else {
      untold = call.finished;  // the call is the owner's as soon as it is there
      untold->add(call);
      quiet += pieces;
    }
    lock.lock();
  }
}

}  // namespace metadisk
