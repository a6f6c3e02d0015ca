// How long the kernel may take, and what becomes of an Io that takes longer.
//
// A backend carries out its own copy of every Io (Outstanding) and forgets the caller's when it gives up: the
// caller is answered with -ETIMEDOUT and goes its way, the copy stays until the kernel has returned it, with its
// list of memory, its component's file and a hold on the payload. So nothing that the kernel may still touch can
// be used again, whatever the caller does next, and a late answer reaches nobody.
//
// States: waited for (caller set; in a lane, by age) -> ended, or -> given up (caller null) -> returned.
// Invariants: one thread, but for ComponentFile::abandoned, which all threads see. A component with anything given
// up is hung: everything in flight on it is given up at once, and nothing is started until all has come back. A lane
// holds what has the same limit (0: none), oldest first, so only heads are looked at. Age is of the call the kernel has
// now: what goes on in several calls, or waits for a buffer of the backend's own, is not late for that.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "io/backend.h"
#include "io/file.h"

namespace metadisk {

class Lane;

// One Io as the backend carries it out; embedded in the backend's pooled operation.
struct Outstanding {
  Io io;
  Io* caller = nullptr;
  void* operation = nullptr;  // the backend's, for whoever is given an Outstanding
  std::uint64_t since = 0;
  Lane* lane = nullptr;  // null: has no age
  Outstanding* older = nullptr;
  Outstanding* newer = nullptr;

  // Given up:
  std::shared_ptr<ComponentFile> file;
  std::vector<HeldMemory::Hold> holds;  // empty unless it was given up
  bool holding = false;

  // The copies of the caller's lists; made once per operation.
  std::unique_ptr<iovec[]> list;
  std::unique_ptr<std::uint64_t[]> offsets;
};

// By age, oldest first.
class Lane {
 public:
  explicit Lane(std::uint64_t limit = 0) noexcept : limit_(limit) {}
  Outstanding* oldest() const noexcept { return head_; }
  std::uint64_t limit() const noexcept { return limit_; }
  void append(Outstanding& o) noexcept;
  void remove(Outstanding& o) noexcept;

 private:
  std::uint64_t limit_;  // nanoseconds
  Outstanding* head_ = nullptr;
  Outstanding* tail_ = nullptr;
};

class Limits {
 public:
  explicit Limits(HeldMemory& memory) noexcept;
  Limits(const Limits&) = delete;
  Limits& operator=(const Limits&) = delete;

  // Nothing may be started on a component that hangs.
  static bool refuses(const ComponentFile& file) noexcept {
    return file.abandoned.load(std::memory_order_relaxed) != 0;
  }

  // Monotonic nanoseconds; before anything is begun, and at least once per turn of the loop.
  void setTime(std::uint64_t now) noexcept { now_ = now; }
  // look() is due.
  bool due() const noexcept { return now_ >= nextLook_; }
  // When the thread must be awake for that; UINT64_MAX: nothing has an age.
  std::uint64_t wakeAt() const noexcept;

  // Copies the Io; from now on `o.io` is what is carried out.
  void begin(Outstanding& o, Io& caller) noexcept;
  // The kernel gets another call of this operation.
  void restart(Outstanding& o) noexcept {
    if (o.since != now_ || o.lane == nullptr) age(o);
  }
  // It waits for something that is not its component's.
  void suspend(Outstanding& o) noexcept {
    if (o.lane != nullptr) o.lane->remove(o);
  }
  // The kernel has nothing more of it. Who waits for the answer; null: it was given up.
  Io* end(Outstanding& o) noexcept {
    if (o.caller == nullptr) [[unlikely]] {
      returned(o);
      return nullptr;
    }
    if (o.lane != nullptr) o.lane->remove(o);
    return o.caller;
  }

  // Gives up what is too old. withdraw(operation) is asked for each of those: true when the kernel never had it, and
  // the operation is over; otherwise abandoned(operation) follows. Then all callers are answered.
  template <typename Withdraw, typename Abandoned>
  void look(Withdraw withdraw, Abandoned abandoned) noexcept {
    findLate();
    giveUp(withdraw, abandoned);
  }
  // The same for everything, whatever its age.
  template <typename Withdraw, typename Abandoned>
  void giveUpAll(Withdraw withdraw, Abandoned abandoned) noexcept {
    findAll();
    giveUp(withdraw, abandoned);
  }
  // Given up and not returned.
  unsigned abandoned() const noexcept { return abandoned_; }

 private:
  void age(Outstanding& o) noexcept;
  void doom(Outstanding& o) noexcept;
  void doomComponent(const ComponentFile* file) noexcept;
  void doomHung() noexcept;
  void findLate() noexcept;
  void findAll() noexcept;
  void abandon(Outstanding& o) noexcept;
  void returned(Outstanding& o) noexcept;
  void answer() noexcept;
  Lane& laneOf(std::uint64_t limit) noexcept;

  template <typename Withdraw, typename Abandoned>
  void giveUp(Withdraw withdraw, Abandoned abandoned) noexcept;

  HeldMemory& memory_;
  std::uint64_t now_ = 0;
  std::uint64_t nextLook_ = 0;
  std::uint64_t interval_;
  std::uint32_t seen_ = 0;  // of the hangs that threads tell each other about
  unsigned abandoned_ = 0;
  std::vector<std::unique_ptr<Lane>> lanes_;  // one per limit; usually one
  Lane doomed_;
  std::vector<Io*> unanswered_;
};

template <typename Withdraw, typename Abandoned>
void Limits::giveUp(Withdraw withdraw, Abandoned abandoned) noexcept {
  while (Outstanding* const o = doomed_.oldest()) {
    doomed_.remove(*o);
    Io* const caller = o->caller;
    unanswered_.push_back(caller);
    if (withdraw(o->operation)) continue;
    abandon(*o);
    caller->held = o->holding;
    abandoned(o->operation);
  }
  answer();
}

}  // namespace metadisk
