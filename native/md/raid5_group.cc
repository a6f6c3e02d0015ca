// Groups through the journal and into place, one phase after another; what a failing column does to them.
#include <algorithm>
#include <utility>

#include "md/raid5_io.h"

namespace metadisk {

namespace {

constexpr std::uint64_t kBlock = journal::kBlock;
constexpr std::uint64_t kRetryNanos = 1'000'000'000;

}  // namespace

// Everything that can go on goes on; completions inside start() come back here.
void Raid5Io::pump() noexcept {
  again_ = true;
  if (pumping_) return;
  pumping_ = true;
  while (std::exchange(again_, false)) {
    while (pumpOnce()) {
    }
    failStarved();
    grantClaims();
  }
  pumping_ = false;
}

// One step; whether there was one.
bool Raid5Io::pumpOnce() noexcept {
  if (stopped_ || state_.picture || (retired_ && requests_ == 0)) return false;
  if (broken_) return pumpTail();
  // In order of their sequence: a group is written when the one before is committed.
  bool uncommitted = false;
  for (std::uint64_t after = 0;;) {
    Raid5Group* next = nullptr;
    for (Raid5Group& group : state_.groups) {
      if (group.phase == Raid5Group::Phase::idle || group.sequence <= after) continue;
      if (next == nullptr || group.sequence < next->sequence) next = &group;
    }
    if (next == nullptr) break;
    after = next->sequence;
    const bool committing = next->phase != Raid5Group::Phase::placing;
    if (committing && uncommitted) continue;
    uncommitted = uncommitted || committing;
    if (advance(*next)) return true;
    if (stopped_) return false;
  }
  const bool fits = state_.journal.fits(spanMax());
  if (Batch* const batch = stagingIn(Batch::Stage::ready)) {
    if (batch->rows.empty()) {
      batch->stage = Batch::Stage::idle;
      return true;
    }
    if (idleGroup() == nullptr) return pickAhead();
    if (fits) {
      stage(*batch);
      return true;
    }
  } else if (stagingIn(Batch::Stage::reading) != nullptr) {
    return fits && pickAhead();
  } else {
    const bool wanted = wantsStaging();
    if (wanted && fits && pick(staging_[0])) return true;
    if ((!wanted || fits) && state_.journal.durableTail() > claims_.tailWanted()) return false;
  }
  // The ring is full, or somebody waits for older groups to be forgotten: what is in place is made stable, then that is
  // made known.
  return !uncommitted && forget();
}

void Raid5Io::tick() noexcept {
  kick_ = false;
  if (stopped_ && !hold_.closed() && host_.now() >= retryAt_) stopped_ = false;
  pump();
}

std::uint64_t Raid5Io::wakeAt() const noexcept {
  if (retired_ || broken_) return UINT64_MAX;
  if (kick_) return 0;
  if (stopped_) return hold_.closed() ? UINT64_MAX : retryAt_;
  if (flying_ != 0 || staging()) return UINT64_MAX;
  const Raid5Row* row = cache_.oldestDirty();
  while (row != nullptr && (row->lost || claims_.holds(row->key))) row = row->after;
  return row != nullptr ? row->since + state_.options.ageNanos : UINT64_MAX;
}

// Nothing that has data is on its way.
bool Raid5Io::placedAll() const noexcept {
  return std::all_of(state_.groups.begin(), state_.groups.end(), [](const Raid5Group& group) {
    return group.phase == Raid5Group::Phase::idle || group.rows.empty();
  });
}

// Too much is missing for anything to be staged. What is in place can still be made known to be there, and a job that
// waits for that makes up for what is missing.
bool Raid5Io::pumpTail() noexcept {
  if (state_.journal.durableTail() > claims_.tailWanted() || !placedAll()) return false;
  bool underWay = false;
  for (Raid5Group& group : state_.groups) {
    if (group.phase == Raid5Group::Phase::idle) continue;
    if (advance(group)) return true;
    underWay = true;
  }
  return !underWay && forget();
}

// One step towards a shorter journal.
bool Raid5Io::forget() noexcept {
  if (syncsFlying_ != 0) return false;
  const std::uint64_t tail = state_.journal.tail(writable_);
  if (tail > state_.journal.durableTail()) {
    if (idleGroup() == nullptr) return false;
    publishTail();
    return true;
  }
  if ((state_.journal.unstable() & writable_) == 0) return false;
  stabilise();
  return true;
}

// Starts what the group's phase asks for, or ends the phase. False: it waits.
bool Raid5Io::advance(Raid5Group& group) noexcept {
  if (group.flying != 0) return false;
  group.todo &= writable_;
  if (group.todo != 0) {
    if (group.phase == Raid5Group::Phase::syncing && syncsFlying_ != 0) return false;
    if (!state_.options.journal && group.phase != Raid5Group::Phase::placing) {
      group.todo = 0;
      return true;
    }
    issue(group);
    return true;
  }
  switch (group.phase) {
    case Raid5Group::Phase::writing:
      group.phase = Raid5Group::Phase::syncing;
      group.todo = group.mask;
      return true;
    case Raid5Group::Phase::syncing: commit(group); return true;
    case Raid5Group::Phase::placing: placed(group); return true;
    case Raid5Group::Phase::idle: break;
  }
  return false;
}

void Raid5Io::issue(Raid5Group& group) noexcept {
  group.failed = 0;
  group.flying = 1;
  const bool syncs = group.phase == Raid5Group::Phase::syncing;
  if (syncs) state_.journal.syncing(group.todo);
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    if ((group.todo >> c & 1U) == 0) continue;
    if (!syncs) {
      issueWrites(group, c);
      continue;
    }
    Child* const child = newChild(Child::Kind::sync, IoOp::sync, c);
    if (child == nullptr) {  // tried again with the next step
      group.failed |= ColumnSet{1} << c;
      continue;
    }
    child->group = &group;
    group.flying++;
    start(*child);
  }
  if (--group.flying == 0) {
    group.todo &= group.failed;
    pump();
  }
}

// One column's part: into the ring as a whole, or each entry to its place; neighbours in one Io.
void Raid5Io::issueWrites(Raid5Group& group, std::uint32_t c) noexcept {
  const bool ring = group.phase == Raid5Group::Phase::writing;
  const Raid5Column& column = node_.columns[c];
  const Raid5Group::Part& part = group.parts[c];
  Child* child = nullptr;
  const auto launch = [&] {
    if (child == nullptr) return;
    group.flying++;
    start(*std::exchange(child, nullptr));
  };
  const auto add = [&](std::uint64_t offset, const std::byte* data, std::size_t length) {
    if (child != nullptr && !takesMore(*child, offset)) launch();
    if (child == nullptr) {
      child = newChild(ring ? Child::Kind::write : Child::Kind::place, IoOp::write, c);
      if (child == nullptr) {  // tried again with the next step
        group.failed |= ColumnSet{1} << c;
        return;
      }
      child->group = &group;
      child->bulk = !ring && group.rows.size() >= kBulkRows;
      child->offset = offset;
      child->iov = child->pieces.data();
      if (!ring && scatters(c)) child->offsets = child->places.data();
    }
    addPiece(*child, offset, const_cast<std::byte*>(data), length);
  };
  std::uint64_t at = column.prewrite + (1 + group.position) * kBlock;
  const Raid5Group::Piece* piece = group.piecesOf(c);
  const auto head = group.headOf(c);
  if (ring) {
    const std::size_t length = (part.blocks - part.data) * kBlock;
    add(at, head.data(), length);
    at += length;
  }
  for (std::uint32_t i = 0; i < part.entries; i++) {
    const journal::Entry entry = journal::entryAt(head, i);
    if (!ring) at = column.start + entry.block * kBlock;
    for (const std::uint64_t end = at + entry.blocks * kBlock; at < end; piece++) {
      add(at, ring ? piece->ring : piece->place, piece->length);
      at += piece->length;
    }
  }
  launch();
}

// What a column that is being copied got goes to its copy as well, ring, data and syncs, before anybody hears of it: so
// the copy may take the column's place at any moment once all else of it is there.
bool Raid5Io::toCopy(Child& child) noexcept {
  if (child.column != node_.copied || child.copy || child.result != 0) return false;
  ComponentFile* const file = files_.back();
  if (file == nullptr || !node_.columns.back().service.writable) return false;
  if (child.op == IoOp::sync) {
    if (child.file->syncFailed.load(std::memory_order_acquire)) return false;
  } else {
    child.offset += node_.columns.back().prewrite - node_.columns[child.column].prewrite;
  }
  child.copy = true;
  child.file = file;
  backend_.start(child);
  return true;
}

// Pieces from all over the column failed together: each goes by itself, so that what fails is known.
void Raid5Io::nextPiece(Child& child) noexcept {
  child.rest--;
  child.offsets = nullptr;
  child.iov = &child.pieces[child.rest];
  child.iovCount = 1;
  child.offset = child.places[child.rest];
  child.length = child.iov->iov_len;
  child.held = false;
  backend_.start(child);
}

void Raid5Io::groupIoDone(Child& child) noexcept {
  Raid5Group* const group = child.group;
  const std::uint32_t c = child.column;
  const ColumnSet bit = ColumnSet{1} << c;
  const bool sync = child.kind == Child::Kind::sync;
  if (sync && child.result == 0 && child.file->syncFailed.load(std::memory_order_acquire)) child.result = -EIO;
  const bool good = child.result == 0;
  if (sync) state_.journal.synced(bit, good);
  if (!good && (writable_ & bit) != 0) columnFailed(c, child);
  children_.give(child);
  if (group == nullptr) {
    syncsFlying_--;
    return pump();
  }
  if (!good) group->failed |= bit;
  if (--group->flying != 0) return;
  group->todo &= group->failed;
  pump();
}

// All its parts are on stable storage.
void Raid5Io::commit(Raid5Group& group) noexcept {
  state_.journal.tailDurable(group.tail);
  group.phase = Raid5Group::Phase::placing;
  group.todo = group.mask;
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    if (group.parts[c].entries == 0) group.todo &= ~(ColumnSet{1} << c);
  }
  checkFlushes();
}

void Raid5Io::placed(Raid5Group& group) noexcept {
  group.phase = Raid5Group::Phase::idle;
  if (Raid5Record* const record = state_.journal.find(group.sequence)) {
    record->placed = true;
    record->unstable = group.rows.empty() ? 0 : group.mask;
  }
  for (Raid5Row* row : group.rows) {
    row->pins--;
    row->bad = 0;
    cache_.unpin(*row);
    // What a stream has filled is not needed again soon; its memory is, while it is in the processor's cache.
    if (std::exchange(row->stream, false)) cache_.forget(*row);
    // A row that became dirty again meanwhile may be staged now; nobody waits for pins.
  }
  group.rows.clear();
  wakeSpace();
}

// Syncs every column with data in place that is not known to be stable.
void Raid5Io::stabilise() noexcept {
  const ColumnSet columns = state_.journal.unstable() & writable_;
  state_.journal.syncing(columns);
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    if ((columns >> c & 1U) == 0) continue;
    Child* const child = newChild(Child::Kind::sync, IoOp::sync, c);
    if (child == nullptr) {
      state_.journal.synced(ColumnSet{1} << c, false);
      continue;
    }
    syncsFlying_++;
    start(*child);
  }
}

// What cannot be written any more is decided on above; nothing goes on meanwhile.
void Raid5Io::columnFailed(std::uint32_t column, const Child& child) noexcept {
  const bool parks = child.copy || (lastErred_ >> column & 1U) == 0;
  report(child, parks);
  stopped_ = true;
  retryAt_ = host_.now() + kRetryNanos;
  if (parks) {
    closeGate();
  } else {
    failWaiting(EIO);
  }
}

}  // namespace metadisk
