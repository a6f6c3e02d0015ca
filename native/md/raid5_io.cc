#include "md/raid5_io.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace metadisk {

namespace {

constexpr std::uint32_t kSector = Raid5Shape::kSector;

}  // namespace

int Raid5Io::prepare(const Raid5Node& node, Raid5State& state) noexcept try {
  const Raid5Shape shape(node);
  if (state.cache != nullptr && state.epoch == node.epoch && state.unit == node.unit) {
    if (state.cache->shape() == shape) return 0;
    // What the new columns hold is zero: what is dirty, and groups on their way, are as right as before. Anything else
    // would begin the journal anew in the same epoch, and use its numbers twice.
    if (!shape.grownFrom(state.cache->shape())) return EINVAL;
    return state.cache->widen(shape) ? 0 : ENOMEM;
  }
  const bool busy = std::any_of(state.groups.begin(), state.groups.end(),
                                [](const Raid5Group& group) { return group.phase != Raid5Group::Phase::idle; });
  if (busy || (state.cache != nullptr && state.cache->oldestDirty() != nullptr)) return EBUSY;
  auto cache = std::make_unique<Raid5Cache>(shape, state.options.cacheBytes);
  if (!cache->usable()) return ENOMEM;
  for (Raid5Group& group : state.groups) group.rows.reserve(kBatchRows);
  for (Raid5Group& group : state.groups) group.arena.drop();
  state.cache = std::move(cache);
  state.journal.restart(static_cast<std::uint32_t>(node.prewrite / journal::kBlock - 1));
  state.unit = node.unit;
  state.epoch = node.epoch;
  return 0;
} catch (const std::bad_alloc&) {
  return ENOMEM;
}

Raid5Io::Raid5Io(const Plan& plan, std::span<ComponentFile* const> files, Backend& backend, VolumeHost& host,
                 Hold& hold, Raid5State& state)
    : plan_(plan),
      node_(std::get<Raid5Node>(plan.root())),
      backend_(backend),
      host_(host),
      hold_(hold),
      state_(state),
      shape_(node_),
      cache_(*state.cache) {
  unsigned unreadable = 0;
  for (std::size_t i = 0; i < node_.columns.size(); i++) {
    const Raid5Column& column = node_.columns[i];
    const ColumnSet bit = ColumnSet{1} << i;
    files_.push_back(column.file != kNoFile ? files[column.file] : nullptr);
    if (i >= node_.serving) continue;
    if (column.service.readable) readable_ |= bit;
    if (column.service.writable) writable_ |= bit;
    if (column.service.lastErred != 0) lastErred_ |= bit;
    unreadable += column.service.readable ? 0 : 1;
  }
  const bool memory = std::all_of(files_.begin(), files_.end(),
                                  [](const ComponentFile* file) { return file == nullptr || file->memory(); });
  if (memory) batchRows_ = kMemoryRows;
  broken_ = unreadable > 1 || (unreadable == 1 && lastErred_ != 0);
  cache_.use(backend.held());
  cache_.forgive();
  for (Batch& batch : staging_) batch.rows.reserve(kBatchRows);
  sweep_.reserve(kSweepRows);
  for (Raid5Row* row = cache_.oldestDirty(); row != nullptr; row = row->after) row->urgent = false;
  forgive();
}

// What could not be read or staged may be possible now.
void Raid5Io::forgive() noexcept {
  for (Raid5Row* row = cache_.oldestDirty(); row != nullptr; row = row->after) {
    // A batch that is to be staged counts what it finds lost itself.
    if (row->busy && static_cast<const Batch*>(row->owner)->op == nullptr) continue;
    row->lost = false;
    row->bad = 0;
  }
  state_.lostRows = 0;
}

Raid5Io::~Raid5Io() {
  if (inFlight() != 0) std::abort();
  for (const Batch& batch : staging_) {
    for (Raid5Row* row : batch.rows) untake(*row);
  }
}

// ---- requests

void Raid5Io::submit(Request& r) noexcept {
  requests_++;
  submits_++;
  if (r.op == metadisk::Op::read && readSingle(r)) return;
  Op* const taken = ops_.take();
  if (taken == nullptr) {
    requests_--;
    r.error = ENOMEM;
    return r.done(r);
  }
  Op& op = *taken;
  op = Op{};
  op.request = &r;
  if (r.op == metadisk::Op::flush || r.written) return goFlush(op);
  if (r.length > node_.size || r.offset > node_.size - r.length) return finish(op, EINVAL);
  switch (r.op) {
    case metadisk::Op::read: return r.length == 0 ? finish(op, 0) : goRead(op);
    case metadisk::Op::write:
    case metadisk::Op::zero:
      if (plan_.readOnly) return finish(op, EROFS);
      if (broken_) return finish(op, EIO);
      if (r.op == metadisk::Op::zero && r.fastZero) return finish(op, ENOTSUP);
      return goWrite(op);
    case metadisk::Op::trim:  // a hint that is not taken: parity would have to follow
      return finish(op, plan_.readOnly ? EROFS : 0);
    case metadisk::Op::extents:
      reinterpret_cast<Extent*>(r.data)[0] = {r.length, false};
      r.extents = r.length == 0 ? 0 : 1;
      return finish(op, 0);
    case metadisk::Op::cache:
    case metadisk::Op::flush: return finish(op, 0);
  }
}

void Raid5Io::finish(Op& op, int error) noexcept {
  Request& r = *op.request;
  if (op.again && error == 0) r.again = true;
  ops_.give(op);
  requests_--;
  r.error = error;
  r.done(r);
}

void Raid5Io::park(Op& op, bool failed) noexcept {
  Request& r = *op.request;
  ops_.give(op);
  requests_--;
  hold_.park(r, failed);
}

Raid5Io::Chunk Raid5Io::chunkAt(std::uint64_t offset, std::uint64_t most) const noexcept {
  const Raid5Place place = shape_.placeOf(offset);
  Chunk chunk;
  chunk.row = shape_.rowOf(place);
  chunk.column = place.column;
  chunk.at = static_cast<std::uint32_t>(place.within % Raid5Shape::kPage);
  chunk.length = static_cast<std::uint32_t>(std::min<std::uint64_t>(shape_.rowBytes(chunk.row) - chunk.at, most));
  chunk.sectors = Raid5Shape::sectorsOf(chunk.at, chunk.length);
  return chunk;
}

// ---- changes

void Raid5Io::goWrite(Op& op) noexcept {
  const Request& r = *op.request;
  while (op.at < r.length) {
    if (crowded()) return waitFor(op, Op::Wait::space, nullptr);
    const Chunk chunk = chunkAt(r.offset + op.at, r.length - op.at);
    Raid5Row* const row = cache_.obtain(chunk.row);
    if (row == nullptr) return waitFor(op, Op::Wait::space, nullptr);
    if (row->busy) return waitFor(op, Op::Wait::row, row);
    Raid5Cell& cell = row->cells[chunk.column];
    if (!cache_.needPage(*row, cell)) return waitFor(op, Op::Wait::space, nullptr);
    // Of a sector that is written in part the rest must be known.
    std::uint8_t edges = chunk.at % kSector != 0 ? Raid5Shape::sectorsOf(chunk.at, 1) : std::uint8_t{0};
    const std::uint32_t end = chunk.at + chunk.length;
    if (end % kSector != 0) edges |= Raid5Shape::sectorsOf(end - 1, 1);
    if ((edges & ~cell.valid) != 0) {
      Batch* const batch = batches_.take();
      if (batch == nullptr) return finish(op, ENOMEM);
      batch->op = &op;
      batch->rows.clear();
      batch->rows.reserve(kBatchRows);
      takeRow(*row, *batch);
      Planned planned = planFill(*row, chunk.column, edges, 0);
      if (planned == Planned::lost && anotherChance(op, *row)) planned = planFill(*row, chunk.column, edges, 0);
      if (planned == Planned::reads) return startFill(*batch);
      untake(*row);
      batches_.give(*batch);
      if (planned == Planned::lost || (row->lost && !anotherChance(op, *row))) return finish(op, EIO);
      if (planned == Planned::full) return waitFor(op, Op::Wait::space, nullptr);
      urge(*row);
      return waitFor(op, Op::Wait::row, row);
    }
    // Of what is on its way to the columns the rest must stay beside what is changed.
    if (!cache_.own(*row, cell, edges == 0 ? chunk.sectors : std::uint8_t{0})) {
      return waitFor(op, Op::Wait::space, nullptr);
    }
    if (r.op == metadisk::Op::zero) {
      std::memset(cell.page + chunk.at, 0, chunk.length);
    } else {
      std::memcpy(cell.page + chunk.at, r.data + op.at, chunk.length);
    }
    if (row->lost) {
      row->lost = false;
      state_.lostRows--;
    }
    cache_.soil(*row, cell, chunk.sectors, host_.now());
    op.at += chunk.length;
  }
  if (r.fua) {
    op.request->written = true;
    return goFlush(op);
  }
  finish(op, 0);
  if (wantsStaging()) pump();
}

void Raid5Io::goFlush(Op& op) noexcept {
  op.stamp = cache_.changes();
  if (oldestUncommitted(true) > op.stamp) return finish(op, 0);
  if (broken_) return finish(op, EIO);
  if (hold_.closed()) return park(op, true);
  stopped_ = false;  // it is tried again whenever somebody asks
  if (state_.lostRows != 0) forgive();
  op.wait = Op::Wait::flush;
  flushes_.add(op);
  flushTarget_ = std::max(flushTarget_, op.stamp);
  pump();
}

// The oldest change that is not on stable storage; UINT64_MAX: none.
std::uint64_t Raid5Io::oldestUncommitted(bool lostToo) const noexcept {
  std::uint64_t oldest = UINT64_MAX;
  const Raid5Row* row = cache_.oldestDirty();
  while (row != nullptr && row->lost && !lostToo) row = row->after;
  if (row != nullptr) oldest = row->stamp;
  for (const Raid5Group& group : state_.groups) {
    const bool underWay = group.phase == Raid5Group::Phase::writing || group.phase == Raid5Group::Phase::syncing;
    if (underWay) oldest = std::min(oldest, group.stamp);
  }
  return oldest;
}

void Raid5Io::checkFlushes() noexcept {
  const std::uint64_t certain = oldestUncommitted(true);
  const std::uint64_t tried = state_.lostRows != 0 ? oldestUncommitted(false) : certain;
  while (flushes_.head != nullptr && flushes_.head->stamp < tried) {
    Op& op = *flushes_.take();
    finish(op, op.stamp < certain ? 0 : EIO);
  }
}

// ---- waiting

void Raid5Io::Queue::add(Op& op) noexcept {
  op.next = nullptr;
  (tail != nullptr ? tail->next : head) = &op;
  tail = &op;
}

Raid5Io::Op* Raid5Io::Queue::take() noexcept {
  Op* const op = head;
  if (op != nullptr) head = op->next;
  if (head == nullptr) tail = nullptr;
  return op;
}

void Raid5Io::waitFor(Op& op, Op::Wait what, Raid5Row* row) noexcept {
  if (hold_.closed()) return park(op, false);
  op.wait = what;
  op.row = row;
  if (row != nullptr) row->waiters++;
  if (what == Op::Wait::space) starved_ = true;
  waiting_.add(op);
  pump();
}

void Raid5Io::urge(Raid5Row& row) noexcept {
  if (row.urgent || !row.dirty) return;
  row.urgent = true;
  urgent_++;
}

void Raid5Io::resume(Op& op) noexcept {
  if (op.row != nullptr) op.row->waiters--;
  op.row = nullptr;
  op.wait = Op::Wait::none;
  if (op.request->op == metadisk::Op::read) {
    goFill(op);
  } else {
    goWrite(op);
  }
}

// Nothing that is dirty can be staged, so no space for changes will ever be free. Who only reads needs no more than
// what is clean, which is there now that nothing is on its way.
void Raid5Io::failStarved() noexcept {
  if (!starved_ || staging() || flying_ != 0) return;
  if (state_.lostRows == 0 || !crowded() || oldestUncommitted(false) != UINT64_MAX) return;
  starved_ = false;
  Queue failed;
  Queue rest;
  while (Op* const op = waiting_.take()) (op->wait == Op::Wait::space ? failed : rest).add(*op);
  waiting_ = rest;
  while (Op* const op = failed.take()) {
    const bool reads = op->request->op == metadisk::Op::read;
    if (reads && flying_ != 0) {  // others have it, for now
      starved_ = true;
      waiting_.add(*op);
    } else if (reads && !std::exchange(op->starved, true)) {
      resume(*op);
    } else {
      finish(*op, EIO);
    }
  }
}

// Nobody holds the row any more.
void Raid5Io::release(Raid5Row& row) noexcept {
  row.busy = false;
  row.owner = nullptr;
  if (row.waiters != 0) wakeRow(row);
}

void Raid5Io::wakeRow(Raid5Row& row) noexcept {
  Queue woken;
  Queue rest;
  while (Op* const op = waiting_.take()) (op->row == &row ? woken : rest).add(*op);
  waiting_ = rest;
  while (Op* const op = woken.take()) resume(*op);
}

void Raid5Io::wakeSpace() noexcept {
  if (!starved_ || crowded()) return;
  starved_ = false;
  Queue woken;
  Queue rest;
  while (Op* const op = waiting_.take()) (op->wait == Op::Wait::space ? woken : rest).add(*op);
  waiting_ = rest;
  while (Op* const op = woken.take()) resume(*op);
}

// A column failed: what waits for the journal is driven again after the decision.
void Raid5Io::closeGate() noexcept {
  if (hold_.closed()) return;
  host_.attend();
  hold_.close();
  starved_ = false;
  while (Op* const op = flushes_.take()) park(*op, true);
  Queue all = std::exchange(waiting_, {});
  while (Op* const op = all.take()) {
    if (op->row != nullptr) op->row->waiters--;
    park(*op, false);
  }
}

void Raid5Io::failWaiting(int error) noexcept {
  starved_ = false;
  Queue all = std::exchange(flushes_, {});
  while (Op* const op = all.take()) finish(*op, error);
  all = std::exchange(waiting_, {});
  while (Op* const op = all.take()) {
    if (op->row != nullptr) op->row->waiters--;
    finish(*op, error);
  }
}

// ---- Ios

Raid5Io::Child* Raid5Io::newChild(Child::Kind kind, IoOp op, std::uint32_t column) noexcept {
  Child* const child = children_.take();
  if (child == nullptr) return nullptr;
  static_cast<Io&>(*child) = Io{};
  child->op = op;
  child->kind = kind;
  child->self = this;
  child->column = column;
  child->copy = false;
  child->rest = 0;
  child->file = files_[column];
  child->complete = onChild;
  child->request = nullptr;
  child->batch = nullptr;
  child->group = nullptr;
  return child;
}

void Raid5Io::start(Child& child) noexcept {
  if (child.kind > Child::Kind::read) flying_++;
  backend_.start(child);
}

void Raid5Io::onChild(Io& io) noexcept {
  Child& child = static_cast<Child&>(io);
  Raid5Io& self = *child.self;
  if (child.offsets != nullptr && child.result != 0) {
    child.rest = child.iovCount;
    return self.nextPiece(child);
  }
  switch (child.kind) {
    case Child::Kind::single: return self.singleDone(child);
    case Child::Kind::read: {
      Op& op = *child.request;
      if (child.result != 0) {
        self.report(child, true);
        self.wantRepair(child.column, child.offset - self.node_.columns[child.column].start, child.length,
                        -child.result);
        op.avoided |= ColumnSet{1} << child.column;
        op.again = std::exchange(child.held, false) || op.again;
      }
      self.children_.give(child);
      return self.drop(op);
    }
    case Child::Kind::fill: {
      Batch& batch = *child.batch;
      if (child.result != 0) {
        self.report(child, true);
        self.wantRepair(child.column, child.offset - self.node_.columns[child.column].start, child.length,
                        -child.result);
        self.fillFailed(child);
      }
      if (child.rest != 0) return self.nextPiece(child);
      self.flying_--;
      self.children_.give(child);
      if (--batch.pending == 0) self.readsDone(batch);
      return;
    }
    case Child::Kind::write:
    case Child::Kind::sync:
    case Child::Kind::place:
      if (self.toCopy(child)) return;
      if (child.rest != 0 && child.result == 0) return self.nextPiece(child);
      self.flying_--;
      return self.groupIoDone(child);
  }
}

void Raid5Io::report(const Child& child, bool masked) noexcept {
  const ComponentOp op = child.op == IoOp::sync   ? ComponentOp::flush
                         : child.op == IoOp::read ? ComponentOp::read
                                                  : ComponentOp::write;
  // A read is made up for by the others, unless one of them is missing.
  const ColumnSet others = (ColumnSet{1} << child.column) | readable_;
  const ColumnSet all = shape_.columns() == 64 ? ~ColumnSet{0} : (ColumnSet{1} << shape_.columns()) - 1;
  if (child.op == IoOp::read && others != all) masked = false;
  host_.componentError({.component = componentOf(child),
                        .op = op,
                        .block = child.offset / kSector,
                        .error = -child.result,
                        .masked = masked});
}

}  // namespace metadisk
