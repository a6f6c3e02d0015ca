// What ends on stable storage: flushes in batches.
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

}  // namespace metadisk
