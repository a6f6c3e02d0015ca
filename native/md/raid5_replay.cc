#include "md/raid5_replay.h"

#include <isa-l.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <utility>

namespace metadisk {

namespace {

constexpr std::uint64_t kBlock = journal::kBlock;

}  // namespace

Raid5Replay::Raid5Replay(const Plan& plan, std::span<ComponentFile* const> files, Backend& backend, VolumeHost& host,
                         void (*done)(void*, const Raid5Replayed&) noexcept, void* owner)
    : plan_(plan),
      node_(std::get<Raid5Node>(plan.root())),
      backend_(backend),
      host_(host),
      done_(done),
      owner_(owner),
      ring_(static_cast<std::uint32_t>(node_.prewrite / kBlock - 1)),
      columns_(node_.serving) {
  for (std::uint32_t c = 0; c < node_.serving; c++) {
    const Raid5Column& column = node_.columns[c];
    files_.push_back(column.file != kNoFile ? files[column.file] : nullptr);
    const ColumnSet bit = ColumnSet{1} << c;
    if (column.service.readable) usable_ |= bit;
    if (column.service.writable && !column.service.readable) derived_ |= bit;
  }
}

Raid5Replay::~Raid5Replay() {
  if (flying_ != 0) std::abort();
}

journal::Place Raid5Replay::placeOf(std::uint32_t column) const noexcept {
  return {.unit = node_.unit,
          .epoch = node_.epoch,
          .column = static_cast<std::uint16_t>(column),
          .columns = static_cast<std::uint32_t>(columns_.size()),
          .ringBlocks = ring_,
          .dataBlocks = node_.segment * node_.lines / kBlock};
}

bool Raid5Replay::room(Column& column, std::uint64_t bytes) noexcept {
  if (column.memoryBytes >= bytes) return true;
  const std::uint64_t size = (bytes + 4095) / 4096 * 4096;
  const bool made = column.memory.make(backend_.held(), size);
  column.memoryBytes = made ? size : 0;
  if (!made && result_.error == 0) result_.error = ENOMEM;
  return made;
}

void Raid5Replay::io(std::uint32_t column, IoOp op, std::uint64_t offset, std::uint64_t length,
                     std::byte* data) noexcept {
  Child& child = columns_[column].io;
  static_cast<Io&>(child) = Io{};
  child.op = op;
  child.file = files_[column];
  child.offset = offset;
  child.length = length;
  child.data = data;
  child.complete = onIo;
  child.self = this;
  child.column = column;
  flying_++;
  backend_.start(child);
}

void Raid5Replay::onIo(Io& io) noexcept {
  Child& child = static_cast<Child&>(io);
  Raid5Replay& self = *child.self;
  if (io.op == IoOp::sync && io.result == 0 && io.file->syncFailed.load(std::memory_order_acquire)) io.result = -EIO;
  if (io.result != 0) {
    // What cannot be had from the others is a lack of the column that needs it: without that one the replay ends well.
    const bool lacking = self.stage_ == Stage::gathering;
    const auto failed = lacking ? static_cast<std::uint32_t>(std::countr_zero(self.derived_)) : child.column;
    const Raid5Column& column = self.node_.columns[failed];
    const std::uint64_t inData = io.offset - self.node_.columns[child.column].start;
    self.host_.componentError({.component = self.plan_.components[column.file],
                               .op = io.op == IoOp::sync               ? ComponentOp::flush
                                     : io.op == IoOp::read && !lacking ? ComponentOp::read
                                                                       : ComponentOp::write,
                               .block = (lacking ? column.start + inData : io.offset) / kBlock,
                               .error = -io.result,
                               .masked = true});
    if (self.result_.error == 0) self.result_.error = -io.result;
  } else {
    self.columns_[child.column].ready = true;
  }
  self.flying_--;
  self.run();
}

// A loop and no recursion: Ios that complete inline would nest as deep as there are entries.
void Raid5Replay::run() noexcept {
  if (std::exchange(running_, true)) return;
  while (!over_) {
    bool stepped = false;
    for (std::uint32_t c = 0; c < columns_.size(); c++) {
      if (!std::exchange(columns_[c].ready, false) || result_.error != 0) continue;
      if (stage_ == Stage::scanning) scanned(c);
      if (stage_ == Stage::writing) writeEntry(c);
      stepped = true;
    }
    if (stepped) continue;
    if (flying_ != 0) break;
    stageOver();
  }
  running_ = false;
  if (over_ && flying_ == 0) done_(owner_, result_);
}

void Raid5Replay::start() noexcept {
  running_ = true;
  if (std::popcount(usable_) + 1 < static_cast<int>(columns_.size())) result_.error = EIO;
  for (std::uint32_t c = 0; c < columns_.size() && result_.error == 0; c++) {
    if ((usable_ >> c & 1U) != 0 && room(columns_[c], kChunk * kBlock)) scan(c);
  }
  running_ = false;
  run();
}

// ---- the rings are read for headers

void Raid5Replay::scan(std::uint32_t c) noexcept {
  Column& column = columns_[c];
  if (column.position >= ring_) return;
  column.blocks = std::min(kChunk, ring_ - column.position);
  io(c, IoOp::read, node_.columns[c].prewrite + (1 + column.position) * kBlock, column.blocks * kBlock,
     column.memory.get());
}

void Raid5Replay::scanned(std::uint32_t c) noexcept {
  Column& column = columns_[c];
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

// ---- group by group

void Raid5Replay::nextGroup() noexcept {
  if (group_ == groups_.size()) return derive();
  const journal::Group& group = groups_[group_];
  stage_ = Stage::reading;
  for (std::uint32_t c = 0; c < columns_.size(); c++) {
    columns_[c].part = {};
    if ((group.found >> c & 1U) == 0 || group.torn) continue;
    const auto header = std::find_if(headers_.begin(), headers_.end(), [&](const journal::Header& h) {
      return h.column == c && h.sequence == group.sequence;
    });
    columns_[c].part = *header;
    if (!room(columns_[c], header->blocks * kBlock)) break;
    io(c, IoOp::read, node_.columns[c].prewrite + (1 + header->position) * kBlock, header->blocks * kBlock,
       columns_[c].memory.get());
  }
}

// Its parts are in memory.
void Raid5Replay::judge() noexcept {
  const journal::Group& group = groups_[group_];
  ColumnSet good = 0;
  for (std::uint32_t c = 0; c < columns_.size(); c++) {
    Column& column = columns_[c];
    if (column.part.blocks == 0) continue;
    const std::span<const std::byte> part(column.memory.get(), column.part.blocks * kBlock);
    journal::Header again;
    if (journal::read(part, placeOf(c), column.part.position, again) != journal::Reading::found) continue;
    if (again.sequence != group.sequence || !journal::whole(part, again)) continue;
    good |= ColumnSet{1} << c;
    column.entry = 0;
    column.at = journal::headerBlocks(again.entries) * kBlock;
  }
  stage_ = Stage::writing;
  if (journal::replays(group, usable_, good)) {
    result_.groups++;
    result_.damaged += static_cast<std::uint64_t>(std::popcount(group.mask & usable_ & ~good));
    for (std::uint32_t c = 0; c < columns_.size(); c++) {
      if ((good >> c & 1U) != 0) writeEntry(c);
    }
  } else {
    (group.certain ? result_.damaged : result_.torn)++;
  }
}

void Raid5Replay::writeEntry(std::uint32_t c) noexcept {
  Column& column = columns_[c];
  if (column.entry == column.part.entries) return;
  const std::span<const std::byte> part(column.memory.get(), column.part.blocks * kBlock);
  const journal::Entry entry = journal::entryAt(part, column.entry++);
  const std::span<std::byte> data(column.memory.get() + column.at, entry.blocks * kBlock);
  column.at += data.size();
  journal::unflip(data, entry.flip);
  result_.blocks += entry.blocks;
  if (derived_ != 0) ranges_.push_back({entry.block, entry.blocks});
  io(c, IoOp::write, node_.columns[c].start + entry.block * kBlock, data.size(), data.data());
}

// ---- the column in regeneration

void Raid5Replay::derive() noexcept {
  std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) { return a.block < b.block; });
  std::size_t kept = 0;
  for (const Range& range : ranges_) {
    Range& last = ranges_[kept == 0 ? 0 : kept - 1];
    if (kept != 0 && range.block <= last.block + last.blocks) {
      last.blocks = std::max(last.blocks, range.block + range.blocks - last.block);
    } else {
      ranges_[kept++] = range;
    }
  }
  ranges_.resize(kept);
  gather();
}

// The next part of it, from all others.
void Raid5Replay::gather() noexcept {
  while (range_ < ranges_.size() && ranges_[range_].blocks == 0) range_++;
  if (range_ == ranges_.size()) return sync();
  Range& range = ranges_[range_];
  part_ = {range.block, std::min<std::uint64_t>(range.blocks, kChunk)};
  range.block += part_.blocks;
  range.blocks -= part_.blocks;
  stage_ = Stage::gathering;
  for (std::uint32_t c = 0; c < columns_.size(); c++) {
    if (((usable_ | derived_) >> c & 1U) == 0) continue;
    if (!room(columns_[c], kChunk * kBlock)) break;
    if ((derived_ >> c & 1U) != 0) continue;
    io(c, IoOp::read, node_.columns[c].start + part_.block * kBlock, part_.blocks * kBlock, columns_[c].memory.get());
  }
}

void Raid5Replay::writeDerived() noexcept {
  const auto target = static_cast<std::uint32_t>(std::countr_zero(derived_));
  std::array<void*, 65> vectors;
  std::size_t count = 0;
  for (std::uint32_t c = 0; c < columns_.size(); c++) {
    if (c != target) vectors[count++] = columns_[c].memory.get();
  }
  vectors[count++] = columns_[target].memory.get();
  xor_gen(static_cast<int>(count), static_cast<int>(part_.blocks * kBlock), vectors.data());
  result_.blocks += part_.blocks;
  stage_ = Stage::deriving;
  io(target, IoOp::write, node_.columns[target].start + part_.block * kBlock, part_.blocks * kBlock,
     columns_[target].memory.get());
}

void Raid5Replay::sync() noexcept {
  stage_ = Stage::syncing;
  for (std::uint32_t c = 0; c < columns_.size() && result_.groups != 0; c++) {
    if (((usable_ | derived_) >> c & 1U) != 0) io(c, IoOp::sync, 0, 0, nullptr);
  }
}

void Raid5Replay::stageOver() noexcept {
  if (result_.error != 0 || stage_ == Stage::syncing) {
    over_ = true;
    return;
  }
  switch (stage_) {
    case Stage::scanning: groups_ = journal::liveGroups(headers_); return nextGroup();
    case Stage::reading: return judge();
    case Stage::writing: group_++; return nextGroup();
    case Stage::gathering: return writeDerived();
    case Stage::deriving: return gather();
    case Stage::syncing: return;
  }
}

}  // namespace metadisk
