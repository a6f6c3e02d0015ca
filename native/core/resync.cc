#include "core/resync.h"

#include <algorithm>

namespace metadisk {

namespace {

constexpr std::uint64_t kBlock = 512;
constexpr std::uint64_t kReportEvery = 100'000'000;  // ns
constexpr std::uint64_t kPauseMax = 10'000'000;      // ns; the most a window waits for clients
constexpr std::uint64_t kNanosPerSecond = 1'000'000'000;

// Nanoseconds that `bytes` may take at least.
std::uint64_t costOf(std::uint64_t bytes, std::uint64_t bytesPerSecond) noexcept {
  if (bytesPerSecond == 0) return 0;
  return bytes / bytesPerSecond * kNanosPerSecond + bytes % bytesPerSecond * kNanosPerSecond / bytesPerSecond;
}

}  // namespace

// Everything below is worked on; `from` covers what is done below it in the meantime.
std::uint64_t Resync::reached() const noexcept {
  const std::uint64_t first = flying() > 0 ? flights_[passed_ % kWindows].window.offset : exhausted_ ? pace_.end : at_;
  return std::max(pace_.from, std::min(first, pace_.end));
}

std::uint64_t Resync::doneBlocks() const noexcept { return (unsure_ ? checkpointed_ : reached()) / kBlock; }

void Resync::start(const ResyncPace& pace) noexcept {
  pace_ = pace;
  running_ = true;
  stopping_ = exhausted_ = syncing_ = lastSync_ = unsure_ = false;
  outcome_ = ResyncOutcome::done;
  fault_ = {};
  at_ = 0;
  work_ = pace.workBefore;
  launched_ = passed_ = 0;
  checkpointed_ = pace.from;
  allowance_ = reported_ = port_.now();
  checkpointAt_ = allowance_ + pace.checkpointMillis * 1'000'000ULL;
  pauseUntil_ = 0;
  port_.clientsActive();
  wakeAt_ = 0;
  tick();
}

void Resync::cancel() noexcept {
  if (running_) stop(ResyncOutcome::cancelled, {});
}

// The first reason counts, but a failure is not hidden by a cancel.
void Resync::stop(ResyncOutcome outcome, const ResyncFault& fault) noexcept {
  if (!stopping_ || (outcome == ResyncOutcome::failed && outcome_ == ResyncOutcome::cancelled)) {
    outcome_ = outcome;
    fault_ = fault;
  }
  stopping_ = true;
  wakeAt_ = UINT64_MAX;
  for (std::uint64_t i = passed_; i < launched_; i++) {
    const auto place = static_cast<unsigned>(i % kWindows);
    Flight& flight = flights_[place];
    if (flight.over || !port_.windowWithdraw(place)) continue;
    flight.over = true;
    flight.good = false;
  }
  settle();
}

void Resync::tick() noexcept {
  if (!running_ || inTick_ || port_.now() < wakeAt_) return;
  inTick_ = true;
  // A backend that completes everything inline must not keep the thread from its clients: then one window a turn.
  for (unsigned begun = 0; begun < kWindows && !stopping_ && !exhausted_ && flying() < kWindows; begun++) {
    const std::uint64_t now = port_.now();
    if (now < std::max(allowance_, pauseUntil_) || (pauseUntil_ != 0 && flying() > 0)) break;
    const ResyncWindow window = port_.windowAt(at_);
    exhausted_ = window.length == 0;
    if (exhausted_) break;
    const std::uint64_t before = passed_;
    launch(window);
    if (passed_ != before) break;
  }
  inTick_ = false;
  settle();
}

void Resync::launch(const ResyncWindow& window) noexcept {
  const std::uint64_t now = port_.now();
  const auto place = static_cast<unsigned>(launched_++ % kWindows);
  flights_[place] = {window, now};
  at_ = window.offset + window.length;
  allowance_ = std::max(allowance_, now) + costOf(window.work, pace_.bytesPerSecond);
  port_.windowBegin(place, window);
}

void Resync::onWindow(unsigned place, const ResyncFault& fault) noexcept {
  Flight& flight = flights_[place];
  flight.over = true;
  if (fault.error != 0) {
    flight.good = false;
    pass();
    return stop(ResyncOutcome::failed, fault);
  }
  const std::uint64_t now = port_.now();
  pauseUntil_ = port_.clientsActive() ? now + std::min(now - flight.begun, kPauseMax) : 0;
  pass();
  settle();
}

// What failed is never passed, nor what lies above it.
void Resync::pass() noexcept {
  while (flying() > 0) {
    const auto place = static_cast<unsigned>(passed_ % kWindows);
    const Flight& flight = flights_[place];
    if (!flight.over || !flight.good) return;
    work_ += flight.window.work;
    port_.windowPassed(place, flight.window);
    passed_++;
  }
}

bool Resync::quiet() const noexcept {
  for (std::uint64_t i = passed_; i < launched_; i++) {
    if (!flights_[i % kWindows].over) return false;
  }
  return !syncing_;
}

// What follows from where the job is now: the end, a sync, the next turn.
void Resync::settle() noexcept {
  if (!running_ || inTick_) return;
  report(false);
  if (stopping_) {
    if (!quiet()) return;
    report(true);
    running_ = false;
    wakeAt_ = UINT64_MAX;
    return port_.ended({.job = pace_.job,
                        .outcome = outcome_,
                        .error = fault_.error,
                        .done = doneBlocks(),
                        .component = fault_.component});
  }
  if (exhausted_) {
    wakeAt_ = UINT64_MAX;
    if (quiet()) sync(true);
    return;
  }
  wakeAt_ = flying() < (pauseUntil_ != 0 ? 1 : kWindows) ? std::max(allowance_, pauseUntil_) : UINT64_MAX;
  if (pace_.checkpointMillis == 0 || syncing_ || port_.now() < checkpointAt_ || reached() <= checkpointed_) return;
  sync(false);
}

void Resync::sync(bool last) noexcept {
  syncing_ = true;
  lastSync_ = last;
  syncedTo_ = reached();
  port_.targetSync();
}

void Resync::onSynced(const ResyncFault& fault) noexcept {
  syncing_ = false;
  if (fault.error != 0) {
    unsure_ = true;
    return stop(ResyncOutcome::failed, fault);
  }
  if (lastSync_) {
    // Too late for a cancel: all is copied and synced.
    if (outcome_ == ResyncOutcome::cancelled) outcome_ = ResyncOutcome::done;
    return stop(ResyncOutcome::done, {});
  }
  checkpointed_ = syncedTo_;
  checkpointAt_ = port_.now() + pace_.checkpointMillis * 1'000'000ULL;
  port_.checkpoint(pace_.job, syncedTo_ / kBlock);
  settle();
}

void Resync::report(bool force) noexcept {
  const std::uint64_t now = port_.now();
  if (!force && now - reported_ < kReportEvery) return;
  reported_ = now;
  port_.progress(pace_.job, work_ / kBlock, pace_.workTotal / kBlock);
}

}  // namespace metadisk
