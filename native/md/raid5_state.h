// What a RAID5 device remembers across its plans: the stripe cache, where the journal stands, and groups of writes
// that are on their way. One per device, on its owner thread; docs/raid5.md tells the life of a group.
//
// Invariants:
// - Groups are staged, written and committed one after another; in place they may be written side by side, because a
//   row is in one group at a time (Raid5Row::pins).
// - A record stands for each group whose space in the ring may not be used yet: all from `durableTail` on.
// - A group is written from the pages of its rows, which stay as they are until it is in place (Raid5Cache::own); its
//   own memory has the headers, and copies of what may not lie in the ring as it is (journal::Entry::flip).
// - Plans change with no Io in flight; a group then stays in its phase, and `todo` says for which columns.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "md/raid5_cache.h"
#include "md/raid5_journal.h"
#include "md/workbuffer.h"

namespace metadisk {

struct Raid5Options {
  std::size_t cacheBytes = 64UL * 1024 * 1024;
  // Of one group on one column; less when the ring is small.
  std::uint32_t groupBlocks = 2048;
  std::uint64_t ageNanos = 1'000'000'000;  // dirty rows are staged after so long
  bool journal = true;                     // false, for measuring its price: nothing is safe any more
};

// One group on its way: staged -> writing -> syncing -> placing -> idle.
struct Raid5Group {
  enum class Phase : std::uint8_t { idle, writing, syncing, placing };
  // Neighbouring bytes of one entry, as they go into the ring and into place.
  struct Piece {
    const std::byte* ring = nullptr;
    const std::byte* place = nullptr;
    std::size_t length = 0;
  };
  // Of a column; its header lies at headOf() and its pieces from piecesOf() on.
  struct Part {
    std::uint32_t blocks = 0;  // with the header
    std::uint32_t data = 0;    // blocks without
    std::uint32_t entries = 0;
    std::uint32_t pieces = 0;
    journal::Entry last;
  };

  Phase phase = Phase::idle;
  std::uint64_t sequence = 0;
  std::uint64_t tail = 0;
  std::uint64_t stamp = UINT64_MAX;  // the oldest of its rows
  std::uint32_t position = 0;
  std::uint32_t span = 0;
  ColumnSet mask = 0;
  ColumnSet todo = 0;    // of the phase
  ColumnSet failed = 0;  // of those whose Ios are back
  unsigned flying = 0;
  std::array<Part, 64> parts;
  std::vector<Piece> pieces;
  std::vector<Raid5Row*> rows;
  WorkBuffer arena;
  std::uint32_t columns = 0;
  std::uint32_t piecesMax = 0;  // of one column, and its entries
  std::size_t headMax = 0;      // bytes of one column's header
  std::size_t flipped = 0;      // bytes of the arena in use, behind the headers

  // Makes room for groups of `span` blocks on each of `columns`, of at most `runs` pieces. False: there is no memory.
  bool grow(HeldMemory& held, std::uint32_t columnCount, std::uint32_t spanMax, std::uint32_t runs) {
    if (arena.get() != nullptr && columns == columnCount) return arena.fresh();
    columns = columnCount;
    piecesMax = std::min(runs, spanMax);
    headMax = journal::headerBlocks(piecesMax) * std::size_t{journal::kBlock};
    const std::size_t bytes = columns * (headMax + std::size_t{spanMax} * journal::kBlock);
    if (!arena.make(held, (bytes + 4095) / 4096 * 4096)) return false;
    pieces.resize(std::size_t{columns} * piecesMax);
    return true;
  }
  void clear() noexcept {
    parts.fill({});
    rows.clear();
    stamp = UINT64_MAX;
    flipped = columns * headMax;
  }
  std::span<std::byte> headOf(std::uint32_t column) noexcept { return {arena.get() + column * headMax, headMax}; }
  Piece* piecesOf(std::uint32_t column) noexcept { return pieces.data() + std::size_t{column} * piecesMax; }
};

struct Raid5Record {
  std::uint64_t sequence = 0;
  std::uint64_t start = 0;  // blocks of all rings before it
  bool placed = false;
  ColumnSet unstable = 0;  // in place, but not synced since
  ColumnSet covered = 0;   // of those: a sync that covers it is under way
};

class Raid5Journal {
 public:
  static constexpr std::size_t kRecords = 128;

  void restart(std::uint32_t ringBlocks) noexcept {
    ring_ = ringBlocks;
    head_ = 0;
    next_ = durableTail_ = 1;
    first_ = count_ = 0;
  }
  std::uint32_t ringBlocks() const noexcept { return ring_; }
  // Blocks of one group, so that several have room.
  std::uint32_t spanMax() const noexcept { return (ring_ - 4) / 4; }

  // Whether a group of `span` blocks has room; one of a single block always leaves room for another one.
  bool fits(std::uint32_t span) const noexcept {
    if (count_ + (span > 1 ? 2U : 0U) >= kRecords) return false;
    const std::uint64_t end = startOf(span) + span + (span > 1 ? 2 : 0);
    return count_ == 0 ? end - head_ <= ring_ : end - records_[first_].start <= ring_;
  }
  // The sequence of the new group; its position is positionOf(record).
  Raid5Record& add(std::uint32_t span) noexcept {
    Raid5Record& record = records_[(first_ + count_++) % kRecords];
    record = {.sequence = next_++, .start = startOf(span)};
    head_ = record.start + span;
    return record;
  }
  std::uint32_t positionOf(const Raid5Record& record) const noexcept {
    return static_cast<std::uint32_t>(record.start % ring_);
  }
  Raid5Record* find(std::uint64_t sequence) noexcept {
    const std::uint64_t oldest = next_ - count_;
    return sequence >= oldest && sequence < next_ ? &records_[(first_ + (sequence - oldest)) % kRecords] : nullptr;
  }

  // The oldest group that may have to be carried out again.
  std::uint64_t tail(ColumnSet writable) const noexcept {
    for (std::size_t i = 0; i < count_; i++) {
      const Raid5Record& record = records_[(first_ + i) % kRecords];
      if (!record.placed || (record.unstable & writable) != 0) return record.sequence;
    }
    return next_;
  }
  std::uint64_t durableTail() const noexcept { return durableTail_; }
  // The newest group; 0: none in this epoch.
  std::uint64_t last() const noexcept { return next_ - 1; }
  // A group that carries this tail is on stable storage: what is older has given up its space.
  void tailDurable(std::uint64_t tail) noexcept {
    durableTail_ = tail;
    while (count_ > 0 && records_[first_].sequence < tail) {
      first_ = (first_ + 1) % kRecords;
      count_--;
    }
  }

  // Columns of groups that are in place and not synced.
  ColumnSet unstable() const noexcept {
    ColumnSet all = 0;
    for (std::size_t i = 0; i < count_; i++) {
      const Raid5Record& record = records_[(first_ + i) % kRecords];
      if (record.placed) all |= record.unstable;
    }
    return all;
  }
  // A sync of the column begins, or is over.
  void syncing(ColumnSet column) noexcept {
    each([&](Raid5Record& record) {
      if (record.placed) record.covered |= record.unstable & column;
    });
  }
  void synced(ColumnSet column, bool good) noexcept {
    each([&](Raid5Record& record) {
      if (good) record.unstable &= ~(record.covered & column);
      record.covered &= ~column;
    });
  }

 private:
  // A group does not go over the end of the ring.
  std::uint64_t startOf(std::uint32_t span) const noexcept {
    const std::uint64_t at = head_ % ring_;
    return at + span > ring_ ? head_ + ring_ - at : head_;
  }
  template <typename Visit>
  void each(Visit visit) noexcept {
    for (std::size_t i = 0; i < count_; i++) visit(records_[(first_ + i) % kRecords]);
  }

  std::uint32_t ring_ = 0;
  std::uint64_t head_ = 0;
  std::uint64_t next_ = 1;
  std::uint64_t durableTail_ = 1;
  std::array<Raid5Record, kRecords> records_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
};

struct Raid5State {
  Raid5Options options;
  std::uint64_t unit = 0;
  std::uint64_t epoch = 0;  // 0: no plan yet that may write
  std::unique_ptr<Raid5Cache> cache;
  Raid5Journal journal;
  std::array<Raid5Group, 3> groups;
  std::uint64_t lostRows = 0;
  // The cache holds what a replay would write, in rows that stay: nothing is written while it does.
  bool picture = false;
};

}  // namespace metadisk
