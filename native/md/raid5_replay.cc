#include "md/raid5_replay.h"

#include <algorithm>
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
    if (column.service.readable) usable_ |= ColumnSet{1} << c;
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
  column.memory.reset(static_cast<std::byte*>(std::aligned_alloc(4096, size)));
  column.memoryBytes = column.memory != nullptr ? size : 0;
  if (column.memory == nullptr && result_.error == 0) result_.error = ENOMEM;
  return column.memory != nullptr;
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
    const Raid5Column& column = self.node_.columns[child.column];
    self.host_.componentError({.component = self.plan_.components[column.file],
                               .op = io.op == IoOp::read    ? ComponentOp::read
                                     : io.op == IoOp::write ? ComponentOp::write
                                                            : ComponentOp::flush,
                               .block = io.offset / kBlock,
                               .error = -io.result,
                               .masked = true});
    if (self.result_.error == 0) self.result_.error = -io.result;
  } else if (self.result_.error == 0) {
    if (self.stage_ == Stage::scanning) self.scanned(child.column);
    if (self.stage_ == Stage::writing) self.writeEntry(child.column);
  }
  if (--self.flying_ == 0) self.stageOver();
}

void Raid5Replay::start() noexcept {
  flying_ = 1;
  if (std::popcount(usable_) + 1 < static_cast<int>(columns_.size())) result_.error = EIO;
  for (std::uint32_t c = 0; c < columns_.size() && result_.error == 0; c++) {
    if ((usable_ >> c & 1U) != 0 && room(columns_[c], kChunk * kBlock)) scan(c);
  }
  if (--flying_ == 0) stageOver();
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
  if (group_ == groups_.size()) return sync();
  const journal::Group& group = groups_[group_];
  stage_ = Stage::reading;
  flying_ = 1;
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
  if (--flying_ == 0) stageOver();
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
  flying_ = 1;
  if (journal::replays(group, usable_, good)) {
    result_.groups++;
    result_.damaged += static_cast<std::uint64_t>(std::popcount(group.mask & usable_ & ~good));
    for (std::uint32_t c = 0; c < columns_.size(); c++) {
      if ((good >> c & 1U) != 0) writeEntry(c);
    }
  } else {
    (group.certain ? result_.damaged : result_.torn)++;
  }
  if (--flying_ == 0) stageOver();
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
  io(c, IoOp::write, node_.columns[c].start + entry.block * kBlock, data.size(), data.data());
}

void Raid5Replay::sync() noexcept {
  stage_ = Stage::syncing;
  flying_ = 1;
  for (std::uint32_t c = 0; c < columns_.size() && result_.groups != 0; c++) {
    if ((usable_ >> c & 1U) != 0) io(c, IoOp::sync, 0, 0, nullptr);
  }
  if (--flying_ == 0) stageOver();
}

void Raid5Replay::stageOver() noexcept {
  if (result_.error != 0) return done_(owner_, result_);
  switch (stage_) {
    case Stage::scanning: groups_ = journal::liveGroups(headers_); return nextGroup();
    case Stage::reading: return judge();
    case Stage::writing: group_++; return nextGroup();
    case Stage::syncing: return done_(owner_, result_);
  }
}

}  // namespace metadisk
