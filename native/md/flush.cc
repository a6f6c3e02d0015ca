// What ends on stable storage: client flushes, in batches.
#include <algorithm>

#include "md/volume_impl.h"

namespace metadisk {

// Every component that is written is flushed, also those that are not read yet: a copy may end, and
// its target be read, at any moment after a flush.
void Volume::Impl::findWritten() {
  std::vector<bool> seen(files_.size());
  lastErred_.assign(files_.size(), 0);
  const auto add = [&](std::uint32_t file, const Service& service) {
    if (!service.writable) return;
    lastErred_[file] = seen[file] ? std::min(lastErred_[file], service.lastErred) : service.lastErred;
    if (!seen[file]) written_.push_back(file);
    seen[file] = true;
  };
  const auto addNode = [&](const Node& node) {
    if (const auto* part = std::get_if<ComponentNode>(&node)) return add(part->file, part->service);
    for (const Row& row : std::get<StripeNode>(node).rows) {
      for (const Column& column : row.columns) add(column.file, column.service);
    }
  };
  if (mirror_ == nullptr) return addNode(*direct_);
  for (const MirrorSide& side : mirror_->sides) {
    if (side.writable) addNode(plan_->nodes[side.child]);
  }
}

bool Volume::Impl::anySyncFailed() const noexcept {
  return std::any_of(written_.begin(), written_.end(),
                     [this](std::uint32_t file) { return files_[file]->syncFailed.load(std::memory_order_acquire); });
}

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
    child->lastErred = lastErred_[index];
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
  flushSync_.parks = false;
  if (anySyncFailed()) {
    lostSyncs(flushSync_);
  } else {
    issueSync(flushSync_, written_);
  }
  drop(flushSync_);
}

// A sync that failed once, here or on another thread, fails every later flush of the component.
void Volume::Impl::lostSyncs(Task& task) noexcept {
  for (const std::uint32_t index : written_) {
    if (!files_[index]->syncFailed.load(std::memory_order_acquire)) continue;
    const bool parks = mirror_ != nullptr && lastErred_[index] == 0;
    if (parks) {
      task.parks = true;
    } else {
      task.error = EIO;
    }
    host_.componentError(
        {.component = plan_->components[index], .op = ComponentOp::flush, .error = EIO, .masked = parks});
  }
}

void Volume::Impl::endFlushes(const Task& task) noexcept {
  if (task.error == 0 && !task.parks && anySyncFailed()) lostSyncs(flushSync_);
  const int error = flushSync_.error;
  const bool parks = flushSync_.parks;
  Task* done = std::exchange(batch_, nullptr);
  if (parks) closeGate();
  while (done != nullptr) {
    Task* const next = done->queued;
    Request& r = *done->request;
    tasks_.give(*done);
    if (parks) {
      park(r, true);
    } else {
      finish(r, error);
    }
    done = next;
  }
  flushing_ = false;
  startFlushes();
}

}  // namespace metadisk
