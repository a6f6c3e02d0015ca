// Messages to one thread from any other: control work, never the path of a request.
//
// post() may be called by any thread, run() only by the owner. The owner sleeps on fd(); what was
// posted before run() is run in order. Bounded by its users: each control operation posts a constant
// number of messages.
#pragma once

#include <sys/eventfd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <vector>

#include "core/fd.h"

namespace metadisk {

class Mailbox {
 public:
  Mailbox() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  void post(std::function<void()> message) {
    {
      const std::lock_guard lock(mutex_);
      messages_.push_back(std::move(message));
    }
    wake();
  }

  // Ends the owner's sleep without a message.
  void wake() noexcept {
    if (pending_.exchange(true, std::memory_order_acq_rel)) return;
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto n = ::write(event_.get(), &one, sizeof one);
  }

  bool pending() const noexcept { return pending_.load(std::memory_order_acquire); }
  int fd() const noexcept { return event_.get(); }

  // Returns whether anything was posted or woken.
  bool run() {
    if (!pending()) return false;
    std::uint64_t drained = 0;
    [[maybe_unused]] const auto n = ::read(event_.get(), &drained, sizeof drained);
    pending_.store(false, std::memory_order_release);
    std::vector<std::function<void()>> batch;
    {
      const std::lock_guard lock(mutex_);
      batch.swap(messages_);
    }
    for (auto& message : batch) message();
    return true;
  }

 private:
  Fd event_;
  std::atomic<bool> pending_{false};
  std::mutex mutex_;
  std::vector<std::function<void()>> messages_;
};

}  // namespace metadisk
