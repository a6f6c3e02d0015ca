// Reads past the cache, in rows and memory of the request's own: while too much is missing for anything to be staged,
// and of rows of which too much seems to be missing.
//
// What is staged would have to go first, if the row were filled in the cache; here each sector is computed from what
// parity knows of: of a dirty sector what its group is written from, or what is in place. What cannot be had for all
// sectors at once is asked for one by one, so that a read fails only for a sector that needs two columns of which
// neither can be read there.
// Invariant: what was loaded from the cache stays right, as what is in place does. Either nothing is written while
// this plan lasts (broken_), or the row in the cache is the batch's; parity that somebody else repairs meanwhile is
// loaded again.
#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "md/raid5_io.h"

namespace metadisk {

namespace {

constexpr std::uint32_t kSector = Raid5Shape::kSector;
constexpr std::uint32_t kPage = Raid5Shape::kPage;
constexpr std::uint8_t kEach = 0xff;  // of Apart::Part::sector: one after another, from the first on

void copySectors(std::byte* to, const std::byte* from, std::uint8_t sectors) noexcept {
  for (unsigned rest = sectors; rest != 0; rest &= rest - 1) {
    const auto at = static_cast<unsigned>(std::countr_zero(rest)) * kSector;
    std::memcpy(to + at, from + at, kSector);
  }
}

}  // namespace

// `owned`: the row of the cache that the request stands at, which nobody else has; null while nothing is written.
void Raid5Io::goApart(Op& op, Raid5Row* owned) noexcept {
  Batch* const batch = batches_.take();
  Apart* const apart = batch != nullptr ? aparts_.take() : nullptr;
  if (apart == nullptr) {
    if (batch != nullptr) batches_.give(*batch);
    return finish(op, ENOMEM);
  }
  batch->op = &op;
  batch->rows.clear();
  batch->apart = apart;
  apart->most = owned != nullptr ? 1 : std::clamp<std::uint32_t>(kApartPages / shape_.columns(), 1, kApartRows);
  apart->count = 0;
  apart->owned = owned;
  apart->driven = false;
  if (owned != nullptr) {
    owned->busy = true;
    owned->owner = batch;
  }
  driveApart(*batch);
}

// Completions inside start() come back here, too: no request is deeper in the stack for being longer.
void Raid5Io::driveApart(Batch& batch) noexcept {
  Apart& apart = *batch.apart;
  if (std::exchange(apart.driven, true)) {
    apart.again = true;
    return;
  }
  do {
    apart.again = false;
    if (!stepApart(batch)) return;
  } while (apart.again);
  apart.driven = false;
}

// What is there goes to the request, what is not is asked for. False: the batch is over.
bool Raid5Io::stepApart(Batch& batch) noexcept {
  Op& op = *batch.op;
  Apart& apart = *batch.apart;
  for (;;) {
    if (apart.count == 0 && !openApart(batch)) return endApart(batch, 0);
    if (!loadApart(batch)) return endApart(batch, ENOMEM);
    batch.rows.clear();
    for (std::uint32_t i = 0; i < apart.count; i++) {
      Apart::Part& part = apart.parts[i];
      if (part.done) continue;
      const Planned planned = planApart(op, part);
      if (planned == Planned::lost) return endApart(batch, EIO);
      if (planned == Planned::reads) {
        batch.rows.push_back(&part.row);
        continue;
      }
      std::memcpy(op.request->data + part.at, part.row.cells[part.chunk.column].page + part.chunk.at,
                  part.chunk.length);
      part.done = true;
    }
    if (!batch.rows.empty()) break;
    op.at = apart.end;
    apart.count = 0;
    if (apart.owned != nullptr) return endApart(batch, 0);
  }
  startFill(batch);
  return true;
}

// Reads of the batch are back.
void Raid5Io::apartRead(Batch& batch) noexcept {
  for (Raid5Row* row : batch.rows) {
    if (row->regenMask != 0 && batch.parities == parities_) regenerate(*row);
    row->regenMask = 0;
  }
  driveApart(batch);
}

bool Raid5Io::endApart(Batch& batch, int error) noexcept {
  Op& op = *batch.op;
  Apart& apart = *std::exchange(batch.apart, nullptr);
  Raid5Row* const owned = apart.owned;
  aparts_.give(apart);
  batches_.give(batch);
  const bool pumping = std::exchange(pumping_, true);
  if (owned != nullptr) release(*owned);
  if (error != 0 || op.at == op.request->length) {
    finish(op, error);
  } else {
    goFill(op);
  }
  wakeSpace();
  pumping_ = pumping;
  pump();
  return false;
}

// The next parts of the request, of a row each. False: there are none.
bool Raid5Io::openApart(Batch& batch) noexcept {
  const Op& op = *batch.op;
  Apart& apart = *batch.apart;
  const Request& r = *op.request;
  apart.end = op.at;
  apart.loaded = false;
  while (apart.end < r.length && apart.count < apart.most) {
    const Chunk chunk = chunkAt(r.offset + apart.end, r.length - apart.end);
    if (byRows(op, chunk.column)) {
      const auto same = [&](const Apart::Part& part) { return part.row.key == chunk.row; };
      if (std::any_of(apart.parts.begin(), apart.parts.begin() + apart.count, same)) break;
      Apart::Part& part = apart.parts[apart.count++];
      part.chunk = chunk;
      part.at = apart.end;
      part.sector = 0;
      part.done = false;
      part.row = Raid5Row{};
      part.row.key = chunk.row;
      // It is known that not all of them can be had at once.
      if (apart.owned != nullptr && apart.owned->bad != 0) part.sector = kEach;
    }
    apart.end += chunk.length;
  }
  return apart.count != 0;
}

// What the cache has of them. What was read is kept, unless its memory is a hanging column's, or parity has changed.
bool Raid5Io::loadApart(Batch& batch) noexcept {
  Apart& apart = *batch.apart;
  const std::uint32_t columns = shape_.columns();
  if (apart.pages.get() == nullptr) {
    const std::size_t rows = std::clamp<std::uint32_t>(kApartPages / columns, 1, kApartRows);
    if (!apart.pages.make(backend_.held(), rows * columns * kPage)) return false;
  }
  const std::byte* const before = apart.pages.get();
  if (!apart.pages.fresh()) return false;
  if (std::exchange(apart.loaded, true) && apart.pages.get() == before && batch.parities == parities_) return true;
  for (std::uint32_t i = 0; i < apart.count; i++) {
    Apart::Part& part = apart.parts[i];
    const Raid5Row* const cached = cache_.find(part.row.key);
    part.row.cells = part.cells.data();
    part.row.regenMask = 0;
    for (std::uint32_t c = 0; c < columns; c++) {
      Raid5Cell& to = part.cells[c];
      to = {};
      to.page = apart.pages.get() + (std::size_t{i} * columns + c) * kPage;
      if (cached == nullptr) continue;
      const Raid5Cell& from = cached->cells[c];
      // The request wants what was written last, the sum what parity was made of.
      const auto known = c == part.chunk.column ? from.valid : static_cast<std::uint8_t>(from.valid & ~from.dirty);
      const auto staged = from.staged == nullptr ? std::uint8_t{0} : static_cast<std::uint8_t>(from.known & ~known);
      copySectors(to.page, from.page, known);
      copySectors(to.page, from.staged, staged);
      to.valid = known | staged;
    }
  }
  batch.parities = parities_;
  return true;
}

Raid5Io::Planned Raid5Io::planApart(const Op& op, Apart::Part& part) noexcept {
  Raid5Row& row = part.row;
  const auto plan = [&](std::uint8_t sectors) {
    const Planned planned = planFill(row, part.chunk.column, sectors, op.avoided);
    // Each of them may be readable here, and only somewhere else not.
    return planned == Planned::lost && op.avoided != 0 ? planFill(row, part.chunk.column, sectors, 0) : planned;
  };
  const unsigned missing = part.chunk.sectors & ~static_cast<unsigned>(row.cells[part.chunk.column].valid);
  if (missing == 0) return Planned::ready;
  if (part.sector == 0) {
    const Planned planned = plan(static_cast<std::uint8_t>(missing));
    if (planned != Planned::lost || row.bad == 0) return planned;
  }
  if (op.hung) return Planned::lost;  // it would hang again
  // What cannot be read of one sector says nothing of the next.
  const auto lowest = static_cast<std::uint8_t>(missing & -missing);
  if (std::exchange(part.sector, lowest) != lowest) row.bad = 0;
  return plan(lowest);
}

}  // namespace metadisk
