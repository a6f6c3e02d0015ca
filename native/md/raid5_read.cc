// Reads: from the cache, straight from the columns, and by way of rows where a column is missing or failed.
#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "md/raid5_io.h"

namespace metadisk {

namespace {

constexpr std::uint32_t kSector = Raid5Shape::kSector;

}  // namespace

// A row that is dirty, on its way, or of a journal that is not replayed, is not what the columns hold.
bool Raid5Io::inPlace(std::uint64_t offset, std::uint64_t length) noexcept {
  if (settled()) return true;
  for (std::uint64_t at = 0; at < length;) {
    const Chunk chunk = chunkAt(offset + at, length - at);
    at += chunk.length;
    const Raid5Row* const row = cache_.find(chunk.row);
    if (row != nullptr && (row->dirty || row->pins != 0)) return false;
  }
  return true;
}

std::size_t Raid5Io::ranges(std::uint64_t offset, std::uint64_t length, std::span<FileRange> out) noexcept {
  if (length > node_.size || offset > node_.size - length) return 0;
  std::size_t count = 0;
  for (std::uint64_t at = 0; at < length;) {
    const Raid5Place place = shape_.placeOf(offset + at);
    const std::uint64_t run = std::min(shape_.segment() - place.within, length - at);
    const std::uint64_t from = place.line * shape_.segment() + place.within;
    const std::size_t more = rangesOf(place.column, from, run, out.subspan(count));
    if (more == 0) return 0;
    count += more;
    at += run;
  }
  return inPlace(offset, length) ? count : 0;
}

// Of a part of a column's data: the column itself, or all others of a single one that may not be read. Where a row is
// in place its parity is, too.
std::size_t Raid5Io::rangesOf(std::uint32_t column, std::uint64_t offset, std::uint64_t length,
                              std::span<FileRange> out) const noexcept {
  const bool itself = (readable_ >> column & 1U) != 0;
  const std::uint32_t columns = shape_.columns();
  if (!itself && static_cast<std::uint32_t>(std::popcount(readable_)) + 1 != columns) return 0;
  const std::uint32_t summed = itself ? 1 : columns - 1;
  if (summed > out.size()) return 0;
  std::size_t count = 0;
  for (std::uint32_t c = 0; c < columns; c++) {
    if ((c == column) != itself) continue;
    const ComponentFile& file = *files_[c];
    const std::uint64_t from = node_.columns[c].start + offset;
    if (!file.lendsPages() || from + length > file.size.load(std::memory_order_relaxed)) return 0;
    out[count++] = {file.fd.get(), from, length, summed};
  }
  return count;
}

// A read of one place is one Io, or a copy from the cache. False: it is neither.
bool Raid5Io::readSingle(Request& r) noexcept {
  if (r.length == 0 || r.length > node_.size || r.offset > node_.size - r.length) return false;
  const Raid5Place place = shape_.placeOf(r.offset);
  if (r.length > shape_.segment() - place.within || (readable_ >> place.column & 1U) == 0) return false;
  if (!settled()) {
    const std::uint64_t at = place.within % Raid5Shape::kPage;
    if (at + r.length > Raid5Shape::kPage) return false;
    if (const Raid5Row* const row = cache_.find(shape_.rowOf(place)); row != nullptr) {
      const Raid5Cell& cell = row->cells[place.column];
      const std::uint8_t sectors =
          Raid5Shape::sectorsOf(static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(r.length));
      if ((sectors & ~cell.valid) == 0) {
        std::memcpy(r.data, cell.page + at, r.length);
        requests_--;
        r.error = 0;
        r.done(r);
        return true;
      }
      if ((sectors & cell.valid) != 0) return false;
    }
  }
  Child* const child = newChild(Child::Kind::single, IoOp::read, place.column);
  if (child == nullptr) return false;
  child->client = &r;
  child->offset = node_.columns[place.column].start + place.line * shape_.segment() + place.within;
  child->length = r.length;
  child->data = r.data;
  start(*child);
  return true;
}

void Raid5Io::singleDone(Child& child) noexcept {
  Request& r = *child.client;
  const ColumnSet column = ColumnSet{1} << child.column;
  const bool failed = child.result != 0;
  if (failed) [[unlikely]] {
    report(child, true);
    wantRepair(child.column, child.offset - node_.columns[child.column].start, child.length, -child.result);
    r.again = std::exchange(child.held, false);
  }
  children_.give(child);
  Op* const op = failed && !r.again ? ops_.take() : nullptr;
  if (op == nullptr) {
    requests_--;
    r.error = failed && !r.again ? ENOMEM : 0;
    return r.done(r);
  }
  *op = Op{};
  op->request = &r;
  op->avoided = column;
  goFill(*op);
}

// What the cache holds comes from there, the rest straight from the columns; what cannot be read so, by way of rows.
void Raid5Io::goRead(Op& op) noexcept {
  const Request& r = *op.request;
  op.pending = 1;
  const bool direct = settled();  // or else row by row
  Open open;
  for (std::uint64_t at = 0; at < r.length && op.error == 0;) {
    std::byte* const data = r.data + at;
    if (direct) {
      const Raid5Place place = shape_.placeOf(r.offset + at);
      const std::uint64_t run = std::min(shape_.segment() - place.within, r.length - at);
      if (byRows(op, place.column)) {
        op.filling = true;
      } else {
        readDirect(op, open, place.column, place.line * shape_.segment() + place.within, data, run);
      }
      at += run;
      continue;
    }
    const Chunk chunk = chunkAt(r.offset + at, r.length - at);
    Raid5Row* const row = cache_.find(chunk.row);
    if (row != nullptr && (chunk.sectors & ~row->cells[chunk.column].valid) == 0) {
      std::memcpy(data, row->cells[chunk.column].page + chunk.at, chunk.length);
    } else if (byRows(op, chunk.column)) {
      op.filling = true;
    } else if (row != nullptr && row->cells[chunk.column].valid != 0) {
      readChunk(op, open, chunk, *row, data);
    } else {
      readDirect(op, open, chunk.column, shape_.rowStart(chunk.row) + chunk.at, data, chunk.length);
    }
    at += chunk.length;
  }
  while (open.head != nullptr) {
    Child& child = static_cast<Child&>(*open.head);
    open.head = child.next;
    op.pending++;
    start(child);
  }
  drop(op);
}

// Sector by sector, because only some of them are in the cache.
void Raid5Io::readChunk(Op& op, Open& open, const Chunk& chunk, const Raid5Row& row, std::byte* data) noexcept {
  const Raid5Cell& cell = row.cells[chunk.column];
  for (std::uint32_t done = 0; done < chunk.length;) {
    const std::uint32_t at = chunk.at + done;
    const std::uint32_t run = std::min(kSector - at % kSector, chunk.length - done);
    if ((cell.valid >> (at / kSector) & 1U) != 0) {
      std::memcpy(data + done, cell.page + at, run);
    } else {
      readDirect(op, open, chunk.column, shape_.rowStart(chunk.row) + at, data + done, run);
    }
    done += run;
  }
}

void Raid5Io::readDirect(Op& op, Open& open, std::uint32_t column, std::uint64_t offset, std::byte* data,
                         std::uint64_t length) noexcept {
  const std::uint64_t at = node_.columns[column].start + offset;
  Child* last = open.last[column];
  if (last != nullptr && last->offset + last->length == at) {
    iovec& end = last->pieces[last->iovCount - 1];
    if (static_cast<std::byte*>(end.iov_base) + end.iov_len == data) {
      end.iov_len += length;
      last->length += length;
      return;
    }
    if (last->iovCount < kIovecsMax) {
      last->pieces[last->iovCount++] = {data, length};
      last->length += length;
      return;
    }
  }
  Child* const child = newChild(Child::Kind::read, IoOp::read, column);
  if (child == nullptr) {
    op.error = ENOMEM;
    return;
  }
  child->op = IoOp::read;
  child->request = &op;
  child->offset = at;
  child->length = length;
  child->pieces[0] = {data, length};
  child->iov = child->pieces.data();
  child->iovCount = 1;
  child->next = nullptr;
  (open.tail != nullptr ? open.tail->next : open.head) = child;
  open.tail = open.last[column] = child;
}

// One Io of a read is back, or all have been started.
void Raid5Io::drop(Op& op) noexcept {
  if (--op.pending != 0) return;
  if (op.error != 0 || op.again) return finish(op, op.error);
  if (!op.filling && op.avoided == 0) return finish(op, 0);
  goFill(op);
}

// Copies what lies in the cache now, from where the request stands.
void Raid5Io::copyOut(Op& op) noexcept {
  const Request& r = *op.request;
  while (op.at < r.length) {
    const Chunk chunk = chunkAt(r.offset + op.at, r.length - op.at);
    if (byRows(op, chunk.column)) {
      const Raid5Row* const row = cache_.find(chunk.row);
      if (row == nullptr || (chunk.sectors & ~row->cells[chunk.column].valid) != 0) return;
      std::memcpy(r.data + op.at, row->cells[chunk.column].page + chunk.at, chunk.length);
    }
    op.at += chunk.length;
  }
}

void Raid5Io::goFill(Op& op) noexcept {
  const Request& r = *op.request;
  copyOut(op);
  if (op.at == r.length) return finish(op, 0);
  if (broken_) return goApart(op, nullptr);
  Batch* const batch = batches_.take();
  if (batch == nullptr) return finish(op, ENOMEM);
  batch->op = &op;
  batch->rows.clear();
  batch->rows.reserve(kBatchRows);
  Planned planned = Planned::reads;
  Raid5Row* row = nullptr;
  for (std::uint64_t at = op.at; at < r.length && batch->rows.size() < kBatchRows;) {
    const Chunk chunk = chunkAt(r.offset + at, r.length - at);
    at += chunk.length;
    if (!byRows(op, chunk.column)) continue;
    row = cache_.obtain(chunk.row);
    planned = row == nullptr ? Planned::full : Planned::blocked;
    if (row == nullptr || (row->busy && row->owner != batch)) break;
    const bool mine = row->busy;
    if (!mine) takeRow(*row, *batch);
    planned = planFill(*row, chunk.column, chunk.sectors, op.avoided);
    // Each of them may be readable here, and only somewhere else not.
    if (planned == Planned::lost && op.avoided != 0) planned = planFill(*row, chunk.column, chunk.sectors, 0);
    const bool first = !mine && batch->rows.size() == 1;
    if (planned == Planned::lost && first && anotherChance(op, *row)) {
      planned = planFill(*row, chunk.column, chunk.sectors, 0);
    }
    if (planned == Planned::ready || planned == Planned::reads) continue;
    if (!mine) {
      batch->rows.pop_back();
      untake(*row);
    }
    break;
  }
  if (!batch->rows.empty()) {
    op.starved = false;
    return startFill(*batch);
  }
  batches_.give(*batch);
  const bool hopeless = planned == Planned::blocked && !row->busy && row->lost && !anotherChance(op, *row);
  if (planned == Planned::lost || hopeless) return goApart(op, row);
  if (planned == Planned::full) return waitFor(op, Op::Wait::space, nullptr);
  if (!row->busy) urge(*row);
  waitFor(op, Op::Wait::row, row);
}

}  // namespace metadisk
