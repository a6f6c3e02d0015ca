// What ends on stable storage: flushes in batches, and the resync's way to the components.
#include <algorithm>

#include "md/volume_impl.h"

namespace metadisk {

void Volume::Impl::issueSync(Task& task, std::span<const std::uint32_t> files) noexcept {
  for (const std::uint32_t index : files) {
    Child* const child = children_.take();
    if (child == nullptr) {
      task.error = ENOMEM;
      continue;
    }
    static_cast<Io&>(*child) = Io{};
    child->op = IoOp::sync;
    child->file = files_[index];
    child->complete = onChild;
    child->impl = this;
    child->request = nullptr;
    child->task = &task;
    child->slab = nullptr;
    child->index = index;
    task.pending++;
    backend_.start(*child);
  }
}

void Volume::Impl::submitFlush(Request& r) noexcept {
  Task* const task = newTask(r, Task::Kind::flush);
  if (task == nullptr) return finish(r, ENOMEM);
  task->queued = nullptr;
  (flushHead_ != nullptr ? flushTail_->queued : flushHead_) = task;
  flushTail_ = task;
  startFlushes();
}

// Group commit: those that arrive while a batch syncs share the next one. One batch at a time also
// means that an error the kernel reports once cannot be missed by a sync running beside it.
void Volume::Impl::startFlushes() noexcept {
  if (flushing_ || flushHead_ == nullptr) return;
  flushing_ = true;
  batch_ = std::exchange(flushHead_, nullptr);
  flushSync_.kind = Task::Kind::flush;
  flushSync_.pending = 1;
  flushSync_.error = 0;
  if (anySyncFailed()) {
    flushSync_.error = EIO;
  } else {
    issueSync(flushSync_, allFiles_);
  }
  drop(flushSync_);
}

// The batch is synced; the sticky marks speak for syncs of other threads too.
void Volume::Impl::endFlushes(const Task& task) noexcept {
  const int error = task.error != 0 ? task.error : anySyncFailed() ? EIO : 0;
  Task* done = std::exchange(batch_, nullptr);
  while (done != nullptr) {
    Task* const next = done->queued;
    Request& r = *done->request;
    tasks_.give(*done);
    finish(r, error);
    done = next;
  }
  flushing_ = false;
  startFlushes();
}

std::uint32_t Volume::Impl::sideOf(std::uint32_t slot) const noexcept {
  const auto count = static_cast<std::uint32_t>(mirror_->sides.size());
  for (std::uint32_t side = 0; side < count; side++) {
    if (mirror_->sides[side].slot == slot) return side;
  }
  return count;
}

int Volume::Impl::startResync(const ResyncJob& job) noexcept {
  if (resync_.running()) return EBUSY;
  if (job.kind != ResyncKind::full || job.checkpointMillis != 0) return ENOTSUP;
  if (mirror_ == nullptr) return EINVAL;
  const std::uint32_t side = sideOf(job.target);
  if (side == mirror_->sides.size() || balance_->other(1U << side) < 0) return EINVAL;
  if (job.from > size_ / kBlockBytes) return EINVAL;
  target_ = side;
  targetFiles_.clear();
  const Node& node = sideNode(target_);
  if (const auto* part = std::get_if<ComponentNode>(&node)) targetFiles_.push_back(part->file);
  if (const auto* stripe = std::get_if<StripeNode>(&node)) {
    for (const Row& row : stripe->rows) {
      for (const Column& column : row.columns) targetFiles_.push_back(column.file);
    }
  }
  std::sort(targetFiles_.begin(), targetFiles_.end());
  targetFiles_.erase(std::unique(targetFiles_.begin(), targetFiles_.end()), targetFiles_.end());
  return resync_.start(job, size_) ? 0 : ENOMEM;
}

void Volume::Impl::windowLock(std::uint64_t offset, std::uint64_t length) noexcept {
  window_.kind = Task::Kind::window;
  window_.first = offset;
  window_.end = offset + length;
  window_.OverlapEntry::start = onOwned;
  overlaps_.enter(window_);
}

void Volume::Impl::windowUnlock() noexcept { overlaps_.leave(window_); }

void Volume::Impl::windowRead(std::uint64_t offset, std::span<std::byte> into) noexcept {
  const auto side = static_cast<std::uint32_t>(balance_->other(1U << target_));
  windowIo_.kind = Task::Kind::windowRead;
  windowIo_.op = IoOp::read;
  windowIo_.offset = offset;
  windowIo_.length = into.size();
  windowIo_.data = into.data();
  windowIo_.pending = 1;
  windowIo_.error = 0;
  issue(windowIo_, sideNode(side), offset, into.size(), into.data(), 1U << target_ | 1U << side);
  drop(windowIo_);
}

void Volume::Impl::windowWrite(std::uint64_t offset, std::span<std::byte> from) noexcept {
  windowIo_.kind = Task::Kind::windowWrite;
  windowIo_.op = IoOp::write;
  windowIo_.offset = offset;
  windowIo_.length = from.size();
  windowIo_.data = from.data();
  windowIo_.pending = 1;
  windowIo_.error = 0;
  issue(windowIo_, sideNode(target_), offset, from.size(), from.data(), 1U << target_);
  drop(windowIo_);
}

void Volume::Impl::targetSync() noexcept {
  windowIo_.kind = Task::Kind::targetSync;
  windowIo_.op = IoOp::sync;
  windowIo_.pending = 1;
  windowIo_.error = 0;
  const bool lost = std::any_of(targetFiles_.begin(), targetFiles_.end(),
                                [this](std::uint32_t i) { return files_[i]->syncFailed.load(); });
  if (lost) {
    windowIo_.error = EIO;
  } else {
    issueSync(windowIo_, targetFiles_);
  }
  drop(windowIo_);
}

}  // namespace metadisk
