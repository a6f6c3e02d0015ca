#include "io/workers.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace metadisk {

namespace {

std::int32_t perform(const SysCall& call) noexcept {
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
        errno = ::posix_fadvise(call.fd, at, static_cast<off_t>(call.length), POSIX_FADV_WILLNEED);
        n = errno == 0 ? 0 : -1;
        break;
    }
  } while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : static_cast<std::int32_t>(n);
}

}  // namespace

Workers::Workers(Mailbox& home, unsigned threads) : home_(home) {
  threads_.reserve(threads);
  for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
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
  {
    const std::lock_guard lock(mutex_);
    (tail_ != nullptr ? tail_->next : head_) = &call;
    tail_ = &call;
  }
  some_.notify_one();
}

SysCall* Workers::take() noexcept {
  const std::lock_guard lock(mutex_);
  return std::exchange(finished_, nullptr);
}

void Workers::run() noexcept {
  std::unique_lock lock(mutex_);
  for (;;) {
    some_.wait(lock, [this] { return stopping_ || head_ != nullptr; });
    if (head_ == nullptr) return;
    SysCall* const call = head_;
    head_ = call->next;
    if (head_ == nullptr) tail_ = nullptr;
    lock.unlock();
    call->result = perform(*call);
    lock.lock();
    call->next = finished_;
    finished_ = call;
    home_.wake();
  }
}

}  // namespace metadisk
