#include "md/jobs.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace metadisk {

namespace {

// Of a component in a stripe, a window's range is longer than what is copied; clients wait for all of it.
constexpr std::uint64_t kSpanMax = 64 * 1024 * 1024;

}  // namespace

// ---- start and end

// The memory of all windows, `copies` buffers each.
int Volume::Impl::Jobs::begin(std::uint32_t bufferBlocks, unsigned copies) noexcept {
  window_ = std::clamp<std::uint64_t>(bufferBlocks, 1, Resync::kBufferBlocksMax) * kBlockBytes;
  copies_ = copies;
  files_.clear();
  for (std::size_t i = 0; i < Resync::kWindows * copies; i++) {
    if (buffers_[i].make(volume_.backend_.held(), (window_ + 4095) / 4096 * 4096)) continue;
    for (WorkBuffer& buffer : buffers_) buffer.drop();
    return ENOMEM;
  }
  return 0;
}

// The label of a side is its own (driver.md 2.9).
std::uint64_t Volume::Impl::Jobs::firstByte() const noexcept { return volume_.plan_->labelled ? kBlockBytes : 0; }

void Volume::Impl::Jobs::filesOf(std::uint32_t side) noexcept {
  const auto add = [this](std::uint32_t file, const Service& service) {
    const bool known = std::find(files_.begin(), files_.end(), file) != files_.end();
    if (service.writable && file != kNoFile && !known) files_.push_back(file);
  };
  const Node& node = volume_.sideNode(side);
  if (const auto* part = std::get_if<ComponentNode>(&node)) add(part->file, part->service);
  if (const auto* stripe = std::get_if<StripeNode>(&node)) {
    for (const Row& row : stripe->rows) {
      for (const Column& column : row.columns) add(column.file, column.service);
    }
  }
}

int Volume::Impl::Jobs::resync(const ResyncJob& job) noexcept {
  if (machine_.running()) return EBUSY;
  const std::uint32_t side = volume_.sideOf(job.target);
  if (side == volume_.mirror_->sides.size() || job.from > volume_.size_ / kBlockBytes) return EINVAL;
  if (!volume_.mirror_->sides[side].writable || !volume_.sources_->anyBesides(side)) return EINVAL;
  if (job.kind == ResyncKind::optimized && volume_.state_.stale == nullptr) return EINVAL;
  if (const int error = begin(job.bufferBlocks, 1); error != 0) return error;
  verifying_ = repairing_ = false;
  mismatches_.begin(job.job);
  kind_ = job.kind;
  target_ = side;
  slot_ = job.target;
  from_ = job.kind == ResyncKind::optimized ? 0 : job.from * kBlockBytes;
  filesOf(side);
  if (kind_ == ResyncKind::component) {
    std::erase_if(files_, [&](std::uint32_t file) { return volume_.plan_->components[file] != job.component; });
    if (files_.empty()) return EINVAL;
    footprint_ = Footprint(volume_.sideNode(side), files_[0], volume_.size_);
  }
  passedFrom_ = passedTo_ = 0;
  machine_.start(paceOf(job));
  return 0;
}

// An optimized resync goes by its regions alone. The others begin at `from`; below it they look again at
// what was dirty when the device appeared: a crash may have interrupted writes there.
ResyncPace Volume::Impl::Jobs::paceOf(const ResyncJob& job) const noexcept {
  ResyncPace pace{.job = job.job,
                  .from = from_,
                  .end = volume_.size_,
                  .bytesPerSecond = job.bytesPerSecond,
                  .checkpointMillis = job.checkpointMillis};
  std::uint64_t work = 0;
  for (Run run = runAt(0); run.length > 0; run = runAt(run.offset + run.length)) work += workOf(run);
  pace.workTotal = kind_ == ResyncKind::optimized ? work : workOf({0, volume_.size_});
  // Also the block of a label.
  pace.workBefore = pace.workTotal > work ? pace.workTotal - work : 0;
  return pace;
}

std::uint64_t Volume::Impl::Jobs::workOf(const Run& run) const noexcept {
  if (kind_ != ResyncKind::component) return run.length;
  return footprint_.bytes(run.offset + run.length) - footprint_.bytes(run.offset);
}

const Bitmap* Volume::Impl::Jobs::behind() const noexcept {
  return volume_.state_.stale != nullptr ? volume_.state_.stale->behind(slot_) : nullptr;
}

// The first run of neighbouring regions, or what of it lies at or above `at`.
Volume::Impl::Jobs::Run Volume::Impl::Jobs::runAt(std::uint64_t at) const noexcept {
  const std::uint64_t size = volume_.size_;
  at = std::max(at, firstByte());
  const bool byRegion = kind_ == ResyncKind::optimized;
  const Bitmap* const map = behind();
  if (!verifying_ && map != nullptr && (byRegion || at < from_)) {
    const std::uint64_t bytes = volume_.state_.stale->regionBytes();
    const std::uint64_t limit = byRegion ? size : from_;
    const std::uint32_t first = map->nextSet(static_cast<std::uint32_t>(at / bytes));
    const std::uint64_t start = std::max(at, first * bytes);
    const std::uint64_t end = std::min(map->nextClear(first) * bytes, limit);
    if (first < map->size() && start < limit) return {start, end - start};
  }
  if (byRegion) return {};
  at = std::max(at, from_);
  return at < size ? Run{at, size - at} : Run{};
}

void Volume::Impl::Jobs::ended(const ResyncEnd& end) noexcept {
  mismatches_.flush(volume_.host_);
  for (WorkBuffer& buffer : buffers_) buffer.drop();
  ResyncEnd told = end;
  told.mismatches = mismatches_.count();
  volume_.host_.resyncEnded(told);
}

bool Volume::Impl::Jobs::clientsActive() noexcept {
  return std::exchange(volume_.clients_, 0) != 0 || volume_.requests_ != 0;
}

void Volume::Impl::Jobs::progress(std::uint64_t job, std::uint64_t done, std::uint64_t total) noexcept {
  volume_.host_.resyncProgress(job, done, total);
}

void Volume::Impl::Jobs::checkpoint(std::uint64_t job, std::uint64_t done) noexcept {
  volume_.host_.resyncCheckpoint(job, done);
}

// ---- windows

ResyncWindow Volume::Impl::Jobs::windowAt(std::uint64_t at) noexcept {
  Run run = runAt(at);
  if (kind_ != ResyncKind::component) {
    // Windows end at multiples of their size, so that they stay aligned whatever `from` was.
    const std::uint64_t length = std::min(window_ - run.offset % window_, run.length);
    return {run.offset, length, length};
  }
  Footprint::Range piece = footprint_.at(run.offset);
  while (run.length > 0 && piece.length > 0 && piece.offset >= run.offset + run.length) {
    run = runAt(piece.offset);
    piece = footprint_.at(run.offset);
  }
  if (run.length == 0) return {};
  const std::uint64_t end = run.offset + run.length;
  ResyncWindow window{piece.offset, 0, 0};
  while (piece.length > 0 && piece.offset < end && window.work < window_ && piece.offset - window.offset < kSpanMax) {
    const std::uint64_t part = std::min({piece.length, window_ - window.work, end - piece.offset});
    window.work += part;
    window.length = piece.offset + part - window.offset;
    piece = footprint_.at(window.offset + window.length);
  }
  return window;
}

void Volume::Impl::Jobs::windowBegin(unsigned place, const ResyncWindow& range) noexcept {
  Window& window = windows_[place];
  window.range = range;
  window.stage = Window::Stage::locking;
  window.fault = {};
  window.retried = false;
  window.lock.kind = Task::Kind::window;
  window.lock.impl = &volume_;
  window.lock.window = &window;
  window.lock.OverlapEntry::first = range.offset;
  window.lock.OverlapEntry::end = range.offset + range.length;
  window.lock.stays = true;
  window.lock.OverlapEntry::start = Impl::onOwned;
  volume_.overlaps_.enter(window.lock);
}

bool Volume::Impl::Jobs::windowWithdraw(unsigned place) noexcept {
  Window& window = windows_[place];
  return window.stage == Window::Stage::locking && volume_.overlaps_.withdraw(window.lock);
}

void Volume::Impl::Jobs::onOwned(Task& lock) noexcept {
  Window& window = *static_cast<Window*>(lock.window);
  startReads(window);
}

void Volume::Impl::Jobs::startReads(Window& window) noexcept {
  window.stage = Window::Stage::reading;
  window.again = false;
  window.pending = 1;
  if (!freshBuffers(window)) {
    window.fault = {ENOMEM};
  } else if (verifying_) {
    readSides(window);
  } else {
    read(window);
  }
  stageOver(window);
}

std::byte* Volume::Impl::Jobs::buffer(const Window& window, unsigned copy) const noexcept {
  const auto place = static_cast<std::size_t>(&window - windows_.data());
  return buffers_[place * copies_ + copy].get();
}

// What was used for the place's last window may be held by a component that hangs.
bool Volume::Impl::Jobs::freshBuffers(const Window& window) noexcept {
  const auto place = static_cast<std::size_t>(&window - windows_.data());
  return std::all_of(buffers_.begin() + static_cast<std::ptrdiff_t>(place * copies_),
                     buffers_.begin() + static_cast<std::ptrdiff_t>((place + 1) * copies_),
                     [](WorkBuffer& buffer) { return buffer.fresh(); });
}

// A task that is started by issuing Ios for it and then drop().
Volume::Impl::Task* Volume::Impl::Jobs::newTask(Window* window, IoOp op, std::uint64_t offset, std::uint64_t length,
                                                std::byte* data) noexcept {
  Task* const task = volume_.tasks_.take();
  if (task == nullptr) {
    if (window != nullptr) window->fault = {ENOMEM};
    return nullptr;
  }
  task->begin(volume_, Task::Kind::job, op, offset, length, data);
  task->window = window;
  task->erred = ResyncEnd::kNoComponent;
  if (window != nullptr) window->pending++;
  return task;
}

void Volume::Impl::Jobs::onTask(Task& task) noexcept {
  Window* const window = static_cast<Window*>(task.window);
  const ResyncFault fault{task.error, task.erred};
  const IoOp op = task.op;
  const std::uint32_t side = task.nextSide;
  if (task.retried && window != nullptr) window->retried = true;
  const bool again = task.again;
  volume_.tasks_.give(task);
  if (window == nullptr) return machine_.onSynced(fault);
  window->again = window->again || again;
  if (verifying_ && op == IoOp::read) {
    // A side that cannot be read has been told of, and is not compared here.
    if (fault.error != 0) window->read &= ~(1U << side);
  } else if (fault.error != 0 && window->fault.error == 0) {
    window->fault = fault;
  }
  stageOver(*window);
}

void Volume::Impl::Jobs::stageOver(Window& window) noexcept {
  if (--window.pending != 0) return;
  if (window.again && window.fault.error == 0) return startReads(window);
  if (window.fault.error != 0 || window.stage == Window::Stage::writing) return finish(window);
  if (verifying_ && window.stage == Window::Stage::reading) {
    compare(window);
    if (repairing_ && window.differing != 0) {
      // What the kernel could not write back may be lost and was read as it was before: the side that is about to be
      // overwritten would be the one with the newer data. A sync says so.
      window.stage = Window::Stage::syncing;
      window.pending = 1;
      sync(&window);
      return stageOver(window);
    }
  }
  window.stage = Window::Stage::writing;
  window.pending = 1;
  const std::uint64_t offset = window.range.offset;
  const std::uint64_t length = window.range.length;
  const bool all = volume_.sources_->unsure(offset, length) &&
                   (window.retried || !volume_.sources_->cover(offset, length, ReadSources::kInStep));
  if (verifying_) {
    if (repairing_ && window.differing != 0) repair(window);
  } else if (all) {
    writeEverywhere(window);
  } else if (kind_ == ResyncKind::component) {
    writeComponent(window);
  } else {
    write(window);
  }
  stageOver(window);
}

void Volume::Impl::Jobs::finish(Window& window) noexcept {
  // Whoever waited for the range starts before the machine goes on: leave() may complete requests inline.
  const ResyncFault fault = window.fault;
  volume_.overlaps_.leave(window.lock);
  machine_.onWindow(static_cast<unsigned>(&window - windows_.data()), fault);
}

// ---- resync

template <typename Visit>
void Volume::Impl::Jobs::eachPiece(const Window& window, Visit visit) const noexcept {
  const std::uint64_t end = window.range.offset + window.range.length;
  std::byte* data = buffer(window, 0);
  for (std::uint64_t at = window.range.offset; at < end;) {
    const Footprint::Range piece = footprint_.at(at);
    const std::uint64_t length = piece.offset < end ? std::min(piece.length, end - piece.offset) : 0;
    if (length == 0) return;
    visit(piece.offset, length, data);
    data += length;
    at = piece.offset + length;
  }
}

void Volume::Impl::Jobs::read(Window& window) noexcept {
  const auto piece = [&](std::uint64_t offset, std::uint64_t length, std::byte* data) {
    Task* const task = newTask(&window, IoOp::read, offset, length, data);
    if (task == nullptr) return;
    // Where a stale side is itself the best source left, it is copied onto itself and so becomes the one in step.
    const std::uint32_t apart = kind_ == ResyncKind::optimized ? 0 : 1U << target_;
    if (volume_.sources_->cover(offset, length, apart)) {
      volume_.readPieces(*task, offset, length, data, apart);
    } else {
      task->error = EIO;
    }
    volume_.drop(*task);
  };
  if (kind_ == ResyncKind::component) return eachPiece(window, piece);
  piece(window.range.offset, window.range.length, buffer(window, 0));
}

void Volume::Impl::Jobs::write(Window& window) noexcept {
  const ResyncWindow& range = window.range;
  Task* const task = newTask(&window, IoOp::write, range.offset, range.length, buffer(window, 0));
  if (task == nullptr) return;
  volume_.issue(*task, volume_.sideNode(target_), range.offset, range.length, task->data, 1U << target_);
  volume_.drop(*task);
}

// Where sides may differ and what was read is not from one in step, all are to say that from now on: the
// target and those in step, which may be read again one day.
void Volume::Impl::Jobs::writeEverywhere(Window& window) noexcept {
  const auto sides = static_cast<std::uint32_t>(volume_.mirror_->sides.size());
  const auto piece = [&](std::uint64_t offset, std::uint64_t length, std::byte* data) {
    for (std::uint32_t side = 0; side < sides; side++) {
      if (side != target_ && !volume_.mirror_->sides[side].readable) continue;
      Task* const task = newTask(&window, IoOp::write, offset, length, data);
      if (task == nullptr) return;
      volume_.issue(*task, volume_.sideNode(side), offset, length, data, 1U << side);
      volume_.drop(*task);
    }
  };
  if (kind_ == ResyncKind::component) return eachPiece(window, piece);
  piece(window.range.offset, window.range.length, buffer(window, 0));
}

// What lies apart in the mirror lies together on the component: usually one Io.
void Volume::Impl::Jobs::writeComponent(Window& window) noexcept {
  Task* const task = newTask(&window, IoOp::write, window.range.offset, window.range.work, buffer(window, 0));
  if (task == nullptr) return;
  Fragment run;
  std::byte* from = task->data;
  const auto start = [&] {
    if (run.length == 0) return;
    if (Child* const child = volume_.newChild(*task, run, from, 0)) {
      volume_.start(*task, *child);
    } else {
      task->error = ENOMEM;
    }
    from += run.length;
  };
  eachPiece(window, [&](std::uint64_t offset, std::uint64_t length, std::byte*) {
    Fragment fragment;
    std::uint64_t covered = 0;
    mapNode(volume_.sideNode(target_), offset, length, {&fragment, 1}, covered);
    if (run.length > 0 && run.offset + run.length == fragment.offset) {
      run.length += fragment.length;
      return;
    }
    start();
    run = fragment;
  });
  start();
  volume_.drop(*task);
}

void Volume::Impl::Jobs::windowPassed(unsigned place, const ResyncWindow& range) noexcept {
  if (!verifying_) return passed(range);
  const Window& window = windows_[place];
  const std::uint64_t first = range.offset / kBlockBytes;
  for (std::uint64_t i = 0; i < range.length / kBlockBytes; i++) {
    if ((window.differs[i / 64] >> (i % 64) & 1U) != 0) mismatches_.add(volume_.host_, first + i);
  }
}

// Regions are in step as soon as all their windows passed: every write since went to the target too. What
// was copied of one component says nothing about the side's other components.
void Volume::Impl::Jobs::passed(const ResyncWindow& range) noexcept {
  if (volume_.state_.stale == nullptr || kind_ == ResyncKind::component) return;
  if (range.offset != passedTo_) passedFrom_ = range.offset == firstByte() ? 0 : range.offset;
  passedTo_ = range.offset + range.length;
  volume_.state_.stale->copied(slot_, passedFrom_, passedTo_, volume_.size_);
  passedFrom_ = std::max(passedFrom_, passedTo_ - passedTo_ % volume_.state_.stale->regionBytes());
}

void Volume::Impl::Jobs::targetSync() noexcept { sync(nullptr); }

// Of everything the job writes, and, verifying, reads; for a window or for the machine.
void Volume::Impl::Jobs::sync(Window* window) noexcept {
  Task* const task = newTask(window, IoOp::sync, 0, 0, nullptr);
  if (task == nullptr) {
    if (window == nullptr) machine_.onSynced({ENOMEM});
    return;
  }
  const auto lost = std::find_if(files_.begin(), files_.end(),
                                 [this](std::uint32_t i) { return volume_.files_[i]->syncFailed.load(); });
  if (lost != files_.end()) {
    task->error = EIO;
    task->erred = volume_.plan_->components[*lost];
  } else if (!verifying_ || repairing_) {
    volume_.issueSync(*task, files_);
  }
  volume_.drop(*task);
}

}  // namespace metadisk
