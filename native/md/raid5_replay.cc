#include "md/raid5_replay.h"

#include <isa-l.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

namespace metadisk {

namespace {

constexpr std::uint64_t kBlock = journal::kBlock;

}  // namespace

Raid5Replay::Raid5Replay(const Plan& plan, std::span<ComponentFile* const> files, Backend& backend, VolumeHost& host,
                         void (*done)(void*, const Raid5Replayed&) noexcept, void* owner, Raid5State* picture)
    : plan_(plan),
      node_(std::get<Raid5Node>(plan.root())),
      backend_(backend),
      host_(host),
      done_(done),
      owner_(owner),
      ring_(static_cast<std::uint32_t>(node_.prewrite / kBlock - 1)),
      columns_(node_.serving),
      picture_(picture) {
  for (std::uint32_t c = 0; c < node_.serving; c++) {
    const Raid5Column& column = node_.columns[c];
    files_.push_back(column.file != kNoFile ? files[column.file] : nullptr);
    const ColumnSet bit = ColumnSet{1} << c;
    if (column.service.readable) usable_ |= bit;
    if (column.service.writable && !column.service.readable) derived_ |= bit;
  }
  if (node_.copied == Raid5Node::kNone) return;
  const Raid5Column& copy = node_.columns.back();
  if (copy.file != kNoFile && copy.service.writable) copy_ = files[copy.file];
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
  const bool made = column.memory.make(backend_.held(), size + kProbe);
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
  child.copy = false;
  flying_++;
  backend_.start(child);
}

void Raid5Replay::tell(std::uint32_t column, ComponentOp op, std::uint64_t offset, int error, bool masked) noexcept {
  host_.componentError({.component = plan_.components[node_.columns[column].file],
                        .op = op,
                        .block = offset / kBlock,
                        .error = error,
                        .masked = masked});
}

// Ring and settling concern the columns alone.
bool Raid5Replay::toCopy(Child& child) noexcept {
  const bool placed = stage_ == Stage::writing || stage_ == Stage::deriving || stage_ == Stage::syncing;
  if (copy_ == nullptr || child.column != node_.copied || child.copy || child.result != 0 || !placed) return false;
  if (child.op == IoOp::write) {
    child.offset += node_.columns.back().start - node_.columns[child.column].start;
  }
  child.copy = true;
  child.file = copy_;
  backend_.start(child);
  return true;
}

void Raid5Replay::failed(const Child& child) noexcept {
  const int error = -child.result;
  if (stage_ == Stage::gathering) {
    if (doubted_ && journal::isBadBlock(error)) {
      unread_ = true;
      if (part_.blocks == 1) tell(child.column, ComponentOp::read, child.offset, error, true);
      return;
    }
    // What cannot be had from the others is a lack of the column that needs it: without that one the replay ends well.
    const auto target = static_cast<std::uint32_t>(std::countr_zero(derived_));
    const std::uint64_t inData = child.offset - node_.columns[child.column].start;
    tell(target, ComponentOp::write, node_.columns[target].start + inData, error, false);
  } else {
    const ComponentOp op = child.op == IoOp::sync   ? ComponentOp::flush
                           : child.op == IoOp::read ? ComponentOp::read
                                                    : ComponentOp::write;
    tell(child.copy ? node_.serving : child.column, op, child.offset, error, false);
  }
  if (result_.error == 0) result_.error = error;
}

void Raid5Replay::onIo(Io& io) noexcept {
  Child& child = static_cast<Child&>(io);
  Raid5Replay& self = *child.self;
  if (io.op == IoOp::sync && io.result == 0 && io.file->syncFailed.load(std::memory_order_acquire)) io.result = -EIO;
  if (self.toCopy(child)) return;
  Column& column = self.columns_[child.column];
  const bool ring = self.stage_ == Stage::scanning || self.stage_ == Stage::reading;
  if (io.result == 0) {
    column.ready = true;
    if (ring) self.readWell(child.column);
  } else if (ring && self.bears(child)) {
    column.ready = true;
  } else {
    self.failed(child);
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
      if (stage_ == Stage::reading && !readOn(c)) probe(c);
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
    if ((usable_ >> c & 1U) == 0) continue;
    columns_[c].bad.reserve(kBadMost);
    if (room(columns_[c], kChunk * kBlock)) scan(c);
  }
  running_ = false;
  run();
}

// ---- group by group

void Raid5Replay::nextGroup() noexcept {
  if (checking_ && (group_ == groups_.size() || !groups_[group_].certain)) return choose();
  if (group_ == groups_.size() && picture_ != nullptr) {
    over_ = true;
    return;
  }
  if (group_ == groups_.size()) return derive();
  const journal::Group& group = groups_[group_];
  stage_ = Stage::reading;
  for (std::uint32_t c = 0; c < columns_.size(); c++) {
    columns_[c].part = {};
    if ((group.found >> c & 1U) == 0 || group.torn) continue;
    columns_[c].part = *headerOf(group, c);
    if (!room(columns_[c], columns_[c].part.blocks * kBlock)) break;
    want(c, columns_[c].part.position, columns_[c].part.blocks);
    readOn(c);
  }
}

// Its parts are in memory.
void Raid5Replay::judge() noexcept {
  const journal::Group& group = groups_[group_];
  ColumnSet parts = 0;  // whose entries are known
  good_ = 0;
  for (std::uint32_t c = 0; c < columns_.size(); c++) {
    Column& column = columns_[c];
    if (column.part.blocks == 0) continue;
    const std::span<const std::byte> part(column.memory.get(), column.part.blocks * kBlock);
    journal::Header again;
    if (journal::read(part, placeOf(c), column.part.position, again) != journal::Reading::found) continue;
    if (again.sequence != group.sequence || again.epoch != result_.epoch) continue;
    parts |= ColumnSet{1} << c;
    if (journal::whole(part, again)) good_ |= ColumnSet{1} << c;
    column.entry = 0;
    column.at = journal::headerBlocks(again.entries) * kBlock;
  }
  if (checking_) return findRotten();
  stage_ = Stage::writing;
  if (!journal::replays(group, usable_, good_)) {
    // Whether the last one was committed cannot be told without what cannot be read. What it changed in place is right
    // if all of it, or nothing, had been written.
    (group.certain || (lacking(group) & ~good_) != 0 ? result_.damaged : result_.torn)++;
    return;
  }
  result_.groups++;
  result_.damaged += static_cast<std::uint64_t>(std::popcount(group.mask & usable_ & ~good_));
  for (std::uint32_t c = 0; c < columns_.size(); c++) {
    if ((parts >> c & 1U) != 0) writeEntry(c);
  }
}

// All of a certain group was on stable storage, so what is not whole was spoilt there. Of the last group nothing can be
// said: power may have failed while it was written.
void Raid5Replay::findRotten() noexcept {
  const journal::Group& group = groups_[group_++];
  const ColumnSet rotten = group.torn ? 0 : group.mask & usable_ & ~good_ & ~needed_;
  for (std::uint32_t c = 0; c < columns_.size(); c++) {
    if ((rotten >> c & 1U) == 0) continue;
    tell(c, ComponentOp::read, node_.columns[c].prewrite + (1 + group.position) * kBlock, EILSEQ, true);
  }
  needed_ |= rotten;
  nextGroup();
}

void Raid5Replay::writeEntry(std::uint32_t c) noexcept {
  Column& column = columns_[c];
  const std::span<const std::byte> part(column.memory.get(), column.part.blocks * kBlock);
  while (column.entry < column.part.entries) {
    const journal::Entry entry = journal::entryAt(part, column.entry++);
    const std::span<std::byte> data(column.memory.get() + column.at, entry.blocks * kBlock);
    column.at += data.size();
    if ((good_ >> c & 1U) == 0 && journal::crc(data) != entry.crc) continue;
    journal::unflip(data, entry.flip);
    result_.blocks += entry.blocks;
    if (picture_ != nullptr) {
      if (show(c, entry.block, data)) continue;
      if (result_.error == 0) result_.error = ENOMEM;
      return;
    }
    if (derived_ != 0) ranges_.push_back({entry.block, entry.blocks});
    return io(c, IoOp::write, node_.columns[c].start + entry.block * kBlock, data.size(), data.data());
  }
}

// Into the cache, in rows that stay; what is there already is older.
bool Raid5Replay::show(std::uint32_t c, std::uint64_t block, std::span<const std::byte> data) noexcept {
  const Raid5Shape shape(node_);
  Raid5Cache& cache = *picture_->cache;
  for (std::size_t done = 0; done < data.size();) {
    const std::uint64_t offset = block * kBlock + done;
    const std::uint64_t key = shape.rowOf({offset / node_.segment, c, offset % node_.segment});
    const auto within = static_cast<std::uint32_t>(offset - shape.rowStart(key));
    const auto length =
        static_cast<std::uint32_t>(std::min<std::size_t>(shape.rowBytes(key) - within, data.size() - done));
    Raid5Row* const row = cache.obtain(key);
    if (row == nullptr) return false;
    Raid5Cell& cell = row->cells[c];
    // What is read meanwhile needs memory, too.
    if (cell.page == nullptr && pages_++ == cache.pages() / 2) return false;
    if (!cache.needPage(*row, cell)) return false;
    std::memcpy(cell.page + within, data.data() + done, length);
    cell.valid |= Raid5Shape::sectorsOf(within, length);
    row->pins = 1;
    done += length;
  }
  return true;
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
  part_ = {range.block, std::min(range.blocks, most_)};
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
  if (std::exchange(unread_, false)) {
    // What is in place stays there, block by block: mostly it was written before the crash.
    if (part_.blocks == 1) {
      result_.damaged++;
    } else {
      ranges_[range_] = {part_.block, ranges_[range_].blocks + part_.blocks};
      most_ = part_.blocks / 2;
    }
    return gather();
  }
  most_ = std::min<std::uint64_t>(kChunk, 2 * most_);
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
    case Stage::scanning: return scanOver();
    case Stage::settling: return nextGroup();
    case Stage::reading: return judge();
    case Stage::writing: group_++; return nextGroup();
    case Stage::gathering: return writeDerived();
    case Stage::deriving: return gather();
    case Stage::syncing: return;
  }
}

}  // namespace metadisk
