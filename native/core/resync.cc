#include "core/resync.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace metadisk {

namespace {

constexpr std::uint64_t kBlock = 512;
constexpr std::uint64_t kReportEvery = 100'000'000;  // ns
constexpr std::uint64_t kPauseMax = 10'000'000;      // ns; the most a window waits for clients
constexpr std::uint32_t kBufferBlocksMax = 2048;
constexpr std::uint64_t kNanosPerSecond = 1'000'000'000;

// Nanoseconds that `bytes` may take at least.
std::uint64_t costOf(std::uint64_t bytes, std::uint64_t bytesPerSecond) noexcept {
  if (bytesPerSecond == 0) return 0;
  return bytes / bytesPerSecond * kNanosPerSecond + bytes % bytesPerSecond * kNanosPerSecond / bytesPerSecond;
}

}  // namespace

void Resync::FreeDeleter::operator()(std::byte* p) const noexcept { std::free(p); }

std::uint64_t Resync::doneBlocks() const noexcept { return std::min(at_, total_) / kBlock; }

bool Resync::start(const ResyncJob& job, std::uint64_t total) noexcept {
  if (running()) return false;
  const std::uint64_t blocks = std::clamp<std::uint64_t>(job.bufferBlocks, 1, kBufferBlocksMax);
  const std::size_t bytes = (blocks * kBlock + 4095) / 4096 * 4096;
  if (capacity_ < bytes) {
    buffer_.reset(static_cast<std::byte*>(std::aligned_alloc(4096, bytes)));
    capacity_ = buffer_ != nullptr ? bytes : 0;
    if (buffer_ == nullptr) return false;
  }
  job_ = job;
  job_.bufferBlocks = static_cast<std::uint32_t>(blocks);
  total_ = total;
  at_ = std::min(job.from, total / kBlock + 1) * kBlock;
  at_ = std::min(at_, total);
  cancelled_ = false;
  allowance_ = reported_ = port_.now();
  port_.clientsActive();
  state_ = State::pausing;
  wakeAt_ = 0;
  tick();
  return true;
}

void Resync::cancel() noexcept {
  if (!running()) return;
  cancelled_ = true;
  if (state_ == State::pausing) finish(ResyncOutcome::cancelled, 0);
}

void Resync::tick() noexcept {
  if (state_ != State::pausing || port_.now() < wakeAt_) return;
  nextWindow();
}

void Resync::nextWindow() noexcept {
  if (cancelled_) return finish(ResyncOutcome::cancelled, 0);
  wakeAt_ = UINT64_MAX;
  if (at_ >= total_) {
    state_ = State::syncing;
    port_.targetSync();
    return;
  }
  window_ = std::min<std::uint64_t>(job_.bufferBlocks * kBlock, total_ - at_);
  windowStart_ = port_.now();
  state_ = State::locking;
  port_.windowLock(at_, window_);
}

void Resync::onLocked() noexcept {
  state_ = State::reading;
  port_.windowRead(at_, {buffer_.get(), window_});
}

void Resync::onRead(int error) noexcept {
  if (error != 0) {
    port_.windowUnlock();
    return finish(ResyncOutcome::failed, error);
  }
  state_ = State::writing;
  port_.windowWrite(at_, {buffer_.get(), window_});
}

void Resync::onWritten(int error) noexcept {
  if (error != 0) {
    port_.windowUnlock();
    return finish(ResyncOutcome::failed, error);
  }
  at_ += window_;
  // Before the lock goes: what waits for it may complete inline and ask how far the copy is.
  const std::uint64_t now = port_.now();
  const std::uint64_t spent = now - windowStart_;
  allowance_ = std::max(allowance_, windowStart_) + costOf(window_, job_.bytesPerSecond);
  wakeAt_ = std::max(allowance_, port_.clientsActive() ? now + std::min(spent, kPauseMax) : now);
  state_ = State::pausing;
  report(false);
  port_.windowUnlock();
  // The next window is begun by tick(), at the earliest in the next turn of the owner's loop: a backend
  // that completes everything inline must not keep the thread from its clients.
  if (state_ == State::pausing && cancelled_) finish(ResyncOutcome::cancelled, 0);
}

void Resync::onSynced(int error) noexcept { finish(error == 0 ? ResyncOutcome::done : ResyncOutcome::failed, error); }

void Resync::report(bool force) noexcept {
  const std::uint64_t now = port_.now();
  if (!force && now - reported_ < kReportEvery) return;
  reported_ = now;
  port_.progress(job_.job, doneBlocks(), total_ / kBlock);
}

void Resync::finish(ResyncOutcome outcome, int error) noexcept {
  report(true);
  state_ = State::idle;
  wakeAt_ = UINT64_MAX;
  port_.ended(job_.job, outcome, error, doneBlocks());
}

}  // namespace metadisk
