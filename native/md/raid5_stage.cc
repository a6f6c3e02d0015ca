// Which dirty rows go together, and what of them goes to which column: the making of a group.
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "md/raid5_io.h"

namespace metadisk {

namespace {

constexpr std::uint32_t kBlock = journal::kBlock;

unsigned runsOf(std::uint8_t sectors) noexcept {
  // A run begins at every sector whose lower neighbour is not in the set.
  return static_cast<unsigned>(std::popcount(static_cast<unsigned>(sectors) & ~(static_cast<unsigned>(sectors) << 1U)));
}

}  // namespace

bool Raid5Io::due() const noexcept {
  const Raid5Row* oldest = cache_.oldestDirty();
  while (oldest != nullptr && oldest->lost) oldest = oldest->after;
  if (oldest == nullptr) return false;
  return urgent_ != 0 || flushTarget_ >= oldest->stamp || starved_ || cache_.dirtyPages() >= cache_.pages() / 4 ||
         host_.now() >= oldest->since + state_.options.ageNanos;
}

std::uint32_t Raid5Io::spanMax() const noexcept {
  // All columns of all groups take a quarter of what the cache may have, but never less than one row needs.
  const std::size_t share = state_.options.cacheBytes / 4 / state_.groups.size() / shape_.columns() / kBlock;
  const auto least = static_cast<std::uint32_t>(1 + std::min<std::uint64_t>(8, shape_.segment() / kBlock));
  const auto wanted = static_cast<std::uint32_t>(std::min<std::size_t>(share, state_.options.groupBlocks));
  return std::min(std::max(wanted, least), state_.journal.spanMax());
}

// Adds the row to what the batch takes in the ring. False: it has no room there, and nothing was added.
bool Raid5Io::measure(const Raid5Row& row) noexcept {
  const std::uint32_t parity = shape_.parityColumn(shape_.lineOf(row.key));
  const std::uint8_t changed = dirtySectors(row, parity);
  const std::uint32_t most = spanMax();
  const auto part = [&](std::uint32_t c) { return c == parity ? changed : row.cells[c].dirty; };
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    const std::uint32_t blocks = blocks_[c] + static_cast<std::uint32_t>(std::popcount(part(c)));
    if (blocks + journal::headerBlocks(entries_[c] + runsOf(part(c))) > most) return false;
  }
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    blocks_[c] += static_cast<std::uint32_t>(std::popcount(part(c)));
    entries_[c] += runsOf(part(c));
  }
  return true;
}

// Which rows are dirty, in the order of their places; the youngest, which a stream may be about to fill, stay out.
void Raid5Io::planSweep() noexcept {
  sweep_.clear();
  swept_ = 0;
  const std::size_t most = std::min(kSweepRows, cache_.dirtyPages() - cache_.dirtyPages() / 4);
  for (Raid5Row* row = cache_.oldestDirty(); row != nullptr && sweep_.size() < most; row = row->after)
    sweep_.push_back({row->key, row});
  std::sort(sweep_.begin(), sweep_.end(), [](const Swept& a, const Swept& b) { return a.key < b.key; });
}

// Takes what lies behind the batch before: its rows share pages of the kernel's tables, and more often an Io.
void Raid5Io::sweep(Batch& batch) noexcept {
  bool room = true;
  for (int rounds = 0; rounds < 2 && room; rounds++) {
    if (swept_ == sweep_.size()) planSweep();
    while (swept_ < sweep_.size() && room) {
      const auto [key, row] = sweep_[swept_];
      if (row->key == key && row->dirty && stageable(*row)) room = pickRow(batch, *row);
      if (room) swept_++;
    }
  }
}

// Begins the next batch. Under pressure from memory alone rows go in the order of their places, again and again from
// the lowest to the highest. Else the oldest go first, so that a stream has filled its rows before they are taken, and
// with them their neighbours, which are read and written together; full rows alone while nobody waits for others.
bool Raid5Io::pick(Batch& batch) noexcept {
  const bool streams = !due();
  const bool everything = starved_ || cache_.dirtyPages() >= cache_.pages() / 4;
  const std::uint64_t now = host_.now();
  batch.op = nullptr;
  batch.rows.clear();
  blocks_.fill(0);
  entries_.fill(0);
  const Raid5Row* const oldest = cache_.oldestDirty();
  if (everything && urgent_ == 0 && (oldest == nullptr || oldest->stamp > flushTarget_)) sweep(batch);
  bool room = batch.rows.empty();
  for (Raid5Row* row = streams ? cache_.oldestFull() : cache_.oldestDirty(); row != nullptr && room;
       row = streams ? row->fullAfter : row->after) {
    if (!stageable(*row)) continue;
    if (!streams && !everything && row->stamp > flushTarget_ && !row->urgent &&
        now < row->since + state_.options.ageNanos) {
      if (urgent_ == 0) break;
      continue;
    }
    room = pickRow(batch, *row);
    if (streams) continue;
    for (std::uint64_t key = row->key + 1; room; key++) {
      Raid5Row* const next = cache_.find(key);
      if (next == nullptr || !next->dirty || !stageable(*next)) break;
      room = pickRow(batch, *next);
    }
  }
  if (batch.rows.empty()) return false;
  batch.stage = Batch::Stage::reading;
  startFill(batch);
  return true;
}

// What the next batch needs is read while the one before is read, or waits for a group. All that is due may be in
// that one: then nothing is looked for until much more has changed, or it is staged.
bool Raid5Io::pickAhead() noexcept {
  Batch* const batch = stagingIn(Batch::Stage::idle);
  if (batch == nullptr || cache_.changes() < aheadAt_ || !wantsStaging()) return false;
  const bool picked = pick(*batch);
  aheadAt_ = picked ? 0 : cache_.changes() + kBatchRows;
  return picked;
}

// False: it does not fit any more, and was left as it is.
bool Raid5Io::pickRow(Batch& batch, Raid5Row& row) noexcept {
  if (batch.rows.size() == batchRows_ || !measure(row)) return false;
  takeRow(row, batch);
  Planned planned = planStage(row);
  if (planned == Planned::lost && std::exchange(row.bad, 0) != 0) planned = planStage(row);  // it may be readable now
  if (planned == Planned::ready || planned == Planned::reads) return true;
  if (planned == Planned::lost) {  // readsDone() sees to it
    row.failed = row.lost = true;
    return true;
  }
  batch.rows.pop_back();
  untake(row);
  return false;
}

Raid5Group* Raid5Io::idleGroup() noexcept {
  for (Raid5Group& group : state_.groups) {
    if (group.phase != Raid5Group::Phase::idle) continue;
    return group.grow(backend_.held(), shape_.columns(), spanMax(), kBatchRows * 4) ? &group : nullptr;
  }
  return nullptr;
}

// The group takes its place in the ring.
void Raid5Io::open(Raid5Group& group, std::uint32_t span, ColumnSet mask) noexcept {
  Raid5Record& record = state_.journal.add(span);
  group.sequence = record.sequence;
  group.tail = state_.journal.tail(writable_);
  group.position = state_.journal.positionOf(record);
  group.span = span;
  group.mask = group.todo = mask;
  group.failed = 0;
  group.flying = 0;
  group.phase = Raid5Group::Phase::writing;
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    if ((mask >> c & 1U) == 0) continue;
    const Raid5Group::Part& part = group.parts[c];
    journal::Header header;
    header.unit = node_.unit;
    header.epoch = node_.epoch;
    header.sequence = group.sequence;
    header.tail = group.tail;
    header.mask = mask;
    header.column = static_cast<std::uint16_t>(c);
    header.position = group.position;
    header.span = span;
    header.blocks = part.blocks;
    header.entries = part.entries;
    journal::seal(group.headOf(c).first((part.blocks - part.data) * std::size_t{kBlock}), header);
  }
}

// What is dirty of one row, and its new parity, goes into the group.
void Raid5Io::collect(Raid5Group& group, const Raid5Row& row) noexcept {
  const std::uint32_t parity = shape_.parityColumn(shape_.lineOf(row.key));
  const std::uint8_t changed = dirtySectors(row, parity);
  const std::uint64_t start = shape_.rowStart(row.key) / kBlock;
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    unsigned rest = c == parity ? changed : row.cells[c].dirty;
    if ((writable_ >> c & 1U) == 0 || rest == 0) continue;
    cache_.pin(row.cells[c]);
    while (rest != 0) {
      const auto first = static_cast<unsigned>(std::countr_zero(rest));
      const auto count = static_cast<unsigned>(std::countr_one(rest >> first));
      rest &= ~(((1U << count) - 1) << first);
      addRun(group, c, start + first, {row.cells[c].page + first * kBlock, count * std::size_t{kBlock}});
    }
  }
}

// A run of sectors joins the one before, or makes an entry of its own; always so when it has to be changed for the
// ring.
void Raid5Io::addRun(Raid5Group& group, std::uint32_t column, std::uint64_t block,
                     std::span<const std::byte> data) noexcept {
  Raid5Group::Part& part = group.parts[column];
  const auto blocks = static_cast<std::uint32_t>(data.size() / kBlock);
  const std::byte* ring = data.data();
  std::uint32_t flip = 0;
  if (state_.options.journal) flip = journal::flipFor(data);
  if (flip != 0) {
    const std::span copy(group.arena.get() + group.flipped, data.size());
    std::memcpy(copy.data(), data.data(), data.size());
    journal::unflip(copy, flip);
    ring = copy.data();
    group.flipped += data.size();
  }
  part.data += blocks;
  const bool joins =
      part.entries != 0 && flip == 0 && part.last.flip == 0 && part.last.block + part.last.blocks == block;
  if (!joins) part.last = {.block = block, .blocks = 0, .flip = flip};
  part.last.blocks += blocks;
  if (state_.options.journal) part.last.crc = journal::crc({ring, data.size()}, part.last.crc);
  journal::putEntry(group.headOf(column), joins ? part.entries - 1 : part.entries++, part.last);
  Raid5Group::Piece* const pieces = group.piecesOf(column);
  if (joins) {
    Raid5Group::Piece& before = pieces[part.pieces - 1];
    if (before.place + before.length == data.data()) {
      before.length += data.size();
      return;
    }
  }
  pieces[part.pieces++] = {ring, data.data(), data.size()};
}

// Everything the batch needs is in its rows: parity is made, row by row while they are in the processor's cache.
void Raid5Io::stage(Batch& batch) noexcept {
  Raid5Group& group = *idleGroup();
  group.clear();
  for (Raid5Row* row : batch.rows) {
    computeParity(*row);
    collect(group, *row);
    group.stamp = std::min(group.stamp, row->stamp);
  }
  ColumnSet mask = 0;
  std::uint32_t span = 1;
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    Raid5Group::Part& part = group.parts[c];
    if (part.entries == 0) continue;
    part.blocks = journal::headerBlocks(part.entries) + part.data;
    mask |= ColumnSet{1} << c;
    span = std::max(span, part.blocks);
  }
  open(group, span, mask);
  group.rows.swap(batch.rows);
  for (Raid5Row* row : group.rows) {
    if (std::exchange(row->urgent, false)) urgent_--;
    row->rebuilt = 0;
    row->stream = row->wholes + 1 == shape_.columns();
    cache_.dropOld(*row);
    cache_.clean(*row);
    row->pins++;
  }
  batch.stage = Batch::Stage::idle;
  aheadAt_ = 0;
  // These change rows and may end in another batch: the group is complete by now.
  for (Raid5Row* row : group.rows) release(*row);
  wakeSpace();
}

// A group without data, whose tail gives the space of older ones back.
void Raid5Io::publishTail() noexcept {
  Raid5Group& group = *idleGroup();
  group.clear();
  ColumnSet mask = 0;
  // Two are enough: one of them may be lost. Those that fail are asked last.
  for (const ColumnSet set : {writable_ & ~lastErred_, writable_ & lastErred_}) {
    for (std::uint32_t c = 0; c < shape_.columns() && std::popcount(mask) < 2; c++) {
      if ((set >> c & 1U) == 0) continue;
      group.parts[c].blocks = 1;
      mask |= ColumnSet{1} << c;
    }
  }
  open(group, 1, mask);
}

}  // namespace metadisk
