// Where a mirror may be read (driver.md 2.5).
//
// A side is fast when it is readable and all its components are Okay: then policies choose among the
// fast sides and a request is not cut. Otherwise each piece of it has its best source, by classes:
//   1. an Okay component of a readable side that is not stale there, in slot order;
//   2. a Last Erred one, of several the one that erred last;
//   3. an Okay component of a readable side that is stale there: it holds every flushed block, only
//      what was in flight at a crash may differ from other sides;
//   4. any of these that is avoided: readable by the plan, but hung or not to be trusted just now.
// Invariants: nothing else is ever a source. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "md/stale.h"
#include "plan/plan.h"

namespace metadisk {

// Chooses among the fast sides by the mirror's policy.
class ReadBalance {
 public:
  // `sides`: one bit for each that may be chosen.
  ReadBalance(const MirrorNode& mirror, std::uint32_t sides) noexcept;

  // Changes only the round robin state. There must be a side.
  std::uint32_t choose(std::uint64_t offset, std::uint64_t length) noexcept;
  std::uint32_t count() const noexcept { return count_; }

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

class ReadSources {
 public:
  // `stale` may be null when no side is behind. All outlive this.
  ReadSources(const Plan& plan, const MirrorNode& mirror, const StaleSides* stale);

  // The side that answers the whole request, or -1: then piece by piece.
  int fast(std::uint64_t offset, std::uint64_t length) noexcept;
  // What fast() will say to the next call with the same range: together they are one read for the policy.
  int lookAhead(std::uint64_t offset, std::uint64_t length) noexcept;

  struct Source {
    int side = -1;             // -1: none
    std::uint64_t length = 0;  // how far from `offset` this holds, at most the length asked for
  };
  // In `tried`: only the first two classes will do.
  static constexpr std::uint32_t kInStep = 1U << 31;

  // Of the sides not in `tried` (one bit per side, by index).
  Source at(std::uint64_t offset, std::uint64_t length, std::uint32_t tried) const noexcept;
  // Whether every piece of the whole mirror has a source, without looking further.
  bool coverAll() const noexcept { return fast_ != 0; }
  // Whether every piece of the range has one.
  bool cover(std::uint64_t offset, std::uint64_t length, std::uint32_t tried) const noexcept;

  // Whether a side that may be read is stale somewhere in the range: sides may differ there.
  bool unsure(std::uint64_t offset, std::uint64_t length) const noexcept {
    return anyStale_ && unsureAt(offset, length);
  }
  // The same for this side.
  bool unsure(std::uint32_t side, std::uint64_t offset, std::uint64_t length) const noexcept {
    return mirror_.sides[side].readable && staleAt(mirror_.sides[side], offset, length);
  }

  // Whether everything in the range may be read from this side, and is neither stale nor avoided there.
  bool mayRead(std::uint32_t side, std::uint64_t offset, std::uint64_t length) const noexcept;
  // Whether it may be written there as well.
  bool mayMend(std::uint32_t side, std::uint64_t offset, std::uint64_t length) const noexcept;
  // Whether any side besides this one may be read somewhere.
  bool anyBesides(std::uint32_t side) const noexcept;

  // A component becomes, or is no more, the last thing to be asked.
  void avoid(std::uint32_t file, bool avoided);

 private:
  void recompute();
  // A choice made ahead of its read; no length: none.
  struct Ahead {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::uint32_t side = 0;
  };
  std::uint32_t choose(std::uint64_t offset, std::uint64_t length) noexcept;
  bool unsureAt(std::uint64_t offset, std::uint64_t length) const noexcept;
  bool fastSide(const MirrorSide& side) const noexcept;
  bool staleAt(const MirrorSide& side, std::uint64_t offset, std::uint64_t length) const noexcept {
    return side.stale && stale_ != nullptr && stale_->stale(side.slot, offset, length);
  }

  const Plan& plan_;
  const MirrorNode& mirror_;
  const StaleSides* stale_;
  bool anyStale_ = false;
  std::uint32_t fast_ = 0;  // one bit per side
  std::vector<bool> avoided_;
  std::optional<ReadBalance> balance_;
  Ahead ahead_;
};

}  // namespace metadisk
