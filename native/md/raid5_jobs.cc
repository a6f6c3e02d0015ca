#include "md/raid5_jobs.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <new>

#include "core/xorsum.h"

namespace metadisk {

Raid5Jobs::Raid5Jobs(const Plan& plan, std::span<ComponentFile* const> files, Backend& backend, VolumeHost& host,
                     Raid5Io& io)
    : plan_(plan),
      node_(std::get<Raid5Node>(plan.root())),
      backend_(backend),
      host_(host),
      io_(io),
      shape_(node_),
      columns_(static_cast<std::uint32_t>(node_.columns.size())) {
  for (const Raid5Column& column : node_.columns) {
    files_.push_back(column.file != kNoFile ? files[column.file] : nullptr);
  }
}

Raid5Jobs::~Raid5Jobs() {
  if (machine_.running()) std::abort();  // its Ios would come back to freed memory
}

// ---- start and end

int Raid5Jobs::check(const Raid5Job& job) const noexcept {
  ColumnSet readable = 0;
  ColumnSet writable = 0;
  ColumnSet serving = 0;
  for (std::uint32_t c = 0; c < columns_; c++) {
    const ColumnSet bit = ColumnSet{1} << c;
    if (node_.columns[c].service.readable) readable |= bit;
    if (node_.columns[c].service.writable) writable |= bit;
    if (c < node_.serving) serving |= bit;
  }
  if (job.from > shape_.lines() * shape_.segment() / kBlock) return EINVAL;
  switch (job.kind) {
    case Raid5Work::initialise:
      if (plan_.readOnly) return EROFS;
      if (job.columns == 0 || (job.columns & ~(writable & ~readable)) != 0) return EINVAL;
      if (node_.copied != Raid5Node::kNone) return EINVAL;  // what is behind those that serve is to be a copy
      // Of a device that somebody uses the columns that serve are never zeroed.
      return (job.columns & serving) != 0 && (readable & serving) != 0 ? EINVAL : 0;
    case Raid5Work::regenerate:
      if (plan_.readOnly) return EROFS;
      if (std::popcount(job.columns) != 1 || (job.columns & ~(writable & ~readable & serving)) != 0) return EINVAL;
      if ((serving & ~readable) != job.columns) return EINVAL;
      // While another column is Last Erred a group that is not in place stays so: the job would wait for ever.
      return io_.forgets() ? 0 : EIO;
    case Raid5Work::copy:
      if (plan_.readOnly) return EROFS;
      if (node_.copied == Raid5Node::kNone || job.columns != ColumnSet{1} << node_.copied) return EINVAL;
      if ((job.columns & ~readable) != 0 || !node_.columns.back().service.writable) return EINVAL;
      return io_.forgets() ? 0 : EIO;
    case Raid5Work::parity:
      if (job.repair && plan_.readOnly) return EROFS;
      if (job.repair && node_.copied != Raid5Node::kNone) return EINVAL;  // what a column is copied to would miss it
      return job.columns != 0 || (serving & ~readable) != 0 ? EINVAL : 0;
  }
  return EINVAL;
}

int Raid5Jobs::start(const Raid5Job& job) noexcept {
  if (machine_.running()) return EBUSY;
  if (const int error = check(job); error != 0) return error;
  job_ = job;
  const bool zeroes = job.kind == Raid5Work::initialise;
  serving_ = shape_.columns() == 64 ? ~ColumnSet{0} : (ColumnSet{1} << shape_.columns()) - 1;
  targets_ = job.kind == Raid5Work::parity ? (job.repair ? serving_ : 0) : job.columns;
  sources_ = zeroes ? 0 : job.kind == Raid5Work::parity ? serving_ : serving_ & ~job.columns;
  target_ = static_cast<std::uint32_t>(std::countr_zero(job.columns)) % 64;
  if (job.kind == Raid5Work::copy) {
    target_ = columns_ - 1;
    targets_ = ColumnSet{1} << target_;
    sources_ = job.columns;
  }
  if (!makeMemory(job.bufferBlocks)) {
    dropMemory();
    return ENOMEM;
  }
  const std::uint64_t bytes = shape_.lines() * shape_.segment();
  base_ = zeroes ? node_.prewrite : 0;
  end_ = base_ + bytes;
  // What was written while the column was out of service is not in the journal of that column: should its part be
  // torn, a replay that reads the column one day must not come upon it.
  const bool makesColumn = job.kind == Raid5Work::regenerate || job.kind == Raid5Work::copy;
  tail_ = makesColumn ? io_.lastGroup() : 0;
  mismatches_.begin(job.job);
  const std::uint64_t from = job.from == 0 ? 0 : base_ + job.from * kBlock;
  machine_.start({.job = job.job,
                  .from = from,
                  .end = end_,
                  .workBefore = from,
                  .workTotal = end_,
                  .bytesPerSecond = job.bytesPerSecond,
                  .checkpointMillis = job.checkpointMillis});
  return 0;
}

// At least one row at a time, and no more memory than all windows may have.
bool Raid5Jobs::makeMemory(std::uint32_t bufferBlocks) noexcept {
  const std::uint64_t wanted = std::clamp<std::uint64_t>(bufferBlocks, 1, Resync::kBufferBlocksMax) * kBlock;
  const std::uint64_t share = kMemory / Resync::kWindows / columns_ / Raid5Shape::kPage * Raid5Shape::kPage;
  window_ = std::max<std::uint64_t>(Raid5Shape::kPage, std::min(wanted, share));
  try {
    parts_.assign(std::size_t{Resync::kWindows} * columns_, {});
    syncParts_.assign(columns_, {});
    extents_.assign(columns_, {});
  } catch (const std::bad_alloc&) {
    return false;
  }
  for (std::size_t i = 0; i < parts_.size(); i++) {
    parts_[i].self = this;
    parts_[i].window = &windows_[i / columns_];
    parts_[i].column = static_cast<std::uint32_t>(i % columns_);
  }
  for (std::uint32_t c = 0; c < columns_; c++) {
    syncParts_[c].self = this;
    syncParts_[c].column = c;
  }
  for (Window& window : windows_) window.self = this;
  if (job_.kind == Raid5Work::initialise) {
    window_ = std::max(window_, job_.bytesPerSecond == 0 ? kZeroWindow : 0);
    return true;
  }
  buffers_.reset(new (std::nothrow) WorkBuffer[parts_.size()]);
  if (buffers_ == nullptr) return false;
  const std::size_t bytes = (window_ + 4095) / 4096 * 4096;
  for (std::size_t i = 0; i < parts_.size(); i++) {
    if (i % columns_ < shape_.columns() && !buffers_[i].make(backend_.held(), bytes)) return false;
  }
  return true;
}

void Raid5Jobs::dropMemory() noexcept {
  buffers_.reset();
  parts_.clear();
  syncParts_.clear();
  extents_.clear();
}

void Raid5Jobs::ended(const ResyncEnd& end) noexcept {
  mismatches_.flush(host_);
  ResyncEnd told = end;
  told.mismatches = mismatches_.count();
  told.done -= std::min(told.done, base_ / kBlock);
  dropMemory();
  host_.resyncEnded(told);
}

void Raid5Jobs::progress(std::uint64_t job, std::uint64_t done, std::uint64_t total) noexcept {
  const std::uint64_t before = base_ / kBlock;
  host_.resyncProgress(job, done - std::min(done, before), total - before);
}

void Raid5Jobs::checkpoint(std::uint64_t job, std::uint64_t done) noexcept {
  host_.resyncCheckpoint(job, done - std::min(done, base_ / kBlock));
}

// ---- windows

// Windows end where a row ends, so that neighbours do not wait for each other.
ResyncWindow Raid5Jobs::windowAt(std::uint64_t at) noexcept {
  at = std::max(at, job_.from == 0 ? 0 : base_ + job_.from * kBlock);
  if (at >= end_) return {};
  std::uint64_t end = std::min(end_, at - at % window_ + window_);
  if (job_.kind != Raid5Work::initialise && end < end_) {
    end = shape_.rowStart(rowAt(end));
    const std::uint64_t row = rowAt(at);
    if (end <= at) end = shape_.rowStart(row) + shape_.rowBytes(row);
  }
  return {at, end - at, end - at};
}

void Raid5Jobs::windowBegin(unsigned place, const ResyncWindow& range) noexcept {
  Window& window = windows_[place];
  window.range = range;
  window.stage = Window::Stage::locking;
  window.fault = {};
  window.unread = 0;
  window.wrong = false;
  if (job_.kind == Raid5Work::initialise) return owned(window);
  window.first = rowAt(range.offset);
  window.end = rowAt(range.offset + range.length - 1) + 1;
  window.tail = tail_;
  window.granted = [](Raid5Claim& claim) noexcept {
    Window& mine = static_cast<Window&>(claim);
    mine.self->owned(mine);
  };
  io_.claim(window);
}

// Nothing is written before a window is past waiting.
bool Raid5Jobs::windowWithdraw(unsigned place) noexcept {
  Window& window = windows_[place];
  if (!window.listed || window.Raid5Claim::owned) return false;
  io_.unclaim(window);
  return true;
}

void Raid5Jobs::owned(Window& window) noexcept {
  window.pending = 1;
  if (window.stage == Window::Stage::settling) {
    window.stage = Window::Stage::writing;
    if (window.refused) {
      window.fault = {EIO};
      return stageOver(window);
    }
    for (Part& part : partsOf(window)) {
      if (!in(targets_, part.column)) continue;
      part.at = window.range.offset;
      repairNext(part);
    }
    return stageOver(window);
  }
  if (job_.kind == Raid5Work::initialise) {
    window.stage = Window::Stage::writing;
    for (Part& part : partsOf(window)) {
      if (!in(targets_, part.column)) continue;
      part.at = window.range.offset;
      zeroNext(part);
    }
    return stageOver(window);
  }
  window.stage = Window::Stage::reading;
  if (window.refused) window.fault = {EIO};
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    if (!buffers_[placeOf(window) * columns_ + c].fresh()) window.fault = {ENOMEM};
  }
  if (window.fault.error == 0) startReads(window, sources_);
  stageOver(window);
}

void Raid5Jobs::startReads(Window& window, ColumnSet columns) noexcept {
  for (Part& part : partsOf(window)) {
    if (!in(columns, part.column)) continue;
    window.pending++;
    issue(part, IoOp::read, node_.columns[part.column].start + window.range.offset, window.range.length,
          buffer(window, part.column));
  }
}

void Raid5Jobs::issue(Part& part, IoOp op, std::uint64_t offset, std::uint64_t length, std::byte* data) noexcept {
  static_cast<Io&>(part) = Io{};
  part.op = op;
  part.file = files_[part.column];
  part.offset = offset;
  part.length = length;
  part.data = data;
  part.noHole = op == IoOp::zero;
  part.aside = op == IoOp::read || op == IoOp::write;  // clients of this thread do not wait for copies
  part.complete = onIo;
  backend_.start(part);
}

void Raid5Jobs::onIo(Io& io) noexcept {
  Part& part = static_cast<Part&>(io);
  Raid5Jobs& self = *part.self;
  if (io.op == IoOp::sync && io.result == 0 && io.file->syncFailed.load(std::memory_order_acquire)) io.result = -EIO;
  self.partDone(part);
}

void Raid5Jobs::partDone(Part& part) noexcept {
  const bool asks = part.op == IoOp::extents;  // that it cannot say is no failure
  ResyncFault fault;
  if (part.result != 0 && !asks) {
    report(part);
    fault = {-part.result, componentOf(part.column)};
  }
  if (part.window == nullptr) {
    if (fault.error != 0 && syncFault_.error == 0) syncFault_ = fault;
    if (--syncs_ == 0) machine_.onSynced(syncFault_);
    return;
  }
  Window& window = *part.window;
  if (job_.kind == Raid5Work::parity && part.op == IoOp::write) {
    io_.parityChanged(part.column, part.offset - node_.columns[part.column].start, part.length);
  }
  const bool borne =
      job_.kind == Raid5Work::parity ||
      (job_.kind == Raid5Work::copy && window.stage == Window::Stage::reading && fault.error != ETIMEDOUT);
  if (fault.error != 0 && borne && part.op == IoOp::read) {
    // Told of; nothing is compared here, or it is made from the others. What hangs may still write to the memory.
    window.unread |= ColumnSet{1} << part.column;
    io_.wantRepair(part.column, window.range.offset, window.range.length, fault.error);
  } else if (fault.error != 0) {
    if (window.fault.error == 0) window.fault = fault;
  } else if (window.stage == Window::Stage::writing && job_.kind == Raid5Work::initialise) {
    zeroNext(part);
  } else if (window.stage == Window::Stage::writing && job_.kind == Raid5Work::parity) {
    repairNext(part);
  }
  stageOver(window);
}

void Raid5Jobs::report(const Part& part) noexcept {
  const ComponentOp op = part.op == IoOp::sync   ? ComponentOp::flush
                         : part.op == IoOp::read ? ComponentOp::read
                                                 : ComponentOp::write;
  host_.componentError({.component = componentOf(part.column),
                        .op = op,
                        .block = part.op == IoOp::sync ? 0 : part.offset / kBlock,
                        .error = -part.result,
                        .masked = true});
}

void Raid5Jobs::stageOver(Window& window) noexcept {
  using Stage = Window::Stage;
  if (--window.pending != 0) return;
  if (window.fault.error != 0 || window.stage == Stage::writing) return finish(window);
  if (window.stage == Stage::others) {
    compute(window, node_.copied);
    return write(window, node_.copied);
  }
  if (window.stage == Stage::reading) {
    if (job_.kind == Raid5Work::regenerate) {
      compute(window, target_);
      return write(window, target_);
    }
    if (job_.kind == Raid5Work::copy) {
      if (window.unread == 0) return write(window, node_.copied);
      window.stage = Stage::others;
      window.pending = 1;
      if (othersReadable()) {
        startReads(window, serving_ & ~sources_);
      } else {
        window.fault = {EIO, componentOf(node_.copied)};
      }
      return stageOver(window);
    }
    if (window.unread == 0) compare(window);
    if (!job_.repair || !window.wrong) return finish(window);
    // What the kernel could not write back may be lost and was read as it was before: parity would be made of that.
    window.stage = Stage::syncing;
    window.pending = 1;
    window.fault = lostSync();
    if (window.fault.error == 0) startSyncs(&window);
    return stageOver(window);
  }
  // Synced. A group that would be carried out again brings the old parity back.
  window.stage = Stage::settling;
  window.tail = io_.lastGroup();
  io_.claimAgain(window);
}

bool Raid5Jobs::othersReadable() const noexcept {
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    if (!node_.columns[c].service.readable) return false;
  }
  return true;
}

// From all others.
void Raid5Jobs::compute(Window& window, std::uint32_t column) noexcept {
  XorSum others;
  for (std::uint32_t c = 0; c < shape_.columns(); c++) {
    if (c != column) others.add(buffer(window, c));
  }
  others.into(buffer(window, column), 0, window.range.length);
}

// What is in that column's buffer, to the target.
void Raid5Jobs::write(Window& window, std::uint32_t from) noexcept {
  window.stage = Window::Stage::writing;
  window.pending = 1;
  issue(partsOf(window)[target_], IoOp::write, node_.columns[target_].start + window.range.offset, window.range.length,
        buffer(window, from));
}

void Raid5Jobs::finish(Window& window) noexcept {
  const ResyncFault fault = window.fault;
  // Whoever waited for the rows goes on before the machine does.
  if (window.listed) io_.unclaim(window);
  machine_.onWindow(placeOf(window), fault);
}

void Raid5Jobs::windowPassed(unsigned place, const ResyncWindow& range) noexcept {
  const Window& window = windows_[place];
  if (!window.wrong) return;
  for (std::uint64_t i = 0; i < range.length / kBlock; i++) {
    if ((window.differs[i / 64] >> (i % 64) & 1U) != 0) mismatches_.add(host_, range.offset / kBlock + i);
  }
}

// ---- syncs

ResyncFault Raid5Jobs::lostSync() const noexcept {
  for (std::uint32_t c = 0; c < columns_; c++) {
    if (in(targets_, c) && files_[c]->syncFailed.load(std::memory_order_acquire)) return {EIO, componentOf(c)};
  }
  return {};
}

// Of all that the job writes.
void Raid5Jobs::startSyncs(Window* window) noexcept {
  for (std::uint32_t c = 0; c < columns_; c++) {
    if (!in(targets_, c)) continue;
    (window != nullptr ? window->pending : syncs_)++;
    issue(window != nullptr ? partsOf(*window)[c] : syncParts_[c], IoOp::sync, 0, 0, nullptr);
  }
}

void Raid5Jobs::targetSync() noexcept {
  syncFault_ = lostSync();
  syncs_ = 1;
  if (syncFault_.error == 0) startSyncs(nullptr);
  if (--syncs_ == 0) machine_.onSynced(syncFault_);
}

}  // namespace metadisk
