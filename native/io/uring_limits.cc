// What becomes of operations that the kernel does not return in time, and of the threads and buffers they hold.
#include <cerrno>
#include <utility>

#include "io/uring.h"

namespace metadisk {

void UringBackend::look() noexcept {
  limits_.look([this](void* op) { return withdraw(*static_cast<RingOp*>(op)); },
               [this](void* op) { abandoned(*static_cast<RingOp*>(op)); });
}

void UringBackend::giveUpAll() noexcept {
  limits_.giveUpAll([this](void* op) { return withdraw(*static_cast<RingOp*>(op)); },
                    [this](void* op) { abandoned(*static_cast<RingOp*>(op)); });
}

// A call that no thread has taken yet is not made any more.
bool UringBackend::withdraw(RingOp& op) noexcept {
  Workers* const workers = workersOf(op);
  if (workers == nullptr || !workers->withdraw(op.call)) return false;
  // Whoever waits for its turn to sync is told by a failure, which has nothing to wait for.
  if (std::exchange(op.syncing, false)) op.io->file->syncs.end(op.turn, true);
  limits_.end(op.outstanding);
  release(op);
  return true;
}

void UringBackend::abandoned(RingOp& op) noexcept {
  if (op.bounce != nullptr) --bouncesMade_;
  if (workersOf(op) == nullptr) {
    // What only waits for one of the ring's threads comes back by this, and what can be interrupted.
    if (io_uring_sqe* const sqe = io_uring_get_sqe(&ring_)) {
      io_uring_prep_cancel(sqe, &op, 0);
      io_uring_sqe_set_data(sqe, nullptr);
      ++queued_;
    }
  }
  replaceThreads();
  serveBounces();
}

// As many as the given up operations may hold.
void UringBackend::replaceThreads() noexcept {
  const unsigned lost = limits_.abandoned();
  if (lost == replaced_) return;
  for (Workers* const workers : {workers_.get(), seekers_.get(), helpers_.get()}) {
    if (workers != nullptr) workers->allowMore(static_cast<int>(lost) - static_cast<int>(replaced_));
  }
  replaced_ = lost;
  if (!ringed_) return;
  unsigned limits[2] = {kRingWorkers + lost, 0};
  io_uring_register_iowq_max_workers(&ring_, limits);
}

// Of a call nobody waits for any more.
void UringBackend::lateAnswer(RingOp& op, std::int32_t result) noexcept {
  const bool told = result < 0 && result != -EINTR && result != -EAGAIN && result != -ECANCELED;
  if (told && (op.syncing || op.io->fua)) op.io->file->syncFailed.store(true, std::memory_order_release);
  finish(op, -ETIMEDOUT);
}

}  // namespace metadisk
