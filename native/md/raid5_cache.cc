#include "md/raid5_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace metadisk {

namespace {

constexpr std::size_t kHuge = std::size_t{2} << 20U;

}  // namespace

Raid5Cache::Raid5Cache(const Raid5Shape& shape, std::size_t bytes)
    : shape_(shape), pages_(std::max(bytes / Raid5Shape::kPage, kLeastPages + 2 * shape.columns())) {
  const std::size_t pages = std::exchange(pages_, 0);
  if (!morePages(pages)) return;
  rows_.resize(pages_);
  cells_.resize(pages_ * shape.columns());
  for (std::size_t i = pages_; i-- > 0;) {
    rows_[i].cells = cells_.data() + i * shape.columns();
    rows_[i].after = freeRows_;
    freeRows_ = &rows_[i];
  }
  const std::size_t slots = std::bit_ceil(pages_);
  table_.resize(slots);
  shift_ = 64 - static_cast<unsigned>(std::countr_zero(slots));
}

Raid5Cache::~Raid5Cache() {
  for (const Block& block : blocks_) {
    kernel_ != nullptr ? kernel_->retire(block.memory, block.bytes) : std::free(block.memory);
  }
  for (std::byte* const page : extra_) kernel_->retire(page, Raid5Shape::kPage);
}

bool Raid5Cache::morePages(std::size_t pages) {
  const std::size_t bytes = pages * Raid5Shape::kPage;
  blocks_.reserve(blocks_.size() + 1);
  freePages_.reserve(2 * (pages_ + pages));
  stuck_.reserve(2 * (pages_ + pages));
  extra_.reserve(pages_ + pages);
  const std::size_t align = bytes < kHuge ? Raid5Shape::kPage : kHuge;
  auto* const memory = static_cast<std::byte*>(std::aligned_alloc(align, (bytes + align - 1) / align * align));
  if (memory == nullptr) return false;
  // Its pages are used in no order: with small mappings each use would miss the TLB. A hint.
  if (align == kHuge) ::madvise(memory, bytes, MADV_HUGEPAGE);
  blocks_.push_back({memory, bytes});
  for (std::size_t i = pages; i-- > 0;) freePages_.push_back(memory + i * Raid5Shape::kPage);
  pages_ += pages;
  return true;
}

bool Raid5Cache::widen(const Raid5Shape& shape) {
  const std::size_t before = shape_.columns();
  const std::size_t columns = shape.columns();
  const std::size_t least = kLeastPages + 2 * columns;
  if (pages_ < least && !morePages(least - pages_)) return false;
  std::vector<Raid5Cell> cells(rows_.size() * columns);
  for (std::size_t i = 0; i < rows_.size(); i++) {
    std::copy_n(rows_[i].cells, before, cells.data() + i * columns);
    rows_[i].cells = cells.data() + i * columns;
  }
  cells_.swap(cells);
  // Of a row that was full the new columns are not.
  while (Raid5Row* const row = full_.head) full_.remove(*row);
  fullRows_ = 0;
  shape_ = shape;
  return true;
}

Raid5Row* Raid5Cache::obtain(std::uint64_t key) noexcept {
  if (Raid5Row* const row = find(key); row != nullptr) return row;
  if (freeRows_ == nullptr && !dropOne(nullptr)) return nullptr;
  Raid5Row& row = *freeRows_;
  freeRows_ = row.after;
  row.key = key;
  row.mask = shape_.rowMask(key);
  row.bad = 0;
  row.stamp = row.since = 0;
  row.wholes = 0;
  row.busy = row.dirty = row.urgent = row.failed = row.alone = row.lost = row.stream = false;
  row.hashNext = table_[slotOf(key)];
  table_[slotOf(key)] = &row;
  clean_.append(row);
  used_++;
  return &row;
}

bool Raid5Cache::take(const Raid5Row& row, std::byte*& page) noexcept {
  if (!stuck_.empty() && !kernel_->any()) {
    freePages_.insert(freePages_.end(), stuck_.begin(), stuck_.end());
    stuck_.clear();
  }
  do {
    while (!freePages_.empty()) {
      // `page` is a cell's: it is no page's second owner when there is none after all.
      std::byte* const free = freePages_.back();
      freePages_.pop_back();
      if (!kernelHas(free)) {
        page = free;
        return true;
      }
      stuck_.push_back(free);
    }
  } while (dropOne(&row) || stripOne(row));
  // Others must not wait for a column that hangs.
  if (extra_.size() >= stuck_.size()) return false;
  auto* const more = static_cast<std::byte*>(std::aligned_alloc(Raid5Shape::kPage, Raid5Shape::kPage));
  if (more == nullptr) return false;
  extra_.push_back(more);
  page = more;
  return true;
}

// What is valid goes along, but for `sectors`. Where the page is staged it stays until that is in place.
bool Raid5Cache::leave(const Raid5Row& row, Raid5Cell& cell, std::uint8_t sectors) noexcept {
  std::byte* page = nullptr;
  if (!take(row, page)) return false;
  if ((cell.valid & ~sectors) != 0) std::memcpy(page, cell.page, Raid5Shape::kPage);
  if (cell.staged != cell.page) freePages_.push_back(cell.page);
  cell.page = page;
  return true;
}

void Raid5Cache::unpin(Raid5Row& row) noexcept {
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    Raid5Cell& cell = row.cells[c];
    if (cell.staged != nullptr && cell.staged != cell.page) freePages_.push_back(cell.staged);
    cell.staged = nullptr;
  }
}

void Raid5Cache::dropOld(Raid5Row& row) noexcept {
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    if (row.cells[c].old == nullptr) continue;
    freePages_.push_back(row.cells[c].old);
    row.cells[c].old = nullptr;
  }
}

// Held rows are moved behind, so that they are not looked at again and again.
bool Raid5Cache::dropOne(const Raid5Row* except) noexcept {
  Raid5Row* const last = clean_.tail;
  for (Raid5Row* row = clean_.head; row != nullptr;) {
    Raid5Row* const next = row == last ? nullptr : row->after;
    if (row != except && !held(*row)) {
      drop(*row);
      return true;
    }
    clean_.remove(*row);
    clean_.append(*row);
    row = next;
  }
  return false;
}

// Takes the clean pages of a dirty row: else rows that are written again and again would come to hold everything.
bool Raid5Cache::stripOne(const Raid5Row& except) noexcept {
  for (Raid5Row* row = dirty_.tail; row != nullptr; row = row->before) {
    if (row == &except || held(*row)) continue;
    const std::size_t before = freePages_.size();
    for (std::uint32_t c = 0; c < shape_.columns(); c++) {
      Raid5Cell& cell = row->cells[c];
      if (cell.page == nullptr || cell.dirty != 0) continue;
      freePages_.push_back(cell.page);
      cell = {};
    }
    if (freePages_.size() > before) return true;
  }
  return false;
}

void Raid5Cache::drop(Raid5Row& row) noexcept {
  clean_.remove(row);
  Raid5Row** at = &table_[slotOf(row.key)];
  while (*at != &row) at = &(*at)->hashNext;
  *at = row.hashNext;
  dropOld(row);
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    if (row.cells[c].page != nullptr) freePages_.push_back(row.cells[c].page);
    row.cells[c] = {};
  }
  row.after = freeRows_;
  freeRows_ = &row;
  used_--;
}

void Raid5Cache::soil(Raid5Row& row, Raid5Cell& cell, std::uint8_t sectors, std::uint64_t now) noexcept {
  changes_++;
  if (!row.dirty) {
    row.dirty = true;
    row.stamp = changes_;
    row.since = now;
    clean_.remove(row);
    dirty_.append(row);
  }
  if (cell.dirty == 0) dirtyPages_++;
  const bool whole = cell.dirty == row.mask;
  cell.dirty |= sectors;
  cell.valid |= sectors;
  if (whole || cell.dirty != row.mask || ++row.wholes + 1 != shape_.columns()) return;
  full_.append(row);
  fullRows_++;
}

void Raid5Cache::clean(Raid5Row& row) noexcept {
  if (!row.dirty) return;
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    if (row.cells[c].dirty != 0) dirtyPages_--;
    row.cells[c].dirty = 0;
  }
  if (row.wholes + 1 == shape_.columns()) {
    full_.remove(row);
    fullRows_--;
  }
  row.wholes = 0;
  row.dirty = row.urgent = false;
  dirty_.remove(row);
  clean_.append(row);
}

void Raid5Cache::touch(Raid5Row& row) noexcept {
  if (row.dirty || clean_.tail == &row) return;
  clean_.remove(row);
  clean_.append(row);
}

void Raid5Cache::forgetClean() noexcept {
  for (Raid5Row* row = clean_.head; row != nullptr;) {
    Raid5Row* const next = row->after;
    if (!held(*row)) drop(*row);
    row = next;
  }
}

}  // namespace metadisk
