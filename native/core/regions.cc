#include "core/regions.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <utility>

namespace metadisk {

namespace {

// What a sequential writer may have marked in front of it: long enough to hide a commit, short enough
// that a crash does not copy much that nobody wrote.
constexpr std::uint64_t kAheadBytes = 32 * 1024 * 1024;
constexpr std::uint64_t kAheadRegions = 16;

std::uint32_t regionsOf(std::uint64_t bytes, unsigned shift) noexcept {
  return static_cast<std::uint32_t>((bytes + (std::uint64_t{1} << shift) - 1) >> shift);
}

}  // namespace

void Regions::Line::add(RegionWaiter& waiter) noexcept {
  waiter.after = nullptr;
  (head != nullptr ? tail->after : head) = &waiter;
  tail = &waiter;
}

RegionWaiter* Regions::Line::take() noexcept {
  RegionWaiter* const taken = head;
  if (taken != nullptr) head = taken->after;
  return taken;
}

Regions::Regions(std::uint64_t bytes, std::uint64_t regionBytes)
    : shift_(static_cast<unsigned>(std::countr_zero(regionBytes))),
      ahead_(static_cast<std::uint32_t>(std::clamp<std::uint64_t>(kAheadBytes >> shift_, 1, kAheadRegions))),
      words_(regionsOf(bytes, shift_), kClean) {
  wanted_.reserve(words_.size());
  out_.reserve(words_.size());
}

void Regions::load(const Bitmap& dirty) noexcept {
  for (std::uint32_t i = dirty.nextSet(0); i < std::min(dirty.size(), count()); i = dirty.nextSet(i + 1)) {
    set(i, kDirty, false);
  }
}

// Keeps the writes inside; all flags but the given ones go.
void Regions::set(std::uint32_t region, std::uint32_t state, bool stained) noexcept {
  std::uint32_t& word = words_[region];
  const bool before = (word & kState) != kClean || (word & kStained) != 0;
  const bool after = state != kClean || stained;
  soiled_ += static_cast<std::uint32_t>(after) - static_cast<std::uint32_t>(before);
  word = (word & kInside) | state | (stained ? kStained : 0);
}

// ---- writes

bool Regions::enterSlowly(RegionWaiter& waiter) noexcept {
  for (std::uint32_t i = waiter.first; i <= waiter.last; i++) {
    if ((words_[i] & kState) == kClean) want(i);
    words_[i] &= ~kAhead;
  }
  markAhead(waiter);
  if (allDirty(waiter)) return true;
  waiting_.add(waiter);
  return false;
}

bool Regions::allDirty(const RegionWaiter& waiter) const noexcept {
  for (std::uint32_t i = waiter.first; i <= waiter.last; i++) {
    if ((words_[i] & kState) != kDirty) return false;
  }
  return true;
}

void Regions::want(std::uint32_t region) noexcept {
  set(region, kMarking, (words_[region] & kStained) != 0);
  wanted_.push_back(region);
  if (wanted_.size() == 1 && hook_ != nullptr) hook_(hookOwner_);
}

// Written to, or about to be, since the last sweep.
bool Regions::used(std::uint32_t region) const noexcept {
  const std::uint32_t word = words_[region];
  if ((word & kState) == kMarking) return (word & kInside) != 0;
  return (word & (kState | kAhead | kIdle | kCandidate)) == 0;
}

// A run of used regions that ends in this write promises as many after it; they are asked for before the
// writer is there, in pieces that double, and early enough to be durable when it comes.
void Regions::markAhead(const RegionWaiter& waiter) noexcept {
  if (waiter.first == 0 || !used(waiter.first - 1)) return;
  std::uint32_t run = 0;
  while (run < ahead_ && run <= waiter.last && used(waiter.last - run)) run++;
  const std::uint32_t end = std::min(waiter.last + run, count() - 1);
  std::uint32_t at = waiter.last + 1;
  while (at <= end && ((words_[at] & kState) == kDirty || (words_[at] & kState) == kMarking)) at++;
  if (at - waiter.last > (run + 1) / 2) return;
  for (; at <= end; at++) {
    if ((words_[at] & kState) == kClean) want(at);
  }
}

RegionWaiter* Regions::handBack() noexcept {
  RegionWaiter* waiter = ready_.take();
  if (waiter == nullptr) waiter = waiting_.take();
  if (waiter == nullptr) return nullptr;
  if (waiter->error == 0) leave(*waiter);
  waiter->error = 0;
  return waiter;
}

// ---- tickets

RegionTicket Regions::takeMarks() {
  if (!wantsMarks()) return {};
  out_.swap(wanted_);
  std::sort(out_.begin(), out_.end());
  ticket_ = Ticket::marks;
  return {++lastTicket_, out_};
}

bool Regions::settle(std::uint64_t number, bool ok, int error) noexcept {
  if (ticket_ == Ticket::none || number != lastTicket_) return false;
  const bool marks = std::exchange(ticket_, Ticket::none) == Ticket::marks;
  for (const std::uint32_t i : out_) {
    const bool writers = (words_[i] & kInside) != 0;
    if (!marks) {
      set(i, kClean, !ok);
      if (writers) want(i);
    } else if (!ok) {
      set(i, kClean, true);
    } else {
      set(i, kDirty, false);
      if (!writers) words_[i] |= kAhead;
    }
  }
  out_.clear();
  idleFirst_ = marks && sweep_ == Sweep::flushed;
  wake(error);
  return true;
}

// In order of arrival: whoever has all its regions goes on, whoever has a refused one is told so.
void Regions::wake(int error) noexcept {
  Line stay;
  while (RegionWaiter* const waiter = waiting_.take()) {
    bool refused = false;
    for (std::uint32_t i = waiter->first; i <= waiter->last; i++) refused |= (words_[i] & kState) == kClean;
    waiter->error = refused ? error : 0;
    if (refused) leave(*waiter);
    (refused || allDirty(*waiter) ? ready_ : stay).add(*waiter);
  }
  waiting_ = stay;
  if (std::exchange(waking_, true)) return;
  while (RegionWaiter* const waiter = ready_.take()) waiter->granted(*waiter, std::exchange(waiter->error, 0));
  waking_ = false;
}

// ---- cleaning

void Regions::allowCleaning(bool allowed) noexcept {
  cleaning_ = allowed;
  if (!allowed) dropSweep();
}

void Regions::dropSweep() noexcept {
  for (std::uint32_t& word : words_) word &= ~kCandidate;
  // The flush under way still ends in flushed().
  sweep_ = sweep_ == Sweep::flushing || sweep_ == Sweep::abandoned ? Sweep::abandoned : Sweep::none;
  idleFirst_ = false;
}

bool Regions::sweep(bool atOnce) noexcept {
  if (!cleaning_ || sweep_ != Sweep::none) return false;
  bool found = false;
  for (std::uint32_t& word : words_) {
    const bool soiled = (word & kState) == kDirty || (word & (kState | kStained)) == (kClean | kStained);
    if (!soiled || (word & kInside) != 0) continue;
    const bool candidate = atOnce || (word & kIdle) != 0;
    word |= candidate ? kIdle | kCandidate : kIdle;
    found |= candidate;
  }
  if (found) sweep_ = Sweep::flushing;
  return found;
}

void Regions::flushed(bool ok) noexcept {
  if (sweep_ != Sweep::flushing || !ok) {
    if (sweep_ == Sweep::flushing) dropSweep();
    if (sweep_ == Sweep::abandoned) sweep_ = Sweep::none;
    return;
  }
  sweep_ = Sweep::flushed;
}

RegionTicket Regions::takeIdle() {
  if (!wantsIdle()) return {};
  sweep_ = Sweep::none;
  idleFirst_ = false;
  for (std::uint32_t i = 0; i < count(); i++) {
    if ((words_[i] & kCandidate) == 0) continue;
    out_.push_back(i);
    set(i, kClearing, false);
  }
  if (out_.empty()) return {};
  ticket_ = Ticket::idle;
  return {++lastTicket_, out_};
}

// ---- shape

Bitmap Regions::snapshot() const {
  Bitmap map(count());
  for (std::uint32_t i = 0; i < count(); i++) {
    if ((words_[i] & (kState | kStained)) != kClean) map.set(i);
  }
  return map;
}

// Whether nothing is inside, waiting or asked; what was only wanted is forgotten then.
bool Regions::quiet() noexcept {
  if (ticketOut() || anyWaiting()) return false;
  if (std::any_of(words_.begin(), words_.end(), [](std::uint32_t w) { return (w & kInside) != 0; })) return false;
  for (const std::uint32_t i : wanted_) set(i, kClean, (words_[i] & kStained) != 0);
  wanted_.clear();
  dropSweep();
  return true;
}

bool Regions::grow(std::uint64_t bytes, std::uint64_t regionBytes) {
  if (!quiet()) return false;
  const auto shift = static_cast<unsigned>(std::countr_zero(regionBytes));
  Regions next(bytes, regionBytes);
  for (std::uint32_t i = 0; i < count(); i++) {
    const bool dirty = (words_[i] & kState) == kDirty;
    if (!dirty && (words_[i] & kStained) == 0) continue;
    const std::uint64_t first = std::uint64_t{i} << shift_ >> shift;
    const std::uint64_t last = (((std::uint64_t{i} + 1) << shift_) - 1) >> shift;
    for (std::uint64_t j = first; j <= last && j < next.count(); j++) {
      const auto region = static_cast<std::uint32_t>(j);
      if (dirty) {
        next.set(region, kDirty, false);
      } else if ((next.words_[region] & kState) == kClean) {
        next.set(region, kClean, true);
      }
    }
  }
  shift_ = next.shift_;
  ahead_ = next.ahead_;
  soiled_ = next.soiled_;
  words_ = std::move(next.words_);
  wanted_ = std::move(next.wanted_);
  out_ = std::move(next.out_);
  return true;
}

bool Regions::doubt() noexcept {
  if (!quiet()) return false;
  for (std::uint32_t i = 0; i < count(); i++) {
    if ((words_[i] & kState) == kDirty) set(i, kClean, true);
  }
  return true;
}

}  // namespace metadisk
