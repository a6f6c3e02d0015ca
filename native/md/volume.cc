// Requests in, child I/O out, answers back; see volume_impl.h.
#include "md/volume.h"

#include <algorithm>
#include <cstdlib>

#include "md/jobs.h"
#include "md/volume_impl.h"

namespace metadisk {

namespace {

bool hasData(IoOp op) noexcept { return op == IoOp::read || op == IoOp::write; }

IoOp ioOp(Op op, bool mirrored) noexcept {
  switch (op) {
    case Op::read: return IoOp::read;
    case Op::write: return IoOp::write;
    case Op::flush: return IoOp::sync;
    case Op::trim:
      // What a discarded block reads as may differ from device to device; zeroes do not.
      return mirrored ? IoOp::zero : IoOp::discard;
    case Op::zero: return IoOp::zero;
    case Op::cache: return IoOp::cache;
  }
  std::abort();
}

}  // namespace

Volume::Impl::Impl(std::shared_ptr<const Plan> plan, std::span<ComponentFile* const> files, Backend& backend,
                   VolumeHost& host, StaleSides* stale)
    : plan_(std::move(plan)),
      files_(files.begin(), files.end()),
      backend_(backend),
      host_(host),
      size_(plan_->size()),
      stale_(stale) {
  const auto* mirror = std::get_if<MirrorNode>(&plan_->root());
  if (mirror == nullptr) {
    direct_ = &plan_->root();
  } else if (mirror->sides.size() == 1) {
    direct_ = &plan_->nodes[mirror->sides[0].child];  // nothing to keep equal
  } else {
    mirror_ = mirror;
    balance_ = std::make_unique<ReadBalance>(*mirror);
    jobs_ = std::make_unique<Jobs>(*this);
  }
  for (std::uint32_t i = 0; i < files_.size(); i++) allFiles_.push_back(i);
  flushSync_.impl = this;
}

Volume::Impl::~Impl() {
  if (inFlight() != 0) std::abort();  // children would come back to freed memory
}

void Volume::Impl::finish(Request& r, int error) noexcept {
  requests_--;
  r.error = error;
  r.done(r);
}

bool Volume::Impl::anySyncFailed() const noexcept {
  return std::any_of(files_.begin(), files_.end(),
                     [](const ComponentFile* f) { return f->syncFailed.load(std::memory_order_acquire); });
}

void Volume::Impl::submit(Request& r) noexcept {
  requests_++;
  clients_++;
  if (r.op == Op::flush) return submitFlush(r);
  if (r.length > size_ || r.offset > size_ - r.length) return finish(r, EINVAL);
  if (changesData(r.op)) {
    if (plan_->readOnly) return finish(r, EROFS);
    if (plan_->labelled && r.offset < kBlockBytes) return finish(r, EINVAL);
    if (r.fua && anySyncFailed()) return finish(r, EIO);
  }
  if (r.length == 0) return finish(r, 0);
  if (mirror_ == nullptr) {
    if (!submitSingle(r, *direct_, 0)) submitTask(r);
  } else if (!changesData(r.op)) {
    submitRead(r);
  } else if (r.op == Op::zero && r.fastZero) {
    finish(r, ENOTSUP);  // one side might do it and another refuse: they would differ
  } else {
    submitTask(r);
  }
}

std::size_t Volume::Impl::ranges(std::uint64_t offset, std::uint64_t length, std::span<FileRange> out) const noexcept {
  if (std::holds_alternative<MirrorNode>(plan_->root()) || length > size_ || offset > size_ - length) return 0;
  std::array<Fragment, 64> fragments;
  std::uint64_t covered = 0;
  const std::size_t count =
      mapNode(*direct_, offset, length, std::span(fragments).first(std::min(fragments.size(), out.size())), covered);
  if (covered != length) return 0;
  for (std::size_t i = 0; i < count; i++) {
    const ComponentFile& file = *files_[fragments[i].file];
    if (!file.lendsPages() || fragments[i].offset + fragments[i].length > file.size.load(std::memory_order_relaxed))
      return 0;
    out[i] = {file.fd.get(), fragments[i].offset, fragments[i].length};
  }
  return count;
}

void Volume::Impl::submitRead(Request& r) noexcept {
  const std::uint32_t side = balance_->choose(r.offset, r.length);
  if (submitSingle(r, sideNode(side), 1U << side)) return;
  Task* const task = newTask(r, Task::Kind::plain);
  if (task == nullptr) return finish(r, ENOMEM);
  issue(*task, sideNode(side), r.offset, r.length, r.data, 1U << side);
  drop(*task);
}

// True when the whole request is one Io, which is started.
bool Volume::Impl::submitSingle(Request& r, const Node& node, std::uint32_t tried) noexcept {
  if (r.fua && r.op != Op::write) return false;  // needs a flush after it
  Fragment fragment;
  std::uint64_t covered = 0;
  mapNode(node, r.offset, r.length, {&fragment, 1}, covered);
  if (covered != r.length) return false;
  Child* const child = children_.take();
  if (child == nullptr) return false;
  child->op = ioOp(r.op, false);
  child->fua = r.fua && r.op == Op::write;
  child->noHole = r.noHole;
  child->fastZero = r.fastZero;
  child->file = files_[fragment.file];
  child->offset = fragment.offset;
  child->length = fragment.length;
  child->data = r.data;
  child->iov = nullptr;
  child->iovCount = 0;
  child->complete = onSingle;
  child->impl = this;
  child->request = &r;
  child->task = nullptr;
  child->slab = nullptr;
  child->index = fragment.file;
  child->tried = tried;
  backend_.start(*child);
  return true;
}

void Volume::Impl::onSingle(Io& io) noexcept {
  Child& child = static_cast<Child&>(io);
  Impl& self = *child.impl;
  Request& r = *child.request;
  int error = -io.result;
  if (error != 0) [[unlikely]] {
    if (self.mirror_ != nullptr && r.op == Op::read && self.balance_->other(child.tried) >= 0) {
      Task* const task = self.newTask(r, Task::Kind::plain);
      if (task != nullptr) {
        self.failed(child, true);
        self.retryRead(child, *task);
        self.giveChild(child);
        return self.drop(*task);
      }
    }
    self.failed(child, false);
    if (r.op == Op::cache || (io.op == IoOp::discard && error == EOPNOTSUPP)) error = 0;
  } else if (r.fua && self.anySyncFailed()) {
    error = EIO;
  }
  self.children_.give(child);
  self.finish(r, error);
}

Volume::Impl::Task* Volume::Impl::newTask(Request& r, Task::Kind kind) noexcept {
  Task* const task = tasks_.take();
  if (task == nullptr) return nullptr;
  task->kind = kind;
  task->impl = this;
  task->request = &r;
  task->op = ioOp(r.op, kind == Task::Kind::mirrorWrite);
  task->offset = r.offset;
  task->length = r.length;
  task->data = r.data;
  task->fua = r.fua && r.op == Op::write;
  task->noHole = r.op == Op::zero && r.noHole;
  task->fastZero = r.op == Op::zero && r.fastZero;
  task->pending = 1;  // the caller's, given back by drop()
  task->nextSide = 0;
  task->error = 0;
  return task;
}

// Everything that is not one Io: several fragments, or all sides of a mirror.
void Volume::Impl::submitTask(Request& r) noexcept {
  Task* const task = newTask(r, mirror_ != nullptr ? Task::Kind::mirrorWrite : Task::Kind::plain);
  if (task == nullptr) return finish(r, ENOMEM);
  if (mirror_ == nullptr) {
    issue(*task, *direct_, r.offset, r.length, r.data, 0);
    return drop(*task);
  }
  task->first = r.offset;
  task->end = r.offset + r.length;
  task->OverlapEntry::start = onOwned;
  overlaps_.enter(*task);
}

void Volume::Impl::onOwned(OverlapEntry& entry) noexcept {
  Task& task = static_cast<Task&>(entry);
  if (task.kind == Task::Kind::window) return task.impl->jobs_->onOwned(task);
  task.impl->writeSides(task);
}

void Volume::Impl::writeSides(Task& task) noexcept {
  const auto sides = static_cast<std::uint32_t>(mirror_->sides.size());
  const std::uint32_t until = mirror_->write == WritePolicy::serial ? task.nextSide + 1 : sides;
  while (task.nextSide < until) {
    const std::uint32_t side = task.nextSide++;
    issue(task, sideNode(side), task.offset, task.length, task.data, 1U << side);
  }
  drop(task);
}

bool Volume::Impl::append(Child& child, const Fragment& fragment, std::byte* data) noexcept {
  if (child.offset + child.length != fragment.offset) return false;
  if (child.slab == nullptr) {
    child.slab = slabs_.take();
    if (child.slab == nullptr) return false;
    child.slab->entries[0] = {child.data, child.length};
    child.iov = child.slab->entries.data();
    child.iovCount = 1;
  }
  if (child.iovCount == kIovecsMax) return false;
  child.slab->entries[child.iovCount++] = {data, fragment.length};
  child.length += fragment.length;
  return true;
}

Volume::Impl::Child* Volume::Impl::newChild(Task& task, const Fragment& fragment, std::byte* data,
                                            std::uint32_t tried) noexcept {
  Child* const child = children_.take();
  if (child == nullptr) {
    task.error = ENOMEM;
    return nullptr;
  }
  child->op = task.op;
  child->fua = task.fua;
  child->noHole = task.noHole;
  child->fastZero = task.fastZero;
  child->file = files_[fragment.file];
  child->offset = fragment.offset;
  child->length = fragment.length;
  child->data = data;
  child->iov = nullptr;
  child->iovCount = 0;
  child->complete = onChild;
  child->impl = this;
  child->request = nullptr;
  child->task = &task;
  child->slab = nullptr;
  child->index = fragment.file;
  child->tried = tried;
  child->chain = nullptr;
  task.pending++;
  return child;
}

// Starts the Ios of one range of one node: neighbours on a component go into one Io.
void Volume::Impl::issue(Task& task, const Node& node, std::uint64_t offset, std::uint64_t length, std::byte* data,
                         std::uint32_t tried) noexcept {
  Child* head = nullptr;
  Child** tail = &head;
  const auto add = [&](const Fragment& fragment, std::byte* piece) {
    Child* const child = newChild(task, fragment, piece, tried);
    if (child == nullptr) return child;
    *tail = child;
    tail = &child->chain;
    return child;
  };
  if (!hasData(task.op)) {
    mapExtents(node, offset, length, [&](const Fragment& fragment) { add(fragment, nullptr); });
  } else {
    std::array<Fragment, 32> fragments;
    std::array<Child*, 64> open{};  // last Io per file, by the low bits of its index
    for (std::uint64_t at = 0; at < length;) {
      std::uint64_t covered = 0;
      const std::size_t count = mapNode(node, offset + at, length - at, fragments, covered);
      for (std::size_t i = 0; i < count; i++) {
        const Fragment& fragment = fragments[i];
        Child*& last = open[fragment.file % open.size()];
        const bool joined = last != nullptr && last->index == fragment.file && append(*last, fragment, data + at);
        if (!joined) last = add(fragment, data + at);
        at += fragment.length;
      }
    }
  }
  while (head != nullptr) {
    Child* const child = head;
    head = child->chain;  // start() may complete and free it
    backend_.start(*child);
  }
}

void Volume::Impl::giveChild(Child& child) noexcept {
  if (child.slab != nullptr) slabs_.give(*child.slab);
  child.slab = nullptr;
  children_.give(child);
}

void Volume::Impl::onChild(Io& io) noexcept {
  Child& child = static_cast<Child&>(io);
  Impl& self = *child.impl;
  Task& task = *child.task;
  if (io.result != 0) [[unlikely]] {
    const bool another = io.op == IoOp::read && self.mirror_ != nullptr && self.balance_->other(child.tried) >= 0;
    const bool copying = task.request == nullptr && task.kind != Task::Kind::flush;
    self.failed(child, another || copying);
    if (another) {
      self.retryRead(child, task);
    } else if (io.op != IoOp::cache && !(io.op == IoOp::discard && io.result == -EOPNOTSUPP)) {
      task.error = -io.result;
      task.erred = self.plan_->components[child.index];
    }
  }
  self.giveChild(child);
  self.drop(task);
}

// Every piece of a failed read is asked of a side that has not been asked for it yet; there is one.
void Volume::Impl::retryRead(Child& child, Task& task) noexcept {
  const int side = balance_->other(child.tried);
  const std::uint32_t tried = child.tried | 1U << side;
  const iovec single{child.data, child.length};
  const iovec* const pieces = child.iov != nullptr ? child.iov : &single;
  const std::uint32_t count = child.iov != nullptr ? child.iovCount : 1;
  for (std::uint32_t i = 0; i < count; i++) {
    auto* const data = static_cast<std::byte*>(pieces[i].iov_base);
    const std::uint64_t offset = task.offset + static_cast<std::uint64_t>(data - task.data);
    issue(task, sideNode(static_cast<std::uint32_t>(side)), offset, pieces[i].iov_len, data, tried);
  }
}

void Volume::Impl::failed(const Child& child, bool masked) noexcept {
  const int error = -child.result;
  // "Cannot do that" is an answer, not a fault of the component.
  const bool optional = child.op == IoOp::discard || child.op == IoOp::zero || child.op == IoOp::cache;
  if (optional && (error == EOPNOTSUPP || error == EINVAL)) return;
  const ComponentOp op = child.op == IoOp::sync                              ? ComponentOp::flush
                         : child.op == IoOp::read || child.op == IoOp::cache ? ComponentOp::read
                                                                             : ComponentOp::write;
  host_.componentError({.component = plan_->components[child.index],
                        .op = op,
                        .block = child.offset / kBlockBytes,
                        .error = error,
                        .masked = masked});
}

void Volume::Impl::drop(Task& task) noexcept {
  if (--task.pending == 0) taskDone(task);
}

void Volume::Impl::taskDone(Task& task) noexcept {
  switch (task.kind) {
    case Task::Kind::plain: {
      Request& r = *task.request;
      const int error = task.error;
      tasks_.give(task);
      return endOfData(r, error);
    }
    case Task::Kind::mirrorWrite: {
      if (task.nextSide < mirror_->sides.size()) {
        task.pending = 1;
        return writeSides(task);
      }
      overlaps_.leave(task);
      Request& r = *task.request;
      const int error = task.error;
      tasks_.give(task);
      return endOfData(r, error);
    }
    case Task::Kind::flush: return endFlushes(task);
    case Task::Kind::job: return jobs_->onTask(task);
    case Task::Kind::window: break;
  }
  std::abort();
}

// The data is in place; FUA of operations that have no such flag of their own is a flush.
void Volume::Impl::endOfData(Request& r, int error) noexcept {
  if (error == 0 && r.fua && changesData(r.op)) {
    if (r.op != Op::write) return submitFlush(r);
    if (anySyncFailed()) error = EIO;
  }
  finish(r, error);
}

int Volume::Impl::startResync(const ResyncJob& job) noexcept { return jobs_ == nullptr ? EINVAL : jobs_->resync(job); }
int Volume::Impl::startVerify(const VerifyJob& job) noexcept { return jobs_ == nullptr ? EINVAL : jobs_->verify(job); }
void Volume::Impl::cancelResync() noexcept {
  if (jobs_ != nullptr) jobs_->cancel();
}
bool Volume::Impl::resyncing() const noexcept { return jobs_ != nullptr && jobs_->running(); }
void Volume::Impl::tick() noexcept {
  if (jobs_ != nullptr) jobs_->tick();
}
std::uint64_t Volume::Impl::wakeAt() const noexcept { return jobs_ == nullptr ? UINT64_MAX : jobs_->wakeAt(); }

Volume::Volume(std::shared_ptr<const Plan> plan, std::span<ComponentFile* const> files, Backend& backend,
               VolumeHost& host, StaleSides* stale)
    : impl_(std::make_unique<Impl>(std::move(plan), files, backend, host, stale)) {}
Volume::~Volume() = default;

void Volume::submit(Request& request) noexcept { impl_->submit(request); }
std::size_t Volume::ranges(std::uint64_t offset, std::uint64_t length, std::span<FileRange> out) const noexcept {
  return impl_->ranges(offset, length, out);
}
bool Volume::stateful() const noexcept { return impl_->stateful(); }
unsigned Volume::inFlight() const noexcept { return impl_->inFlight(); }
std::uint64_t Volume::size() const noexcept { return impl_->size(); }
const Plan& Volume::plan() const noexcept { return impl_->plan(); }
int Volume::startResync(const ResyncJob& job) noexcept { return impl_->startResync(job); }
int Volume::startVerify(const VerifyJob& job) noexcept { return impl_->startVerify(job); }
void Volume::cancelResync() noexcept { impl_->cancelResync(); }
bool Volume::resyncing() const noexcept { return impl_->resyncing(); }
void Volume::tick() noexcept { impl_->tick(); }
std::uint64_t Volume::wakeAt() const noexcept { return impl_->wakeAt(); }

}  // namespace metadisk
