// The engine of one metadevice: requests in, child I/O out, answers back.
//
// A request that maps to one fragment uses one pooled Child and nothing else. Anything larger has a
// Task that counts its children. Writes to a mirror, and the window of a resync, own their range in
// the overlap list from before the first child until after the last; so two sides can only differ
// where a write is in flight or has failed.
#include "md/volume.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>
#include <vector>

#include "io/file.h"
#include "md/mirror.h"
#include "md/pool.h"
#include "md/stripe.h"

namespace metadisk {

namespace {

constexpr std::uint64_t kBlock = 512;

bool changesData(Op op) noexcept { return op == Op::write || op == Op::trim || op == Op::zero; }
bool hasData(IoOp op) noexcept { return op == IoOp::read || op == IoOp::write; }

IoOp ioOp(Op op, bool mirrored) noexcept {
  switch (op) {
    case Op::read:
      return IoOp::read;
    case Op::write:
      return IoOp::write;
    case Op::flush:
      return IoOp::sync;
    case Op::trim:
      // What a discarded block reads as may differ from device to device; zeroes do not.
      return mirrored ? IoOp::zero : IoOp::discard;
    case Op::zero:
      return IoOp::zero;
    case Op::cache:
      return IoOp::cache;
  }
  std::abort();
}

// Errors that say the write never reached the page cache, or that nothing is lost by it.
bool harmlessForSync(int error) noexcept {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EINVAL:
    case EOPNOTSUPP:
    case ENOMEM:
    case EAGAIN:
    case EINTR:
      return true;
    default:
      return false;
  }
}

struct IovecSlab {
  std::array<iovec, kIovecsMax> entries;
  IovecSlab* poolNext = nullptr;
};

}  // namespace

class Volume::Impl final : public ResyncPort {
 public:
  Impl(std::shared_ptr<const Plan> plan, std::span<ComponentFile* const> files, Backend& backend, VolumeHost& host);
  ~Impl() override;

  void submit(Request& r) noexcept;
  bool stateful() const noexcept { return mirror_ != nullptr; }
  unsigned inFlight() const noexcept { return requests_ + (resync_.running() ? 1U : 0U); }
  const Plan& plan() const noexcept { return *plan_; }
  std::uint64_t size() const noexcept { return size_; }
  int startResync(const ResyncJob& job) noexcept;
  Resync& resync() noexcept { return resync_; }

 private:
  struct Task;
  // One Io on one component.
  struct Child : Io {
    Impl* impl = nullptr;
    Request* request = nullptr;  // without a task: the request this Io answers alone
    Task* task = nullptr;
    IovecSlab* slab = nullptr;
    std::uint32_t index = 0;  // of the file
    std::uint32_t tried = 0;  // mirror read: sides asked so far, one bit each, this one included
    Child* chain = nullptr;
    Child* poolNext = nullptr;
  };
  // Several Ios that end together.
  struct Task : OverlapEntry {
    enum class Kind : std::uint8_t { plain, mirrorWrite, flush, window, windowRead, windowWrite, targetSync };
    Kind kind = Kind::plain;
    Impl* impl = nullptr;
    Request* request = nullptr;  // null for the resync's tasks
    IoOp op = IoOp::read;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::byte* data = nullptr;
    bool fua = false;
    bool noHole = false;
    bool fastZero = false;
    std::uint32_t pending = 0;
    std::uint32_t nextSide = 0;  // serial writes
    int error = 0;
    Task* queued = nullptr;
    Task* poolNext = nullptr;
  };

  void finish(Request& r, int error) noexcept;
  void submitTask(Request& r) noexcept;
  bool submitSingle(Request& r, const Node& node, std::uint32_t tried) noexcept;
  void submitRead(Request& r) noexcept;
  void submitFlush(Request& r) noexcept;
  void startFlushes() noexcept;
  Task* newTask(Request& r, Task::Kind kind) noexcept;
  void issue(Task& task, const Node& node, std::uint64_t offset, std::uint64_t length, std::byte* data,
             std::uint32_t tried) noexcept;
  Child* newChild(Task& task, const Fragment& fragment, std::byte* data, std::uint32_t tried) noexcept;
  bool append(Child& child, const Fragment& fragment, std::byte* data) noexcept;
  void issueSync(Task& task, std::span<const std::uint32_t> files) noexcept;
  void giveChild(Child& child) noexcept;
  void drop(Task& task) noexcept;
  void taskDone(Task& task) noexcept;
  void writeSides(Task& task) noexcept;
  void endOfData(Request& r, int error) noexcept;
  void retryRead(Child& child, Task& task) noexcept;
  void failed(const Child& child) noexcept;
  bool anySyncFailed() const noexcept;
  const Node& sideNode(std::uint32_t side) const noexcept { return plan_->nodes[mirror_->sides[side].child]; }

  static void onSingle(Io& io) noexcept;
  static void onChild(Io& io) noexcept;
  static void onOwned(OverlapEntry& entry) noexcept;

  // ResyncPort
  void windowLock(std::uint64_t offset, std::uint64_t length) noexcept override;
  void windowUnlock() noexcept override;
  void windowRead(std::uint64_t offset, std::span<std::byte> into) noexcept override;
  void windowWrite(std::uint64_t offset, std::span<std::byte> from) noexcept override;
  void targetSync() noexcept override;
  std::uint64_t now() noexcept override { return host_.now(); }
  bool clientsActive() noexcept override { return std::exchange(clients_, 0) != 0 || requests_ != 0; }
  void progress(std::uint64_t job, std::uint64_t done, std::uint64_t total) noexcept override {
    host_.resyncProgress(job, done, total);
  }
  void ended(std::uint64_t job, ResyncOutcome outcome, int error, std::uint64_t done) noexcept override {
    host_.resyncEnded(job, outcome, error, done);
  }

  std::shared_ptr<const Plan> plan_;
  std::vector<ComponentFile*> files_;
  Backend& backend_;
  VolumeHost& host_;
  std::uint64_t size_;
  const Node* direct_ = nullptr;          // stripe or component all requests go to; null for a mirror
  const MirrorNode* mirror_ = nullptr;    // with two sides or more
  std::unique_ptr<ReadBalance> balance_;
  OverlapList overlaps_;
  std::vector<std::uint32_t> allFiles_;
  std::vector<std::uint32_t> targetFiles_;
  std::uint32_t target_ = 0;
  unsigned requests_ = 0;
  unsigned clients_ = 0;  // submitted since the resync asked
  Task* flushHead_ = nullptr;
  Task* flushTail_ = nullptr;
  bool flushing_ = false;
  Pool<Child> children_;
  Pool<Task> tasks_;
  Pool<IovecSlab, 16> slabs_;
  Task window_;      // the resync's range in the overlap list
  Task windowIo_;    // its reads, writes and sync, one at a time
  Task flushSync_;   // the syncs of the flush batch in flight
  Task* batch_ = nullptr;
  Resync resync_{*this};
};

Volume::Impl::Impl(std::shared_ptr<const Plan> plan, std::span<ComponentFile* const> files, Backend& backend,
                   VolumeHost& host)
    : plan_(std::move(plan)), files_(files.begin(), files.end()), backend_(backend), host_(host), size_(plan_->size()) {
  const auto* mirror = std::get_if<MirrorNode>(&plan_->root());
  if (mirror == nullptr) {
    direct_ = &plan_->root();
  } else if (mirror->sides.size() == 1) {
    direct_ = &plan_->nodes[mirror->sides[0].child];  // nothing to keep equal
  } else {
    mirror_ = mirror;
    balance_ = std::make_unique<ReadBalance>(*mirror);
  }
  for (std::uint32_t i = 0; i < files_.size(); i++) allFiles_.push_back(i);
  for (Task* task : {&window_, &windowIo_, &flushSync_}) task->impl = this;
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
    if (plan_->labelled && r.offset < kBlock) return finish(r, EINVAL);
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
    self.failed(child);
    if (self.mirror_ != nullptr && r.op == Op::read) {
      Task* const task = self.newTask(r, Task::Kind::plain);
      if (task != nullptr) {
        self.retryRead(child, *task);
        self.giveChild(child);
        return self.drop(*task);
      }
    }
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
  if (task.kind == Task::Kind::window) return task.impl->resync_.onLocked();
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
    self.failed(child);
    if (io.op == IoOp::read && self.mirror_ != nullptr) {
      self.retryRead(child, task);
    } else if (io.op != IoOp::cache && !(io.op == IoOp::discard && io.result == -EOPNOTSUPP)) {
      task.error = -io.result;
    }
  }
  self.giveChild(child);
  self.drop(task);
}

// Every piece of a failed read is asked of a side that has not been asked for it yet.
void Volume::Impl::retryRead(Child& child, Task& task) noexcept {
  const int side = balance_->other(child.tried);
  if (side < 0) {
    task.error = -child.result;
    return;
  }
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

void Volume::Impl::failed(const Child& child) noexcept {
  const int error = -child.result;
  if (child.op == IoOp::sync || (child.fua && !harmlessForSync(error))) {
    child.file->syncFailed.store(true, std::memory_order_release);
  }
  // "Cannot do that" is an answer, not a fault of the component.
  const bool optional = child.op == IoOp::discard || child.op == IoOp::zero || child.op == IoOp::cache;
  if (optional && (error == EOPNOTSUPP || error == EINVAL)) return;
  const ComponentOp op = child.op == IoOp::sync                                  ? ComponentOp::flush
                         : child.op == IoOp::read || child.op == IoOp::cache ? ComponentOp::read
                                                                             : ComponentOp::write;
  host_.componentError(plan_->components[child.index], op, child.offset / kBlock, error);
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
    case Task::Kind::flush: {
      // The batch: the sticky marks speak for syncs of other threads too.
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
      return startFlushes();
    }
    case Task::Kind::windowRead:
      return resync_.onRead(task.error);
    case Task::Kind::windowWrite:
      return resync_.onWritten(task.error);
    case Task::Kind::targetSync:
      return resync_.onSynced(task.error);
    case Task::Kind::window:
      break;
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

int Volume::Impl::startResync(const ResyncJob& job) noexcept {
  if (resync_.running()) return EBUSY;
  if (mirror_ == nullptr || job.target >= mirror_->sides.size()) return EINVAL;
  if (balance_->other(1U << job.target) < 0) return EINVAL;
  if (job.from > size_ / kBlock) return EINVAL;
  target_ = job.target;
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

Volume::Volume(std::shared_ptr<const Plan> plan, std::span<ComponentFile* const> files, Backend& backend,
               VolumeHost& host)
    : impl_(std::make_unique<Impl>(std::move(plan), files, backend, host)) {}
Volume::~Volume() = default;

void Volume::submit(Request& request) noexcept { impl_->submit(request); }
bool Volume::stateful() const noexcept { return impl_->stateful(); }
unsigned Volume::inFlight() const noexcept { return impl_->inFlight(); }
std::uint64_t Volume::size() const noexcept { return impl_->size(); }
const Plan& Volume::plan() const noexcept { return impl_->plan(); }
int Volume::startResync(const ResyncJob& job) noexcept { return impl_->startResync(job); }
void Volume::cancelResync() noexcept { impl_->resync().cancel(); }
bool Volume::resyncing() const noexcept { return impl_->resync().running(); }
void Volume::tick() noexcept { impl_->resync().tick(); }
std::uint64_t Volume::wakeAt() const noexcept { return impl_->resync().wakeAt(); }

}  // namespace metadisk
