// Which side of a mirror answers a read, and which writes must wait for each other (driver.md 2.5, 2.6).
//
// Invariants: ReadBalance answers only readable sides. OverlapList: of two overlapping ranges the one
// entered first is released first; active ranges never overlap. Both belong to one thread.
#pragma once

#include <array>
#include <cstdint>

#include "plan/plan.h"

namespace metadisk {

class ReadBalance {
 public:
  explicit ReadBalance(const MirrorNode& mirror) noexcept;

  // By the mirror's policy; changes only the round robin state.
  std::uint32_t choose(std::uint64_t offset, std::uint64_t length) noexcept;
  // A readable side not in the set `tried` (one bit per side), or -1.
  int other(std::uint32_t tried) const noexcept;
  std::uint32_t readableCount() const noexcept { return count_; }

 private:
  // Where a sequential reader is expected next, and the side that has been serving it.
  struct Stream {
    std::uint64_t end = UINT64_MAX;
    std::uint32_t side = 0;
  };
  std::uint32_t roundrobin(std::uint64_t offset, std::uint64_t length) noexcept;

  ReadPolicy policy_;
  std::uint32_t count_ = 0;
  std::array<std::uint32_t, 4> readable_{};
  std::uint64_t zone_ = 1;  // geometric: bytes per side
  std::uint32_t last_ = 0;  // index into readable_ of the last round robin choice
  std::uint32_t evict_ = 0;
  std::array<Stream, 8> streams_{};
};

// A range in an OverlapList; embedded in what waits.
struct OverlapEntry {
  std::uint64_t first = 0;
  std::uint64_t end = 0;
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
  void startAfter(const OverlapEntry& gone) noexcept;

  Chain active_;
  Chain waiting_;  // in order of arrival
  // Active already, start() still to be called. A queue, because start() may come back to leave():
  // recursion would be as deep as the line of waiters.
  OverlapEntry* startHead_ = nullptr;
  OverlapEntry* startTail_ = nullptr;
  bool starting_ = false;
};

}  // namespace metadisk
