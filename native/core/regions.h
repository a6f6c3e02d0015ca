// The dirty region log of one mirror, without its I/O: which regions the state database knows to be
// dirty, which writes must wait for it, and when a region may be called clean again (driver.md 2.8).
//
// States of a region: clean; marking (asked for, not yet durable); dirty (durably so: writes go on);
// clearing (asked to be called clean: writes wait and mark it again).
// Invariants:
// - A write that was let through has all its regions dirty, until leave().
// - A region leaves `dirty` only with no write inside, and only if nothing touched it since before a
//   flush of every component that has succeeded; the flush begins when two sweeps saw it untouched.
// - One ticket is out at a time, so the database sees changes in the order they are made here.
// - What became of a refused ticket is unknown: its regions count as clean for writers (they mark
//   again) and as dirty for the sweep and for snapshot().
// - One thread. No allocation after construction but in takeMarks(), takeIdle(), snapshot(), grow().
#pragma once

#include <cstdint>
#include <vector>

#include "core/bitmap.h"

namespace metadisk {

// A write's place in the log; embedded in what waits.
struct RegionWaiter {
  std::uint32_t first = 0;  // regions, both included
  std::uint32_t last = 0;
  int error = 0;
  RegionWaiter* after = nullptr;
  // Called once if enter() answered false. 0: let through, as if enter() had answered true. An errno:
  // the mark failed and the waiter has left already.
  void (*granted)(RegionWaiter&, int error) noexcept = nullptr;
};

struct RegionTicket {
  std::uint64_t number = 0;            // 0: none
  std::vector<std::uint32_t> regions;  // ascending
};

class Regions {
 public:
  // `bytes`: size of the device; `regionBytes`: a power of two. All regions are clean.
  Regions(std::uint64_t bytes, std::uint64_t regionBytes);
  Regions(const Regions&) = delete;
  Regions& operator=(const Regions&) = delete;

  // Called whenever a ticket is wanted that was not before: takeMarks() is due when none is out.
  void whenWanted(void (*hook)(void*) noexcept, void* owner) noexcept {
    hook_ = hook;
    hookOwner_ = owner;
  }
  // What the database holds; before the first write.
  void load(const Bitmap& dirty) noexcept;

  // ---- writes. [offset, offset + length) in bytes, not empty, inside the device.

  // True: go on. False: granted() follows. leave() when the write is over, either way.
  bool enter(RegionWaiter& waiter, std::uint64_t offset, std::uint64_t length) noexcept {
    waiter.first = static_cast<std::uint32_t>(offset >> shift_);
    waiter.last = static_cast<std::uint32_t>((offset + length - 1) >> shift_);
    std::uint32_t seen = 0;
    for (std::uint32_t i = waiter.first; i <= waiter.last; i++) {
      const std::uint32_t word = words_[i];
      seen |= word;
      words_[i] = (word & ~(kIdle | kCandidate)) + 1;
    }
    return (seen & (kState | kAhead)) == 0 || enterSlowly(waiter);
  }
  void leave(const RegionWaiter& waiter) noexcept {
    for (std::uint32_t i = waiter.first; i <= waiter.last; i++) words_[i]--;
  }
  // The waiter that came first leaves and is handed back, never to be granted; null when none waits.
  RegionWaiter* handBack() noexcept;
  bool anyWaiting() const noexcept { return waiting_.head != nullptr || ready_.head != nullptr; }

  // ---- tickets: take one, have the database follow, settle it.

  bool ticketOut() const noexcept { return ticket_ != Ticket::none; }
  // Whether takeMarks() would answer one.
  bool wantsMarks() const noexcept { return ticket_ == Ticket::none && !wanted_.empty() && !idleFirst_; }
  // Regions to be made durably dirty.
  RegionTicket takeMarks();
  // The answer to the ticket that is out. `error` (an errno) is what refused waiters get. False: no such ticket.
  bool settle(std::uint64_t number, bool ok, int error) noexcept;

  // ---- cleaning. sweep() at intervals; when it says so: flush every component, then flushed().

  // While false nothing is swept and a sweep under way comes to nothing: a side is not in step, a hold is out.
  void allowCleaning(bool allowed) noexcept;
  // True: some regions have been untouched since the sweep before (`atOnce`: are untouched now); flush and
  // call flushed(). Always false between that and the end of it.
  bool sweep(bool atOnce) noexcept;
  // The flush that followed sweep() is over.
  void flushed(bool ok) noexcept;
  // Whether takeIdle() would answer one.
  bool wantsIdle() const noexcept { return ticket_ == Ticket::none && sweep_ == Sweep::flushed; }
  // Regions to be called clean; maybe none, then the sweep is over and there is no ticket.
  RegionTicket takeIdle();
  // Whether a sweep could ever find something.
  bool anyToClean() const noexcept { return cleaning_ && soiled_ > 0; }

  // ---- shape

  std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(words_.size()); }
  std::uint64_t regionBytes() const noexcept { return std::uint64_t{1} << shift_; }
  // Every region that is not known to be clean.
  Bitmap snapshot() const;
  // More regions, larger ones, or both. False while a ticket is out or any write is inside or waiting.
  bool grow(std::uint64_t bytes, std::uint64_t regionBytes);
  // The log was out of use for a while: nothing is certain any more, everything must be marked again.
  // False while a ticket is out or any write is inside or waiting.
  bool doubt() noexcept;

 private:
  // A word per region: the writes inside in the low bits, then the state and flags. A dirty region
  // has no state bit, so that the common write tests nothing else.
  static constexpr std::uint32_t kInside = (1U << 24U) - 1;
  static constexpr std::uint32_t kDirty = 0;
  static constexpr std::uint32_t kClean = 1U << 24U;
  static constexpr std::uint32_t kMarking = 2U << 24U;
  static constexpr std::uint32_t kClearing = 3U << 24U;
  static constexpr std::uint32_t kState = 3U << 24U;
  static constexpr std::uint32_t kAhead = 1U << 26U;      // dirty, marked ahead of a writer that has not come yet
  static constexpr std::uint32_t kIdle = 1U << 27U;       // untouched since the last sweep
  static constexpr std::uint32_t kCandidate = 1U << 28U;  // untouched since before the flush under way
  static constexpr std::uint32_t kStained = 1U << 29U;    // not dirty here, but the database may say so

  enum class Ticket : std::uint8_t { none, marks, idle };
  enum class Sweep : std::uint8_t { none, flushing, abandoned, flushed };
  struct Line {
    RegionWaiter* head = nullptr;
    RegionWaiter* tail = nullptr;
    void add(RegionWaiter& waiter) noexcept;
    RegionWaiter* take() noexcept;
  };

  bool enterSlowly(RegionWaiter& waiter) noexcept;
  bool allDirty(const RegionWaiter& waiter) const noexcept;
  void want(std::uint32_t region) noexcept;
  void markAhead(const RegionWaiter& waiter) noexcept;
  bool used(std::uint32_t region) const noexcept;
  void set(std::uint32_t region, std::uint32_t state, bool stained) noexcept;
  void wake(int error) noexcept;
  bool quiet() noexcept;
  void dropSweep() noexcept;

  unsigned shift_;
  std::uint32_t ahead_;  // regions marked ahead of a sequential writer, at most
  std::vector<std::uint32_t> words_;
  std::uint32_t soiled_ = 0;  // not known to be clean
  bool cleaning_ = true;
  bool idleFirst_ = false;  // marks have been served since the sweep's flush: its ticket is next
  bool waking_ = false;
  Sweep sweep_ = Sweep::none;
  Ticket ticket_ = Ticket::none;
  std::uint64_t lastTicket_ = 0;
  void (*hook_)(void*) noexcept = nullptr;
  void* hookOwner_ = nullptr;
  std::vector<std::uint32_t> wanted_;  // marking, for the next ticket
  std::vector<std::uint32_t> out_;     // of the ticket that is out
  Line waiting_;                       // in order of arrival
  Line ready_;                         // granted, granted() still to be called
};

}  // namespace metadisk
