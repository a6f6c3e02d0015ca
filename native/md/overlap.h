// Which writes to a mirror must wait for each other: a list of ranges (driver.md 2.6).
//
// Invariants: of two overlapping ranges the one entered first is released first; active ranges never
// overlap. One thread.
#pragma once

#include <cstdint>

namespace metadisk {

// A range in an OverlapList; embedded in what waits.
struct OverlapEntry {
  std::uint64_t first = 0;
  std::uint64_t end = 0;
  bool stays = false;  // the engine's own copying: never handed back
  OverlapEntry* before = nullptr;
  OverlapEntry* after = nullptr;
  OverlapEntry* toStart = nullptr;
  void (*start)(OverlapEntry&) noexcept = nullptr;  // called once, when the range is owned

  bool overlaps(const OverlapEntry& other) const noexcept { return first < other.end && other.first < end; }
};

class OverlapList {
 public:
  // Owns the range at once (start() is called before this returns) or when those before it left.
  void enter(OverlapEntry& entry) noexcept;
  // Ends the ownership and starts whoever waited for it alone.
  void leave(OverlapEntry& entry) noexcept;
  // Takes back an enter() whose range is not owned yet: start() will not be called. False: it is owned,
  // even if start() is still to come.
  bool withdraw(OverlapEntry& entry) noexcept;
  // Takes all that wait and do not stay out of the list, never to be started: linked by `after`, in order.
  OverlapEntry* handBack() noexcept;
  bool empty() const noexcept { return active_.head == nullptr && waiting_.head == nullptr; }
  bool anyWaiting() const noexcept { return waiting_.head != nullptr; }

 private:
  struct Chain {
    OverlapEntry* head = nullptr;
    OverlapEntry* tail = nullptr;
    void add(OverlapEntry& entry) noexcept;
    void remove(OverlapEntry& entry) noexcept;
    bool overlaps(const OverlapEntry& entry, const OverlapEntry* until) const noexcept;
  };
  void startFree(const OverlapEntry* behind) noexcept;

  Chain active_;
  Chain waiting_;  // in order of arrival
  // Active already, start() still to be called. A queue, because start() may come back to leave():
  // recursion would be as deep as the line of waiters.
  OverlapEntry* startHead_ = nullptr;
  OverlapEntry* startTail_ = nullptr;
  bool starting_ = false;
};

}  // namespace metadisk
