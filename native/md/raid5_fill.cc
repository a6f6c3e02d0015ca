// What is read into rows and computed there: sectors a request needs and cannot have otherwise, and what it takes to
// make the parity of changed sectors.
//
// Parity is made anew from all data (rebuilt sectors), or from what it was and what changed (the others), by what
// needs fewer reads; where both need as many by the latter, because what was read is then written again while it is
// still in the processor's cache. Where a data column is missing, only sectors whose data it has in the cache can be
// rebuilt.
#include <algorithm>
#include <bit>
#include <cerrno>

#include "core/xorsum.h"
#include "md/raid5_io.h"

namespace metadisk {

namespace {

constexpr std::uint32_t kSector = Raid5Shape::kSector;

// Visits the runs of neighbouring sectors of a set: visit(first byte, bytes).
template <typename Visit>
void eachRun(std::uint8_t sectors, Visit visit) noexcept {
  unsigned rest = sectors;
  while (rest != 0) {
    const unsigned first = static_cast<unsigned>(std::countr_zero(rest));
    const unsigned count = static_cast<unsigned>(std::countr_one(rest >> first));
    visit(first * kSector, count * kSector);
    rest &= ~(((1U << count) - 1) << first);
  }
}

}  // namespace

// ---- plans

void Raid5Io::takeRow(Raid5Row& row, Batch& batch) noexcept {
  row.busy = true;
  row.owner = &batch;
  row.failed = false;
  row.regenMask = row.rebuilt = 0;
  batch.rows.push_back(&row);
}

// What was planned is dropped, and nobody is woken.
void Raid5Io::untake(Raid5Row& row) noexcept {
  for (std::uint32_t c = 0; c < shape_.columns(); c++) row.cells[c].want = row.cells[c].wantOld = 0;
  row.regenMask = row.rebuilt = 0;
  row.busy = row.failed = false;
  row.owner = nullptr;
  cache_.dropOld(row);
}

// Plans to make sectors of a cell valid.
Raid5Io::Planned Raid5Io::planFill(Raid5Row& row, std::uint32_t column, std::uint8_t sectors,
                                   ColumnSet avoided) noexcept {
  const auto usable = [&](std::uint32_t c) { return readable(row, c) && (avoided >> c & 1U) == 0; };
  Raid5Cell& cell = row.cells[column];
  const auto missing = static_cast<std::uint8_t>(sectors & ~cell.valid);
  if (missing == 0) return Planned::ready;
  if (!cache_.needPage(row, cell)) return Planned::full;
  if (usable(column)) {
    cell.want |= missing;
    return Planned::reads;
  }
  if (row.regenMask != 0 && row.regen != column) return Planned::lost;
  for (std::uint32_t k = 0; k < shape_.columns(); k++) {
    if (k == column) continue;
    // Parity does not know of it yet.
    if ((row.cells[k].dirty & missing) != 0) return Planned::blocked;
    if (!usable(k) && (missing & ~row.cells[k].valid) != 0) return Planned::lost;
  }
  for (std::uint32_t k = 0; k < shape_.columns(); k++) {
    if (k != column && !cache_.needPage(row, row.cells[k])) return Planned::full;
  }
  for (std::uint32_t k = 0; k < shape_.columns(); k++) {
    Raid5Cell& other = row.cells[k];
    if (k != column) other.want = static_cast<std::uint8_t>(other.want | (missing & ~other.valid));
  }
  row.regen = column;
  row.regenMask |= missing;
  return Planned::reads;
}

// What could not be read or staged before may be possible now, which every request finds out for itself, once, before
// it is told EIO. False: it has.
bool Raid5Io::anotherChance(Op& op, Raid5Row& row) noexcept {
  if (op.retried == row.key || (row.bad == 0 && !row.lost)) return false;
  op.retried = row.key;
  row.bad = 0;
  if (std::exchange(row.lost, false)) state_.lostRows--;
  return true;
}

std::uint8_t Raid5Io::dirtySectors(const Raid5Row& row, std::uint32_t besides) const noexcept {
  std::uint8_t all = 0;
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    if (c != besides) all |= row.cells[c].dirty;
  }
  return all;
}

// Plans what has to be read before the row's parity can be made.
Raid5Io::Planned Raid5Io::planStage(Raid5Row& row) noexcept {
  const std::uint32_t columns = shape_.columns();
  const std::uint32_t parity = shape_.parityColumn(shape_.lineOf(row.key));
  row.rebuilt = 0;
  if ((writable_ >> parity & 1U) == 0) return Planned::ready;
  Raid5Cell& p = row.cells[parity];
  const std::uint8_t changed = dirtySectors(row, parity);
  if (!cache_.needPage(row, p)) return Planned::full;

  // Data columns that cannot be read: whatever they have in the cache counts.
  bool missing = false;
  unsigned rebuildReads = 0;
  unsigned updateReads = (changed & ~p.valid) != 0 ? 1 : 0;
  std::uint8_t possible = changed;  // to be rebuilt
  for (std::uint32_t k = 0; k < columns; k++) {
    if (k == parity) continue;
    const Raid5Cell& cell = row.cells[k];
    if ((changed & ~cell.valid) != 0) rebuildReads++;
    if (cell.dirty != 0) updateReads++;
    if (readable(row, k) || (changed & ~cell.valid) == 0) continue;
    missing = true;
    possible &= cell.valid;
  }
  std::uint8_t rebuilt = possible;
  const bool updatable = [&] {
    if (!readable(row, parity) && (changed & ~p.valid) != 0) return false;
    for (std::uint32_t k = 0; k < columns; k++) {
      if (k != parity && row.cells[k].dirty != 0 && !readable(row, k)) return false;
    }
    return true;
  }();
  if (!missing && updatable && updateReads <= rebuildReads) rebuilt = 0;
  const auto updated = static_cast<std::uint8_t>(changed & ~rebuilt);
  if (updated != 0) {
    if (!readable(row, parity) && (updated & ~p.valid) != 0) return Planned::lost;
    for (std::uint32_t k = 0; k < columns; k++) {
      if (k != parity && (row.cells[k].dirty & updated) != 0 && !readable(row, k)) return Planned::lost;
    }
  }
  for (std::uint32_t k = 0; k < columns; k++) {
    Raid5Cell& cell = row.cells[k];
    if (k == parity) continue;
    if ((rebuilt & ~cell.valid) != 0 && !cache_.needPage(row, cell)) return Planned::full;
    if ((cell.dirty & updated) != 0 && !cache_.needOld(row, cell)) return Planned::full;
  }
  row.rebuilt = rebuilt;
  bool reads = false;
  for (std::uint32_t k = 0; k < columns; k++) {
    Raid5Cell& cell = row.cells[k];
    cell.want = static_cast<std::uint8_t>((k == parity ? updated : rebuilt) & ~cell.valid);
    cell.wantOld = k == parity ? std::uint8_t{0} : static_cast<std::uint8_t>(cell.dirty & updated);
    reads = reads || cell.want != 0 || cell.wantOld != 0;
  }
  return reads ? Planned::reads : Planned::ready;
}

// ---- reads

void Raid5Io::startFill(Batch& batch) noexcept {
  std::sort(batch.rows.begin(), batch.rows.end(), [](const Raid5Row* a, const Raid5Row* b) { return a->key < b->key; });
  startReads(batch);
}

// Column by column, neighbours in one Io.
void Raid5Io::startReads(Batch& batch) noexcept {
  batch.parities = parities_;
  batch.pending = 1;
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    Child* open = nullptr;
    for (Raid5Row* row : batch.rows) addRead(batch, open, *row, c, row->cells[c].page, row->cells[c].want);
    for (Raid5Row* row : batch.rows) addRead(batch, open, *row, c, row->cells[c].old, row->cells[c].wantOld);
    if (open != nullptr) {
      batch.pending++;
      start(*open);
    }
  }
  if (--batch.pending == 0) readsDone(batch);
}

void Raid5Io::addRead(Batch& batch, Child*& open, Raid5Row& row, std::uint32_t column, std::byte* page,
                      std::uint8_t sectors) noexcept {
  const auto launch = [&] {
    if (open == nullptr) return;
    batch.pending++;
    start(*std::exchange(open, nullptr));
  };
  if (row.alone) launch();
  eachRun(sectors, [&](std::uint32_t at, std::uint32_t length) {
    const std::uint64_t offset = node_.columns[column].start + shape_.rowStart(row.key) + at;
    if (open != nullptr && !takesMore(*open, offset)) launch();
    if (open == nullptr) {
      open = newChild(Child::Kind::fill, IoOp::read, column);
      if (open == nullptr) {  // as if it could not be read
        row.failed = true;
        row.cells[column].want = row.cells[column].wantOld = 0;
        row.bad |= ColumnSet{1} << column;
        return;
      }
      open->batch = &batch;
      open->bulk = batch.op == nullptr && batch.rows.size() >= kBulkRows;
      open->offset = offset;
      open->iov = open->pieces.data();
      if (!row.alone && scatters(column)) open->offsets = open->places.data();
    }
    addPiece(*open, offset, page + at, length);
  });
  if (row.alone) launch();
}

// The column is bad in the row whose read failed; of several neighbours each is read by itself first, for all but one
// may be good.
void Raid5Io::fillFailed(const Child& child) noexcept {
  const std::uint64_t first = child.offset - node_.columns[child.column].start;
  if (child.result == -ETIMEDOUT && child.batch->op != nullptr) child.batch->op->hung = true;
  const auto concerned = [&](const Raid5Row& row) {
    const std::uint64_t start = shape_.rowStart(row.key);
    return start < first + child.length && first < start + shape_.rowBytes(row.key);
  };
  const auto rows = std::count_if(child.batch->rows.begin(), child.batch->rows.end(),
                                  [&](const Raid5Row* row) { return concerned(*row); });
  for (Raid5Row* row : child.batch->rows) {
    if (!concerned(*row)) continue;
    row->failed = true;
    if (rows > 1) {
      row->alone = true;
    } else {
      row->bad |= ColumnSet{1} << child.column;
    }
    row->cells[child.column].want = row->cells[child.column].wantOld = 0;
  }
}

void Raid5Io::readsDone(Batch& batch) noexcept {
  bool again = false;
  for (Raid5Row* row : batch.rows) {
    Raid5Cell& parity = row->cells[shape_.parityColumn(shape_.lineOf(row->key))];
    if (batch.parities != parities_ && parity.want != 0) {  // it may be what parity was
      parity.want = 0;
      row->failed = true;
    }
    for (std::uint32_t c = 0; c < shape_.columns(); c++) {
      Raid5Cell& cell = row->cells[c];
      cell.valid |= cell.want;
      cell.want = cell.wantOld = 0;
    }
    if (!row->failed) continue;
    row->failed = false;
    if (batch.op != nullptr) {
      row->regenMask = 0;  // the request plans it anew, with what is known now
    } else {
      const Planned planned = planStage(*row);
      if (planned == Planned::full || planned == Planned::lost) row->failed = true;
      if (planned == Planned::lost) row->lost = true;
      again = again || planned == Planned::reads;
    }
  }
  if (again) return startReads(batch);
  if (batch.apart != nullptr) return apartRead(batch);
  if (batch.op != nullptr) return endFill(batch);
  // What cannot be staged goes back, and stays dirty.
  std::sort(batch.rows.begin(), batch.rows.end(),
            [](const Raid5Row* a, const Raid5Row* b) { return a->failed != b->failed ? b->failed : a->key < b->key; });
  while (!batch.rows.empty() && batch.rows.back()->failed) {
    Raid5Row& row = *batch.rows.back();
    batch.rows.pop_back();
    untake(row);
    if (row.lost) {
      state_.lostRows++;
      if (std::exchange(row.urgent, false)) urgent_--;
    }
    release(row);
  }
  if (state_.lostRows != 0) checkFlushes();
  batch.stage = Batch::Stage::ready;
  pump();
}

void Raid5Io::regenerate(Raid5Row& row) noexcept {
  Raid5Cell& target = row.cells[row.regen];
  XorSum others;
  for (std::uint32_t k = 0; k < shape_.columns(); k++) {
    if (k != row.regen) others.add(row.cells[k].page);
  }
  eachRun(row.regenMask, [&](std::uint32_t at, std::uint32_t length) { others.into(target.page, at, length); });
  target.valid |= row.regenMask;
  row.regenMask = 0;
}

void Raid5Io::endFill(Batch& batch) noexcept {
  Op& op = *batch.op;
  for (Raid5Row* row : batch.rows) {
    if (row->regenMask != 0) regenerate(*row);
    cache_.touch(*row);
  }
  if (op.request->op == metadisk::Op::read) copyOut(op);
  // The request goes on before those that wait for these rows or for space: they would take its row out of the cache,
  // and with it what is known to be bad there. Who gets no space is not refused before all have had their turn.
  const bool pumping = std::exchange(pumping_, true);
  const Request& r = *op.request;
  Raid5Row* const row = op.at < r.length ? cache_.find(chunkAt(r.offset + op.at, r.length - op.at).row) : nullptr;
  if (row != nullptr) row->waiters++;
  for (Raid5Row* filled : batch.rows) release(*filled);
  batches_.give(batch);
  if (r.op == metadisk::Op::read) {
    goFill(op);
  } else {
    goWrite(op);
  }
  if (row != nullptr) row->waiters--;
  wakeSpace();
  pumping_ = pumping;
  pump();
}

// Everything that planStage() asked for is there.
void Raid5Io::computeParity(Raid5Row& row) noexcept {
  const std::uint32_t columns = shape_.columns();
  const std::uint32_t parity = shape_.parityColumn(shape_.lineOf(row.key));
  Raid5Cell& p = row.cells[parity];
  const std::uint8_t changed = dirtySectors(row, parity);
  if ((writable_ >> parity & 1U) == 0) {
    p.valid &= static_cast<std::uint8_t>(~changed);  // it is not followed any more
    return;
  }
  if (row.rebuilt != 0) {
    XorSum data;
    for (std::uint32_t k = 0; k < columns; k++) {
      if (k != parity) data.add(row.cells[k].page);
    }
    eachRun(row.rebuilt, [&](std::uint32_t at, std::uint32_t length) { data.into(p.page, at, length); });
  }
  const auto updated = static_cast<std::uint8_t>(changed & ~row.rebuilt);
  for (std::uint32_t k = 0; k < columns && updated != 0; k++) {
    const Raid5Cell& cell = row.cells[k];
    if (k == parity || (cell.dirty & updated) == 0) continue;
    XorSum change;
    for (std::byte* const page : {p.page, cell.old, cell.page}) change.add(page);
    eachRun(static_cast<std::uint8_t>(cell.dirty & updated),
            [&](std::uint32_t at, std::uint32_t length) { change.into(p.page, at, length); });
  }
  p.valid |= changed;
}

}  // namespace metadisk
