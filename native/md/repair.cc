#include "md/repair.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <span>

namespace metadisk {

namespace {

constexpr std::uint64_t kPiece = 4096;              // on the component: a sector of today's disks, a page of the cache
constexpr std::uint64_t kRepairWindow = 64 * 1024;  // is read at once, and piece by piece when that fails

}  // namespace

void Volume::Impl::Repairs::tick() noexcept {
  if (!due()) return;
  stage_ = Stage::next;
  go();
}

// A loop and no recursion: Ios that complete inline would nest as deep as there are pieces.
void Volume::Impl::Repairs::go() noexcept {
  if (going_) return;
  going_ = true;
  while (!pending_ && step()) {
  }
  going_ = false;
}

void Volume::Impl::Repairs::stop() noexcept {
  stopping_ = true;
  // Whoever owns the range may wait for whoever stops this.
  if (stage_ != Stage::lock || !pending_ || !volume_.overlaps_.withdraw(lock_)) return;
  pending_ = locked_ = false;
  nextWindow();
  go();
}

bool Volume::Impl::Repairs::at(const RepairQueue::Place& place) const noexcept {
  return running() && stage_ != Stage::next && volume_.mirror_->sides[side_].slot == place.slot &&
         at_ <= place.offset && place.end <= end_;
}

void Volume::Impl::Repairs::onOwned() noexcept {
  pending_ = false;
  go();
}

void Volume::Impl::Repairs::onTask(Task& task) noexcept {
  error_ = task.again && task.error == 0 ? ETIMEDOUT : task.error;
  volume_.tasks_.give(task);
  pending_ = false;
  go();
}

// The result of the stage that is over, then the next one. False: there is nothing to do.
bool Volume::Impl::Repairs::step() noexcept {
  std::byte* const data = memory_.get();
  std::byte* const check = data + kRepairWindow;
  switch (stage_) {
    case Stage::idle: return false;
    case Stage::next:
      if (begin()) return true;
      stage_ = Stage::idle;
      memory_.drop();
      return false;
    case Stage::window:
      if (error_ == 0) {
        at_ = windowEnd_;
        nextWindow();
      } else {
        nextPiece();
      }
      return true;
    case Stage::probe:
      if (error_ == 0 || error_ == ENOMEM) {
        pieceDone();
      } else if (error_ == ETIMEDOUT) {
        failed(error_);
      } else {
        stage_ = Stage::lock;
        lock();
      }
      return true;
    case Stage::lock:
      stage_ = Stage::source;
      readElsewhere();
      return true;
    case Stage::source:
      stage_ = Stage::settle;
      // Nothing to repair it from is no failure of this component.
      error_ == 0 ? settle() : pieceDone();
      return true;
    case Stage::settle:
      stage_ = Stage::write;
      error_ == 0 ? write() : pieceDone();
      return true;
    case Stage::write:
      stage_ = Stage::sync;
      error_ == 0 ? sync() : failed(error_);
      return true;
    case Stage::sync:
      stage_ = Stage::verify;
      error_ == 0 ? look(piece_, length_, check) : failed(error_);
      return true;
    case Stage::verify:
      if (error_ == 0 && std::memcmp(data, check, length_) != 0) error_ = EIO;
      error_ == 0 ? repaired() : failed(error_);
      return true;
  }
  std::abort();
}

// The next place that still makes sense; false: there is none, or it is time to stop.
bool Volume::Impl::Repairs::begin() noexcept {
  RepairQueue& queue = volume_.state_.repairs;
  const bool memory = memory_.get() != nullptr || memory_.make(volume_.backend_.held(), 2 * kRepairWindow);
  // Forgotten: the next read that fails there asks again.
  if (!memory || volume_.plan_->readOnly) queue = {};
  while (!stopping_ && !queue.empty()) {
    const RepairQueue::Place place = queue.take();
    side_ = volume_.sideOf(place.slot);
    if (side_ == volume_.mirror_->sides.size() || place.offset >= volume_.size_) continue;
    at_ = std::max(place.offset, first());
    end_ = std::min(place.end, volume_.size_);
    nextWindow();
    return true;
  }
  return false;
}

Fragment Volume::Impl::Repairs::fragmentAt(std::uint64_t offset, std::uint64_t length) const noexcept {
  Fragment fragment;
  std::uint64_t covered = 0;
  mapNode(volume_.sideNode(side_), offset, length, {&fragment, 1}, covered);
  return fragment;
}

void Volume::Impl::Repairs::nextWindow() noexcept {
  if (stopping_ && at_ < end_) {
    volume_.state_.repairs.add({volume_.mirror_->sides[side_].slot, at_, end_});
    at_ = end_;
  }
  if (at_ >= end_) {
    stage_ = Stage::next;
    return;
  }
  windowEnd_ = std::min(end_, at_ + kRepairWindow);
  const std::uint64_t length = windowEnd_ - at_;
  if (length <= kPiece || !memory_.fresh() || !volume_.sources_->mayMend(side_, at_, length)) return nextPiece();
  stage_ = Stage::window;
  look(at_, length, memory_.get());
}

// Pieces end at multiples of their size on the component, and where its part of the mirror ends.
void Volume::Impl::Repairs::nextPiece() noexcept {
  if (at_ >= windowEnd_ || stopping_) return nextWindow();
  piece_ = at_;
  const std::uint64_t inPiece = fragmentAt(at_, 1).offset % kPiece;
  // A failed read may begin inside a sector that must be written as a whole.
  if (inPiece != 0 && inPiece + first() <= at_ && fragmentAt(at_ - inPiece, kPiece).length > inPiece) piece_ -= inPiece;
  const Fragment whole = fragmentAt(piece_, std::min(kPiece, volume_.size_ - piece_));
  length_ = std::min(whole.length, kPiece - whole.offset % kPiece);
  stage_ = Stage::probe;
  error_ = memory_.fresh() ? 0 : ENOMEM;
  if (error_ == 0 && volume_.sources_->mayMend(side_, piece_, length_)) look(piece_, length_, memory_.get());
}

void Volume::Impl::Repairs::pieceDone() noexcept {
  at_ = piece_ + length_;
  if (locked_) {
    locked_ = false;
    volume_.overlaps_.leave(lock_);
  }
  nextPiece();
}

void Volume::Impl::Repairs::lock() noexcept {
  pending_ = locked_ = true;
  lock_.kind = Task::Kind::window;
  lock_.impl = &volume_;
  lock_.window = nullptr;
  lock_.stays = true;
  lock_.OverlapEntry::first = piece_;
  lock_.OverlapEntry::end = piece_ + length_;
  lock_.OverlapEntry::start = Impl::onOwned;
  volume_.overlaps_.enter(lock_);
}

// Reads from this side alone.
void Volume::Impl::Repairs::look(std::uint64_t offset, std::uint64_t length, std::byte* into) noexcept {
  Task* const task = newTask(IoOp::read, offset, length, into);
  if (task == nullptr) return;
  task->uncached = stage_ == Stage::verify;
  volume_.issue(*task, volume_.sideNode(side_), offset, length, into, ~ReadSources::kInStep);
  volume_.drop(*task);
}

// From a side that is in step and that nothing is known against: the piece has good blocks too.
void Volume::Impl::Repairs::readElsewhere() noexcept {
  const std::uint32_t tried = 1U << side_ | ReadSources::kInStep;
  error_ = EIO;
  if (!memory_.fresh() || !volume_.sources_->cover(piece_, length_, tried)) return;
  Task* const task = newTask(IoOp::read, piece_, length_, memory_.get());
  if (task == nullptr) return;
  task->quiet = false;
  volume_.readPieces(*task, piece_, length_, task->data, tried);
  volume_.drop(*task);
}

// A page that the kernel could not write back may be lost, and was read as it was before; this side may
// hold what is newer. A sync says so.
void Volume::Impl::Repairs::settle() noexcept {
  std::array<std::uint32_t, 3 * kPiece / kBlockBytes> files{};  // every block from another component, on each side
  std::size_t count = 0;
  const auto sides = static_cast<std::uint32_t>(volume_.mirror_->sides.size());
  for (std::uint32_t side = 0; side < sides; side++) {
    if (side == side_ || !volume_.mirror_->sides[side].readable) continue;
    mapExtents(volume_.sideNode(side), piece_, length_, [&](const Fragment& part) {
      if (part.service->readable && !volume_.files_[part.file]->direct) files[count++] = part.file;
    });
  }
  const auto read = std::span(files).first(count);
  const bool lost = std::any_of(read.begin(), read.end(),
                                [this](std::uint32_t file) { return volume_.files_[file]->syncFailed.load(); });
  error_ = lost ? EIO : 0;
  if (lost || read.empty()) return;
  Task* const task = newTask(IoOp::sync, 0, 0, nullptr);
  if (task == nullptr) return;
  task->quiet = false;
  volume_.issueSync(*task, read);
  volume_.drop(*task);
}

// To this side alone.
void Volume::Impl::Repairs::write() noexcept {
  Task* const task = newTask(IoOp::write, piece_, length_, memory_.get());
  if (task == nullptr) return;
  volume_.issue(*task, volume_.sideNode(side_), piece_, length_, task->data, ~ReadSources::kInStep);
  volume_.drop(*task);
}

void Volume::Impl::Repairs::sync() noexcept {
  const std::uint32_t file = fragmentAt(piece_, 1).file;
  error_ = EIO;
  if (volume_.files_[file]->syncFailed.load(std::memory_order_acquire)) return;
  Task* const task = newTask(IoOp::sync, 0, 0, nullptr);
  if (task == nullptr) return;
  volume_.issueSync(*task, {&file, 1});
  volume_.drop(*task);
}

// Failures of its own Ios are looked for: they are not reported one by one.
Volume::Impl::Task* Volume::Impl::Repairs::newTask(IoOp op, std::uint64_t offset, std::uint64_t length,
                                                   std::byte* data) noexcept {
  Task* const task = volume_.tasks_.take();
  if (task == nullptr) {
    error_ = ENOMEM;
    return nullptr;
  }
  task->begin(volume_, Task::Kind::repair, op, offset, length, data);
  task->quiet = true;
  pending_ = true;
  return task;
}

void Volume::Impl::Repairs::repaired() noexcept {
  const Fragment where = fragmentAt(piece_, length_);
  volume_.host_.componentRepaired(volume_.plan_->components[where.file], where.offset / kBlockBytes,
                                  length_ / kBlockBytes);
  pieceDone();
}

void Volume::Impl::Repairs::failed(int error) noexcept {
  if (error == ENOMEM) return pieceDone();  // here, not there
  const Fragment where = fragmentAt(piece_, length_);
  volume_.files_[where.file]->suspect.store(true, std::memory_order_relaxed);
  volume_.sources_->avoid(where.file, true);
  volume_.state_.repairs.forget(volume_.mirror_->sides[side_].slot);
  volume_.host_.componentError({.component = volume_.plan_->components[where.file],
                                .op = ComponentOp::read,
                                .block = where.offset / kBlockBytes,
                                .error = error,
                                .masked = true,
                                .repairFailed = true});
  end_ = windowEnd_ = piece_ + length_;
  pieceDone();
}

}  // namespace metadisk
