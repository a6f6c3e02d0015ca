// Requests in, child I/O out, answers back; see volume_impl.h.
#include "md/volume.h"

#include <algorithm>
#include <cstdlib>

#include "md/extents.h"
#include "md/jobs.h"
#include "md/repair.h"
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
    case Op::extents: return IoOp::extents;
  }
  std::abort();
}

// The first fragment of the range; most requests are no longer.
Fragment oneFragment(const Node& node, std::uint64_t offset, std::uint64_t length) noexcept {
  Fragment fragment;
  std::uint64_t covered = 0;
  mapNode(node, offset, length, {&fragment, 1}, covered);
  return fragment;
}

}  // namespace

Volume::Impl::Impl(std::shared_ptr<const Plan> plan, std::span<ComponentFile* const> files, Backend& backend,
                   VolumeHost& host, MirrorState& state)
    : plan_(std::move(plan)),
      files_(files.begin(), files.end()),
      backend_(backend),
      host_(host),
      state_(state),
      size_(plan_->size()) {
  raid5Node_ = std::get_if<Raid5Node>(&plan_->root());
  const auto* mirror = std::get_if<MirrorNode>(&plan_->root());
  if (raid5Node_ != nullptr) return;
  if (mirror == nullptr) {
    direct_ = &plan_->root();
  } else if (mirror->sides.size() == 1 && ReadSources(*plan_, *mirror, nullptr).fast(0, 1) == 0) {
    direct_ = &plan_->nodes[mirror->sides[0].child];  // nothing to keep equal
  } else {
    mirror_ = mirror;
    sources_.emplace(*plan_, *mirror, state.stale);
    jobs_ = std::make_unique<Jobs>(*this);
    repairs_ = std::make_unique<Repairs>(*this);
    for (std::uint32_t file = 0; file < files_.size(); file++) {
      if (files_[file]->suspect.load(std::memory_order_relaxed)) sources_->avoid(file, true);
    }
  }
  if (mirror_ == nullptr) state.repairs = {};
  findWritten();
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

void Volume::Impl::submit(Request& r) noexcept {
  if (raid5_ != nullptr) return raid5_->submit(r);
  requests_++;
  if (raid5Node_ != nullptr) return finish(r, raid5Error_);
  clients_++;
  if (r.op == Op::flush || r.written) return submitFlush(r);
  if (r.length > size_ || r.offset > size_ - r.length) return finish(r, EINVAL);
  if (changesData(r.op)) {
    if (plan_->readOnly) return finish(r, EROFS);
    if (plan_->labelled && r.offset < kBlockBytes) return finish(r, EINVAL);
    if (mirror_ == nullptr && r.fua && anySyncFailed()) return finish(r, EIO);
  }
  if (r.length == 0) return finish(r, 0);
  if (r.op == Op::extents) return submitExtents(r);
  if (mirror_ == nullptr) {
    if (!submitSingle(r, *direct_, 0)) submitTask(r);
  } else if (!changesData(r.op)) {
    submitRead(r);
  } else if (r.op == Op::zero && r.fastZero) {
    finish(r, ENOTSUP);  // one side might do it and another refuse: they would differ
  } else {
    submitWrite(r);
  }
}

std::size_t Volume::Impl::ranges(std::uint64_t offset, std::uint64_t length, std::span<FileRange> out) noexcept {
  if (raid5_ != nullptr) return raid5_->ranges(offset, length, out);
  if (length > size_ || offset > size_ - length) return 0;
  const Node* const node = mirror_ == nullptr ? direct_ : sideToLend(offset, length);
  if (node == nullptr) return 0;
  std::array<Fragment, 64> fragments;
  std::uint64_t covered = 0;
  const std::size_t count =
      mapNode(*node, offset, length, std::span(fragments).first(std::min(fragments.size(), out.size())), covered);
  if (covered != length) return 0;
  for (std::size_t i = 0; i < count; i++) {
    const ComponentFile& file = *files_[fragments[i].file];
    if (!file.lendsPages() || fragments[i].offset + fragments[i].length > file.size.load(std::memory_order_relaxed))
      return 0;
    out[i] = {file.fd.get(), fragments[i].offset, fragments[i].length};
  }
  return count;
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
  child->uncached = false;
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
    const bool held = std::exchange(child.held, false);
    if (self.anotherSource(child, r.offset, child.data)) {
      if (held) {
        self.report(child, true);
        self.giveChild(child);
        r.again = true;
        return self.finish(r, 0);
      }
      Task* const task = self.newTask(r, Task::Kind::plain);
      if (task != nullptr) {
        if (self.wantRepair(child, r.offset, r.data)) self.report(child, true);
        self.retryRead(child, *task);
        self.giveChild(child);
        return self.drop(*task);
      }
    }
    self.report(child, false);
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
  task->begin(*this, kind, ioOp(r.op, kind == Task::Kind::mirrorWrite), r.offset, r.length, r.data);
  task->request = &r;
  task->fua = r.fua && r.op == Op::write;
  task->noHole = r.op == Op::zero && r.noHole;
  task->fastZero = r.op == Op::zero && r.fastZero;
  return task;
}

// Several fragments.
void Volume::Impl::submitTask(Request& r) noexcept {
  Task* const task = newTask(r, Task::Kind::plain);
  if (task == nullptr) return finish(r, ENOMEM);
  issue(*task, *direct_, r.offset, r.length, r.data, 0);
  drop(*task);
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
  if (child == nullptr) return nullptr;
  child->op = task.op;
  child->fua = task.fua;
  child->noHole = task.noHole;
  child->fastZero = task.fastZero;
  child->uncached = task.uncached;
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
  child->lastErred = fragment.service->lastErred;
  child->chain = nullptr;
  return child;
}

bool Volume::Impl::prepare(Task& task, Chain& chain, const Node& node, std::uint64_t offset, std::uint64_t length,
                           std::byte* data, std::uint32_t tried) noexcept {
  Child* const last = chain.tail;
  bool made = true;
  const auto add = [&](const Fragment& fragment, std::byte* piece) -> Child* {
    Child* const child = newChild(task, fragment, piece, tried);
    made = made && child != nullptr;
    if (child == nullptr) return nullptr;
    (chain.tail != nullptr ? chain.tail->chain : chain.head) = child;
    chain.tail = child;
    return child;
  };
  const bool writes = changesData(task.op);
  const auto wanted = [&](const Service& service) {
    return !writes || (service.writable && (service.lastErred == 0 || !task.okayOnly));
  };
  if (!hasData(task.op)) {
    mapExtents(node, offset, length, [&](const Fragment& fragment) {
      if (wanted(*fragment.service)) add(fragment, nullptr);
    });
  } else if (const Fragment whole = oneFragment(node, offset, length); whole.length == length) {
    if (wanted(*whole.service)) add(whole, data);
  } else {
    std::array<Fragment, 32> fragments;
    std::array<Child*, 64> open{};  // last Io per file, by the low bits of its index
    for (std::uint64_t at = 0; at < length;) {
      std::uint64_t covered = 0;
      const std::size_t count = mapNode(node, offset + at, length - at, fragments, covered);
      for (std::size_t i = 0; i < count; i++) {
        const Fragment& fragment = fragments[i];
        if (wanted(*fragment.service)) {
          Child*& neighbour = open[fragment.file % open.size()];
          const bool joined =
              neighbour != nullptr && neighbour->index == fragment.file && append(*neighbour, fragment, data + at);
          if (!joined) neighbour = add(fragment, data + at);
        }
        at += fragment.length;
      }
    }
  }
  if (!made) discard(chain, last);
  return made;
}

void Volume::Impl::start(Task& task, Chain& chain, bool oneSide) noexcept {
  const std::uint32_t side = chain.head != nullptr ? chain.head->tried : 0;
  while (chain.head != nullptr && (!oneSide || chain.head->tried == side)) {
    Child* const child = chain.head;
    chain.head = child->chain;  // start() may complete and free it
    if (chain.head == nullptr) chain.tail = nullptr;
    start(task, *child);
  }
}

void Volume::Impl::start(Task& task, Child& child) noexcept {
  task.pending++;
  backend_.start(child);
}

// Gives back what stands behind `after`; null: everything.
void Volume::Impl::discard(Chain& chain, Child* after) noexcept {
  Child* child = after != nullptr ? std::exchange(after->chain, nullptr) : std::exchange(chain.head, nullptr);
  chain.tail = after;
  while (child != nullptr) giveChild(*std::exchange(child, child->chain));
}

void Volume::Impl::issue(Task& task, const Node& node, std::uint64_t offset, std::uint64_t length, std::byte* data,
                         std::uint32_t tried) noexcept {
  Chain chain;
  if (!prepare(task, chain, node, offset, length, data, tried)) {
    task.error = ENOMEM;
    return;
  }
  start(task, chain);
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
  if (io.result == 0 && child.fua && io.file->syncFailed.load(std::memory_order_acquire)) io.result = -EIO;
  if (io.result != 0) [[unlikely]]
    self.childFailed(child, task);
  self.giveChild(child);
  self.drop(task);
}

void Volume::Impl::drop(Task& task) noexcept {
  if (--task.pending == 0) taskDone(task);
}

void Volume::Impl::taskDone(Task& task) noexcept {
  switch (task.kind) {
    case Task::Kind::plain: {
      Request& r = *task.request;
      const int error = task.error;
      r.again = task.again && error == 0;
      tasks_.give(task);
      return endOfData(r, error);
    }
    case Task::Kind::mirrorWrite: return endWrite(task);
    case Task::Kind::unsureRead: return endUnsureRead(task);
    case Task::Kind::flush: return endFlushes(task);
    case Task::Kind::job: return jobs_->onTask(task);
    case Task::Kind::repair: return repairs_->onTask(task);
    case Task::Kind::window: break;
  }
  std::abort();
}

// The data is in place; FUA of operations that have no such flag of their own is a flush.
void Volume::Impl::endOfData(Request& r, int error) noexcept {
  if (error == 0 && r.fua && changesData(r.op)) {
    if (r.op != Op::write) {
      // Later writes may have gone over it by now: should the flush park, only the flush is driven again.
      r.written = true;
      return submitFlush(r);
    }
    if (mirror_ == nullptr && anySyncFailed()) error = EIO;
  }
  finish(r, error);
}

int Volume::Impl::startResync(const ResyncJob& job) noexcept { return jobs_ == nullptr ? EINVAL : jobs_->resync(job); }
int Volume::Impl::startVerify(const VerifyJob& job) noexcept { return jobs_ == nullptr ? EINVAL : jobs_->verify(job); }
void Volume::Impl::cancelResync() noexcept {
  if (jobs_ != nullptr) jobs_->cancel();
  if (raid5Jobs_ != nullptr) raid5Jobs_->cancel();
}
bool Volume::Impl::resyncing() const noexcept {
  return (jobs_ != nullptr && jobs_->running()) || (raid5Jobs_ != nullptr && raid5Jobs_->running());
}
bool Volume::Impl::working() const noexcept { return resyncing() || (repairs_ != nullptr && repairs_->running()); }
void Volume::Impl::quiesce() noexcept {
  cancelResync();
  if (repairs_ != nullptr) repairs_->stop();
  if (raid5Repairs_ != nullptr) raid5Repairs_->stop();
  if (raid5_ != nullptr) raid5_->retire();
}
void Volume::Impl::tick() noexcept {
  if (raid5_ != nullptr) {
    raid5_->tick();
    raid5Jobs_->tick();
    return raid5Repairs_->tick();
  }
  if (mirror_ == nullptr) return;
  jobs_->tick();
  repairs_->tick();
}
std::uint64_t Volume::Impl::wakeAt() const noexcept {
  if (raid5_ != nullptr) return raid5Repairs_->due() ? 0 : std::min(raid5_->wakeAt(), raid5Jobs_->wakeAt());
  if (mirror_ == nullptr) return UINT64_MAX;
  return repairs_->due() ? 0 : jobs_->wakeAt();
}

Volume::Volume(std::shared_ptr<const Plan> plan, std::span<ComponentFile* const> files, Backend& backend,
               VolumeHost& host, MirrorState& state)
    : impl_(std::make_unique<Impl>(std::move(plan), files, backend, host, state)) {}
Volume::~Volume() = default;

void Volume::begin() noexcept { impl_->begin(); }
void Volume::submit(Request& request) noexcept { impl_->submit(request); }
std::size_t Volume::ranges(std::uint64_t offset, std::uint64_t length, std::span<FileRange> out) noexcept {
  return impl_->ranges(offset, length, out);
}
bool Volume::stateful() const noexcept { return impl_->stateful(); }
unsigned Volume::inFlight() const noexcept { return impl_->inFlight(); }
unsigned Volume::requests() const noexcept { return impl_->requests(); }
std::uint64_t Volume::size() const noexcept { return impl_->size(); }
const Plan& Volume::plan() const noexcept { return impl_->plan(); }
int Volume::startResync(const ResyncJob& job) noexcept { return impl_->startResync(job); }
int Volume::startVerify(const VerifyJob& job) noexcept { return impl_->startVerify(job); }
int Volume::startRaid5(const Raid5Job& job) noexcept { return impl_->startRaid5(job); }
void Volume::cancelResync() noexcept { impl_->cancelResync(); }
void Volume::quiesce() noexcept { impl_->quiesce(); }
bool Volume::resyncing() const noexcept { return impl_->resyncing(); }
bool Volume::working() const noexcept { return impl_->working() || impl_->wakeAt() != UINT64_MAX; }
void Volume::tick() noexcept { impl_->tick(); }
std::uint64_t Volume::wakeAt() const noexcept { return impl_->wakeAt(); }

}  // namespace metadisk
