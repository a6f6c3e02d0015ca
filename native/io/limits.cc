#include "io/limits.h"

#include <algorithm>
#include <cerrno>

#include "io/buffers.h"

namespace metadisk {

namespace {

constexpr std::uint64_t kMillis = 1'000'000;
// Between two looks; a fraction of the limit when that is less.
constexpr std::uint64_t kLookMost = 250 * kMillis;
constexpr std::uint64_t kLookLeast = 5 * kMillis;
// What others get that may have waited behind a component that hangs; a fraction of the limit when that is less.
constexpr std::uint64_t kGrace = 2'000 * kMillis;

// How often a component began to hang, on any thread: the others then give up what they have on it.
std::atomic<std::uint32_t> hangs{0};

}  // namespace

void Lane::append(Outstanding& o) noexcept {
  o.lane = this;
  o.newer = nullptr;
  o.older = tail_;
  (tail_ != nullptr ? tail_->newer : head_) = &o;
  tail_ = &o;
}

void Lane::remove(Outstanding& o) noexcept {
  (o.older != nullptr ? o.older->newer : head_) = o.newer;
  (o.newer != nullptr ? o.newer->older : tail_) = o.older;
  o.lane = nullptr;
}

Limits::Limits(HeldMemory& memory) noexcept
    : memory_(memory), interval_(kLookMost), seen_(hangs.load(std::memory_order_relaxed)) {}

std::uint64_t Limits::wakeAt() const noexcept {
  const bool any = std::any_of(lanes_.begin(), lanes_.end(),
                               [](const auto& lane) { return lane->limit() != 0 && lane->oldest() != nullptr; });
  return any ? nextLook_ : UINT64_MAX;
}

void Limits::begin(Outstanding& o, Io& caller) noexcept {
  o.io = caller;
  if (caller.iov != nullptr) {
    if (o.list == nullptr) o.list = std::make_unique_for_overwrite<iovec[]>(kIovecsMax);
    std::copy_n(caller.iov, caller.iovCount, o.list.get());
    o.io.iov = o.list.get();
  }
  if (caller.offsets != nullptr) {
    if (o.offsets == nullptr) o.offsets = std::make_unique_for_overwrite<std::uint64_t[]>(kIovecsMax);
    std::copy_n(caller.offsets, caller.iovCount, o.offsets.get());
    o.io.offsets = o.offsets.get();
  }
  o.caller = &caller;
  age(o);
}

void Limits::age(Outstanding& o) noexcept {
  const std::uint64_t limit = o.io.file->limitNanos.load(std::memory_order_relaxed);
  if (o.lane != nullptr) o.lane->remove(o);
  o.since = now_;
  laneOf(limit).append(o);
}

Lane& Limits::laneOf(std::uint64_t limit) noexcept {
  for (const auto& lane : lanes_) {
    if (lane->limit() == limit) return *lane;
  }
  if (limit != 0) interval_ = std::min(interval_, std::clamp(limit / 8, kLookLeast, kLookMost));
  nextLook_ = std::min(nextLook_, now_ + interval_);
  return *lanes_.emplace_back(std::make_unique<Lane>(limit));
}

void Limits::doom(Outstanding& o) noexcept {
  o.lane->remove(o);
  doomed_.append(o);
}

// What hangs may have held up the others, in threads or buffers that all share: they get a while more.
void Limits::doomComponent(const ComponentFile* file) noexcept {
  for (const auto& lane : lanes_) {
    const std::uint64_t used = lane->limit() - std::min(lane->limit() / 4, kGrace);
    for (Outstanding* o = lane->oldest(); o != nullptr;) {
      Outstanding* const newer = o->newer;
      if (o->io.file == file) {
        doom(*o);
      } else if (now_ > used) {
        o->since = std::max(o->since, now_ - used);
      }
      o = newer;
    }
  }
}

void Limits::doomHung() noexcept {
  for (const auto& lane : lanes_) {
    for (Outstanding* o = lane->oldest(); o != nullptr;) {
      Outstanding* const newer = o->newer;
      if (refuses(*o->io.file)) doom(*o);
      o = newer;
    }
  }
}

void Limits::findLate() noexcept {
  nextLook_ = now_ + interval_;
  const std::uint32_t told = hangs.load(std::memory_order_acquire);
  if (told != seen_) {
    seen_ = told;
    doomHung();
  }
  for (const auto& lane : lanes_) {
    while (lane->limit() != 0 && lane->oldest() != nullptr && now_ - lane->oldest()->since >= lane->limit())
      doomComponent(lane->oldest()->io.file);
  }
}

void Limits::findAll() noexcept {
  for (const auto& lane : lanes_) {
    while (lane->oldest() != nullptr) doom(*lane->oldest());
  }
}

void Limits::abandon(Outstanding& o) noexcept {
  const Io& io = o.io;
  o.caller = nullptr;
  o.file = io.file->weak_from_this().lock();
  if ((io.op == IoOp::read || io.op == IoOp::write) && io.length > 0) {
    const iovec one{io.data, io.length};
    // Each piece by itself: between pages from all over a cache lies most of the cache, and others need that.
    for (const iovec& v : memory(io, one))
      o.holds.push_back(memory_.hold(static_cast<const std::byte*>(v.iov_base), v.iov_len));
    o.holding = true;
  }
  ++abandoned_;
  if (io.file->abandoned.fetch_add(1, std::memory_order_acq_rel) == 0) hangs.fetch_add(1, std::memory_order_release);
}

void Limits::returned(Outstanding& o) noexcept {
  for (const HeldMemory::Hold& hold : o.holds) memory_.release(hold);
  o.holds.clear();
  o.holding = false;
  --abandoned_;
  o.io.file->abandoned.fetch_sub(1, std::memory_order_acq_rel);
}

// Only now: a caller may start anything, and what hangs must be refused by then.
void Limits::answer() noexcept {
  for (std::size_t i = 0; i < unanswered_.size(); i++) {
    Io& io = *unanswered_[i];
    io.result = -ETIMEDOUT;
    io.complete(io);
  }
  unanswered_.clear();
}

}  // namespace metadisk
