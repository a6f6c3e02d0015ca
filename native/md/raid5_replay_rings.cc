// What a replay reads of the rings: all of it for headers, then the parts of groups. A block that cannot be read is
// looked for by halves, and is zeroes from then on.
#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "md/raid5_replay.h"

namespace metadisk {

namespace {

constexpr std::uint64_t kBlock = journal::kBlock;
constexpr unsigned kProbes = 3;

}  // namespace

void Raid5Replay::want(std::uint32_t c, std::uint32_t block, std::uint32_t blocks) noexcept {
  Column& column = columns_[c];
  column.base = column.next = block;
  column.end = block + blocks;
}

// Reads the next stretch of what is wanted. False: all of it is in memory.
bool Raid5Replay::readOn(std::uint32_t c) noexcept {
  Column& column = columns_[c];
  auto bad = std::lower_bound(column.bad.begin(), column.bad.end(), column.next);
  for (; bad != column.bad.end() && *bad == column.next && column.next < column.end; ++bad) {
    std::memset(column.memory.get() + (column.next++ - column.base) * kBlock, 0, kBlock);
  }
  if (column.next >= column.end) return false;
  const std::uint32_t end = bad != column.bad.end() ? std::min(*bad, column.end) : column.end;
  column.step = std::min(column.most, end - column.next);
  io(c, IoOp::read, node_.columns[c].prewrite + (1 + column.next) * kBlock, column.step * kBlock,
     column.memory.get() + (column.next - column.base) * kBlock);
  return true;
}

void Raid5Replay::readWell(std::uint32_t c) noexcept {
  Column& column = columns_[c];
  column.alive = true;
  column.probes = 0;
  if (std::exchange(column.probing, false)) return;
  column.next += column.step;
  column.most = std::min(kChunk, 2 * column.most);
}

// A read of the ring, or a probe, failed. False: it is more than a block that went bad.
bool Raid5Replay::bears(const Child& child) noexcept {
  Column& column = columns_[child.column];
  if (!journal::isBadBlock(-child.result)) return false;
  if (std::exchange(column.probing, false)) return ++column.probes < kProbes;
  column.alive = false;
  column.most = std::max(1U, column.step / 2);
  if (column.step > 1) return true;
  if (column.bad.size() == kBadMost) return false;
  const auto at = std::lower_bound(column.bad.begin(), column.bad.end(), column.next);
  // Neighbours are one defect.
  const bool neighbour = at != column.bad.begin() && *(at - 1) + 1 == column.next;
  column.bad.insert(at, column.next);
  if (!neighbour) tell(child.column, ComponentOp::read, child.offset, -child.result, true);
  return true;
}

void Raid5Replay::scan(std::uint32_t c) noexcept {
  Column& column = columns_[c];
  if (column.position >= ring_) return probe(c);
  column.blocks = std::min(kChunk, ring_ - column.position);
  want(c, column.position, column.blocks);
  if (!readOn(c)) scanned(c);
}

void Raid5Replay::scanned(std::uint32_t c) noexcept {
  Column& column = columns_[c];
  if (column.position >= ring_) return probe(c);
  if (readOn(c)) return;
  const journal::Place place = placeOf(c);
  std::uint32_t b = 0;
  for (; b < column.blocks; b++) {
    const std::span<const std::byte> bytes(column.memory.get() + b * kBlock, (column.blocks - b) * kBlock);
    journal::Header header;
    const journal::Reading reading = journal::read(bytes, place, column.position + b, header);
    // Read again from there, unless that would bring no more.
    if (reading == journal::Reading::cut && b > 0 && column.position + column.blocks < ring_) break;
    if (reading == journal::Reading::found) headers_.push_back(header);
  }
  column.position += b;
  scan(c);
}

// A disk that is gone has no bad blocks: something of it must be readable after the last one.
void Raid5Replay::probe(std::uint32_t c) noexcept {
  Column& column = columns_[c];
  if (column.alive) return;
  const Raid5Column& place = node_.columns[c];
  const std::array<std::uint64_t, kProbes> offsets{place.prewrite, place.start,
                                                   place.start + node_.segment * node_.lines - kBlock};
  column.probing = true;
  io(c, IoOp::read, offsets[column.probes], kBlock, column.memory.get() + column.memoryBytes);
}

// ---- what it means

bool Raid5Replay::unreadable(std::uint32_t c, std::uint32_t block, std::uint32_t blocks) const noexcept {
  const auto& bad = columns_[c].bad;
  const auto at = std::lower_bound(bad.begin(), bad.end(), block);
  return at != bad.end() && *at < block + blocks;
}

const journal::Header* Raid5Replay::headerOf(const journal::Group& group, std::uint32_t c) const noexcept {
  const auto at = std::find_if(headers_.begin(), headers_.end(),
                               [&](const journal::Header& h) { return h.column == c && h.sequence == group.sequence; });
  return at == headers_.end() ? nullptr : &*at;
}

// Columns whose part of the group cannot be read, or not all of it.
ColumnSet Raid5Replay::lacking(const journal::Group& group) const noexcept {
  ColumnSet all = 0;
  for (std::uint32_t c = 0; c < columns_.size(); c++) {
    if (((group.mask & usable_) >> c & 1U) == 0 || columns_[c].bad.empty()) continue;
    const journal::Header* const header = headerOf(group, c);
    if (unreadable(c, group.position, header != nullptr ? header->blocks : group.span)) all |= ColumnSet{1} << c;
  }
  return all;
}

// Whether the last group of all may be one whose headers cannot be read. Of a whole device it has two at least.
bool Raid5Replay::hides() const noexcept {
  const bool whole =
      static_cast<std::size_t>(std::popcount(usable_ | derived_)) == columns_.size() && (derived_ == 0 || doubted_);
  const std::uint32_t end = groups_.empty() ? 0 : groups_.back().position + groups_.back().span;
  for (const std::uint32_t at : {0U, end % ring_}) {
    int hidden = 0;
    for (std::uint32_t c = 0; c < columns_.size(); c++) hidden += unreadable(c, at, 1) ? 1 : 0;
    if (hidden >= (whole ? 2 : 1)) return true;
  }
  return false;
}

void Raid5Replay::scanOver() noexcept {
  result_.epoch = journal::newestEpoch(headers_, node_.epoch);
  groups_ = journal::liveGroups(headers_);
  for (const journal::Group& group : groups_) needed_ |= lacking(group);
  // Only then could anything be made up for.
  checking_ = static_cast<std::size_t>(std::popcount(usable_)) == columns_.size() && picture_ == nullptr;
  checking_ ? nextGroup() : choose();
}

// Every part has its blocks among those of the others: what a column whose parts are not to be had should hold is
// their sum.
void Raid5Replay::choose() noexcept {
  if (std::exchange(checking_, false) && std::popcount(needed_) == 1) {
    usable_ &= ~needed_;
    derived_ = needed_;
    doubted_ = true;
    std::erase_if(headers_, [&](const journal::Header& h) { return (needed_ >> h.column & 1U) != 0; });
    groups_ = journal::liveGroups(headers_);
  }
  group_ = 0;
  if (hides()) result_.damaged++;
  settle();
}

// After a kill what was read may be in the page cache alone. Should power fail during the replay, nothing may be in
// place of a group that the next one does not find.
void Raid5Replay::settle() noexcept {
  if (groups_.empty() || picture_ != nullptr) return nextGroup();
  stage_ = Stage::settling;
  const ColumnSet read = usable_ | (doubted_ ? derived_ : 0);
  for (std::uint32_t c = 0; c < columns_.size(); c++) {
    if ((read >> c & 1U) != 0) io(c, IoOp::sync, 0, 0, nullptr);
  }
}

}  // namespace metadisk
