// The stripe cache of one RAID5 device: rows of pages, what is valid and what is dirty in them. No I/O.
//
// A row is what lies at one place of all columns (md/raid5.h); it has a cell for each column, parity included, and a
// cell may have a page. Of a data cell a valid sector is what the device holds there, a dirty one is not in the
// journal yet. Of the parity cell a valid sector is the parity of what was staged last, so it is never dirty.
// What is staged is written from the pages themselves: until it is in place nobody changes a staged sector of such a
// page, whoever wants to takes another page for the cell first (own()).
// Invariants: one thread; all memory is had at construction, but for pages instead of what the kernel holds; dirty
// implies valid; a row is in exactly one list, by state: free, clean (the least recently used first) or dirty (the
// oldest first); dirty rows whose data is dirty as a whole are in the list of full ones besides; a row goes only from
// the clean list, and not while it is busy, pinned or waited for. Of a dirty row the clean pages may go. Only pinned
// rows have staged pages.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include "core/heldmemory.h"
#include "md/raid5.h"

namespace metadisk {

struct Raid5Cell {
  std::byte* page = nullptr;
  std::byte* old = nullptr;     // scratch: what is in place of sectors that are dirty in `page`
  std::byte* staged = nullptr;  // what a group on its way is written from: `page`, or what that was before own()
  std::uint8_t valid = 0;       // one bit for each sector
  std::uint8_t dirty = 0;
  std::uint8_t want = 0;     // to be read into `page`
  std::uint8_t wantOld = 0;  // to be read into `old`
  std::uint8_t known = 0;    // of `staged`: what was valid when the group was made
};

struct Raid5Row {
  std::uint64_t key = 0;    // number of the row
  std::uint64_t stamp = 0;  // dirty: the device's count of changes when it became so
  std::uint64_t since = 0;  // dirty: nanoseconds
  std::uint64_t bad = 0;    // columns that could not be read here, one bit each
  Raid5Row* hashNext = nullptr;
  Raid5Row* before = nullptr;
  Raid5Row* after = nullptr;
  Raid5Row* fullBefore = nullptr;
  Raid5Row* fullAfter = nullptr;
  Raid5Cell* cells = nullptr;
  void* owner = nullptr;      // who holds it, when it is busy
  std::uint32_t waiters = 0;  // requests
  std::uint32_t pins = 0;     // groups that are not in place yet
  std::uint32_t wholes = 0;   // data cells that are dirty as a whole
  std::uint32_t regen = 0;    // while busy: the column that is computed from the others
  std::uint8_t regenMask = 0;
  std::uint8_t rebuilt = 0;  // while busy: sectors whose parity is computed from all data
  std::uint8_t mask = 0;     // all its sectors
  bool failed = false;       // while busy: a read failed
  bool alone = false;        // a read of it and its neighbours failed: it is read by itself
  bool busy = false;         // being filled or staged: nobody else may touch it
  bool lost = false;         // cannot be staged: too much of it cannot be read
  bool dirty = false;
  bool urgent = false;  // somebody waits for it to be staged
  bool stream = false;  // while pinned: it was full, so nobody is likely to need it soon
};

class Raid5Cache {
 public:
  // At least kLeastPages pages of `bytes`.
  Raid5Cache(const Raid5Shape& shape, std::size_t bytes);
  ~Raid5Cache();
  Raid5Cache(const Raid5Cache&) = delete;
  Raid5Cache& operator=(const Raid5Cache&) = delete;

  bool usable() const noexcept { return !blocks_.empty(); }
  // Who knows which pages the kernel holds, as long as it is used with these Ios, and after.
  void use(HeldMemory& kernel) noexcept { kernel_ = &kernel; }
  // More columns, everything else as it was: nothing is forgotten, and no page or row moves. False without memory.
  bool widen(const Raid5Shape& shape);
  const Raid5Shape& shape() const noexcept { return shape_; }

  bool empty() const noexcept { return used_ == 0; }
  Raid5Row* find(std::uint64_t key) noexcept {
    if (used_ == 0) return nullptr;
    Raid5Row* row = table_[slotOf(key)];
    while (row != nullptr && row->key != key) row = row->hashNext;
    return row;
  }
  // Finds or makes it; may drop a clean one. Null: all rows are in use.
  Raid5Row* obtain(std::uint64_t key) noexcept;
  // Gives a cell its page, or the scratch page; may drop what is clean, never of `row`. False: there is none.
  // A page that the kernel holds, because a column hangs, is left to it for another one.
  bool needPage(Raid5Row& row, Raid5Cell& cell) noexcept {
    if (cell.page == nullptr) return take(row, cell.page);
    return !kernelHas(cell.page) || leave(row, cell, 0);
  }
  bool needOld(Raid5Row& row, Raid5Cell& cell) noexcept {
    if (cell.old != nullptr && kernelHas(cell.old)) freePages_.push_back(std::exchange(cell.old, nullptr));
    return cell.old != nullptr || take(row, cell.old);
  }
  void dropOld(Raid5Row& row) noexcept;
  // Before `sectors` of the cell's page are changed: the page is the cell's alone from now on. False: there is none.
  bool own(Raid5Row& row, Raid5Cell& cell, std::uint8_t sectors) noexcept {
    const bool staged = cell.staged != nullptr && cell.staged == cell.page;
    return (!staged && !kernelHas(cell.page)) || leave(row, cell, sectors);
  }
  // A group is made of the cell's page; it is in place.
  void pin(Raid5Cell& cell) noexcept {
    cell.staged = cell.page;
    cell.known = cell.valid;
  }
  void unpin(Raid5Row& row) noexcept;
  // A clean row that nobody holds.
  void forget(Raid5Row& row) noexcept {
    if (!row.dirty && !held(row)) drop(row);
  }

  // The sectors were written by a client.
  void soil(Raid5Row& row, Raid5Cell& cell, std::uint8_t sectors, std::uint64_t now) noexcept;
  // What was dirty is staged: nothing is dirty any more.
  void clean(Raid5Row& row) noexcept;
  // It was used: of the clean ones it goes last.
  void touch(Raid5Row& row) noexcept;
  // Columns that could not be read may be other ones now.
  void forgive() noexcept {
    for (Raid5Row& row : rows_) row.bad = 0;
  }
  // What is clean and held by nobody is forgotten.
  void forgetClean() noexcept;

  std::uint64_t changes() const noexcept { return changes_; }
  Raid5Row* oldestDirty() const noexcept { return dirty_.head; }
  // In the order in which they became full; the next one is `fullAfter`.
  Raid5Row* oldestFull() const noexcept { return full_.head; }
  std::size_t fullRows() const noexcept { return fullRows_; }
  std::size_t pages() const noexcept { return pages_; }
  std::size_t dirtyPages() const noexcept { return dirtyPages_; }
  std::size_t freePages() const noexcept { return freePages_.size(); }
  std::size_t rowsUsed() const noexcept { return used_; }

  static constexpr std::size_t kLeastPages = 64;

 private:
  template <Raid5Row* Raid5Row::*before, Raid5Row* Raid5Row::*after>
  struct List {
    Raid5Row* head = nullptr;
    Raid5Row* tail = nullptr;
    void append(Raid5Row& row) noexcept {
      row.*before = tail;
      row.*after = nullptr;
      (tail != nullptr ? tail->*after : head) = &row;
      tail = &row;
    }
    void remove(Raid5Row& row) noexcept {
      (row.*before != nullptr ? row.*before->*after : head) = row.*after;
      (row.*after != nullptr ? row.*after->*before : tail) = row.*before;
      row.*before = row.*after = nullptr;
    }
  };
  using AgeList = List<&Raid5Row::before, &Raid5Row::after>;
  using FullList = List<&Raid5Row::fullBefore, &Raid5Row::fullAfter>;
  struct Block {
    std::byte* memory = nullptr;
    std::size_t bytes = 0;
  };

  std::size_t slotOf(std::uint64_t key) const noexcept {
    return static_cast<std::size_t>((key * 0x9e3779b97f4a7c15ULL) >> shift_);
  }
  static bool held(const Raid5Row& row) noexcept { return row.busy || row.pins != 0 || row.waiters != 0; }
  bool take(const Raid5Row& row, std::byte*& page) noexcept;
  bool leave(const Raid5Row& row, Raid5Cell& cell, std::uint8_t sectors) noexcept;
  bool kernelHas(const std::byte* page) const noexcept {
    return kernel_ != nullptr && kernel_->any() && kernel_->holds(page, Raid5Shape::kPage);
  }
  bool morePages(std::size_t pages);
  bool dropOne(const Raid5Row* except) noexcept;
  bool stripOne(const Raid5Row& except) noexcept;
  void drop(Raid5Row& row) noexcept;

  Raid5Shape shape_;
  std::size_t pages_;
  unsigned shift_ = 63;
  HeldMemory* kernel_ = nullptr;
  std::vector<Block> blocks_;
  std::vector<std::byte*> freePages_;
  std::vector<std::byte*> stuck_;  // free, but the kernel holds them
  std::vector<std::byte*> extra_;  // instead of those, and kept
  std::vector<Raid5Row> rows_;
  std::vector<Raid5Cell> cells_;
  std::vector<Raid5Row*> table_;
  Raid5Row* freeRows_ = nullptr;
  AgeList clean_;
  AgeList dirty_;
  FullList full_;
  std::size_t used_ = 0;
  std::size_t fullRows_ = 0;
  std::size_t dirtyPages_ = 0;
  std::uint64_t changes_ = 0;
};

}  // namespace metadisk
