#include "io/uring.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>
#include <utility>

#include "io/buffers.h"

namespace metadisk {

namespace {

constexpr unsigned kSlab = 256;
constexpr unsigned kWorkers = 8;
// The kernel reads less ahead at once than this, and the ring's length field is short.
constexpr std::uint64_t kAdviceMax = 1ULL << 30U;

void answer(Io& io, std::int32_t result) noexcept {
  io.result = result;
  io.complete(io);
}

}  // namespace

UringBackend::UringBackend(Mailbox& home, const UringOptions& options) : home_(home), finished_(home) {
  io_uring_params params{};
  params.flags =
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CLAMP;
  if (!options.forceWorkers) {
    int rc = io_uring_queue_init_params(options.entries, &ring_, &params);
    if (rc == -EINVAL) {
      params = {};
      params.flags = IORING_SETUP_CLAMP;
      rc = io_uring_queue_init_params(options.entries, &ring_, &params);
    }
    ringed_ = rc == 0;
  }
  if (ringed_) {
    event_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!event_ || io_uring_register_eventfd(&ring_, event_.get()) != 0) throw std::bad_alloc();
    io_uring_cq_eventfd_toggle(&ring_, false);
    unsigned limits[2] = {kRingWorkers, 0};
    io_uring_register_iowq_max_workers(&ring_, limits);  // kernels before 5.15 keep their own
  }
  if (!ringed_) workers_ = std::make_unique<Workers>(kWorkers);
  const unsigned processors = std::thread::hardware_concurrency();
  helpersMax_ = std::min(options.helpers, processors > 0 ? processors - 1 : 0);
  void* const zero = ::mmap(nullptr, kZeroChunk, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (zero == MAP_FAILED) throw std::bad_alloc();
  zeroes_ = static_cast<std::byte*>(zero);
  bounces_.reserve(kBounces);
}

UringBackend::~UringBackend() {
  workers_.reset();
  seekers_.reset();
  helpers_.reset();
  if (ringed_) io_uring_queue_exit(&ring_);
  for (std::byte* bounce : bounces_) std::free(bounce);
  ::munmap(zeroes_, kZeroChunk);
}

// ---- operations and their pool

UringBackend::RingOp* UringBackend::take(Io& io) noexcept {
  if (free_ == nullptr) {
    // Grows to the greatest number ever in flight, which request slots bound, with what was given up.
    auto slab = std::make_unique<RingOp[]>(kSlab);
    for (unsigned i = 0; i < kSlab; ++i) {
      slab[i].backend = this;
      slab[i].outstanding.operation = &slab[i];
      slab[i].next = free_;
      free_ = &slab[i];
    }
    slabs_.push_back(std::move(slab));
  }
  RingOp* const op = free_;
  free_ = op->next;
  limits_.begin(op->outstanding, io);
  op->call.iov = nullptr;
  op->call.offsets = nullptr;
  op->phase = Phase::transfer;
  op->done = 0;
  op->attempt = 0;
  op->claimed = false;
  op->syncing = false;
  op->helped = false;
  op->bounce = nullptr;
  ++inFlight_;
  return op;
}

void UringBackend::release(RingOp& op) noexcept {
  if (op.claimed) op.io->file->ranges.release(op.claim);
  std::byte* const bounce = op.bounce;
  op.bounce = nullptr;
  op.claimed = false;
  op.next = free_;
  free_ = &op;
  --inFlight_;
  if (bounce == nullptr) return;
  bounces_.push_back(bounce);
  serveBounces();
}

// The component has done its part; what synced still waits for those it ran beside.
void UringBackend::finish(RingOp& op, std::int32_t result) noexcept {
  if (!op.syncing) return settle(op, result);
  op.syncing = false;
  op.result = result;
  if (op.io->file->syncs.end(op.turn, result < 0)) settle(op, result);
}

void UringBackend::settle(RingOp& op, std::int32_t result) noexcept {
  const Io& io = *op.io;
  Io* const caller = limits_.end(op.outstanding);
  if (caller == nullptr) [[unlikely]] {
    const auto file = std::move(op.outstanding.file);  // its last user may be this one
    std::free(std::exchange(op.bounce, nullptr));      // replaced when it was given up
    release(op);
    return replaceThreads();
  }
  const bool promises = io.fua || io.op == IoOp::sync;
  if (promises && result == 0 && io.file->syncFailed.load(std::memory_order_acquire)) result = -EIO;
  release(op);
  answer(*caller, result);
}

// Null: the ring.
Workers* UringBackend::workersOf(const RingOp& op) const noexcept {
  if (op.helped) return helpers_.get();
  if (workers_) return workers_.get();
  if (op.io->file->workers) return op.io->file->workers.get();
  return op.phase == Phase::extents ? seekers_.get() : nullptr;
}

void UringBackend::issue(RingOp& op) noexcept {
  SysCall& call = op.call;
  limits_.restart(op.outstanding);
  call.fd = op.phase == Phase::witness ? op.io->file->witness.get() : op.io->file->fd.get();
  if (Workers* const workers = workersOf(op)) {
    call.finished = &finished_;
    if (!op.helped) return workers->enqueue(call);
    call.next = nullptr;
    (handed_ != nullptr ? handedLast_->next : handed_) = &call;
    handedLast_ = &call;
    handedCount_++;
    return;
  }
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  while (sqe == nullptr) {
    submit();
    sqe = io_uring_get_sqe(&ring_);
  }
  const auto length = static_cast<unsigned>(call.length);
  switch (call.kind) {
    case SysKind::read:
      if (call.iov != nullptr) {
        io_uring_prep_readv(sqe, call.fd, call.iov, call.iovCount, call.offset);
      } else {
        io_uring_prep_read(sqe, call.fd, call.data, length, call.offset);
      }
      sqe->rw_flags = call.flags;
      break;
    case SysKind::write:
      if (call.iov != nullptr) {
        io_uring_prep_writev(sqe, call.fd, call.iov, call.iovCount, call.offset);
      } else {
        io_uring_prep_write(sqe, call.fd, call.data, length, call.offset);
      }
      sqe->rw_flags = call.flags;
      break;
    case SysKind::sync: io_uring_prep_fsync(sqe, call.fd, IORING_FSYNC_DATASYNC); break;
    case SysKind::fallocate:
      io_uring_prep_fallocate(sqe, call.fd, call.flags, static_cast<off_t>(call.offset),
                              static_cast<off_t>(call.length));
      break;
    case SysKind::advise:
      io_uring_prep_fadvise(sqe, call.fd, call.offset, static_cast<off_t>(length), call.flags);
      break;
    case SysKind::extents: std::abort();  // never without threads
  }
  if (op.io->aside && op.phase == Phase::transfer) sqe->flags |= IOSQE_ASYNC;
  io_uring_sqe_set_data(sqe, &op);
  ++queued_;
}

void UringBackend::submit() noexcept {
  handOver();
  if (queued_ == 0) return;
  const int n = io_uring_submit(&ring_);
  // EAGAIN, EBUSY: the kernel is short of something; the entries stay queued for the next turn.
  if (n > 0) queued_ -= std::min(queued_, static_cast<unsigned>(n));
}

unsigned UringBackend::poll() noexcept {
  if (inFlight_ == 0) return 0;
  if (limits_.due()) look();
  unsigned count = 0;
  SysCall* oldest = nullptr;
  for (SysCall* call = finished_.take(); call != nullptr;) {
    SysCall* const next = call->next;
    call->next = oldest;
    oldest = call;
    call = next;
  }
  while (oldest != nullptr) {
    SysCall* const next = oldest->next;
    advance(*reinterpret_cast<RingOp*>(oldest), oldest->result);
    oldest = next;
    ++count;
  }
  if (!ringed_) return count;
  io_uring_cqe* cqe = nullptr;
  while (count < 4096 && io_uring_peek_cqe(&ring_, &cqe) == 0 && cqe != nullptr) {
    auto* const op = static_cast<RingOp*>(io_uring_cqe_get_data(cqe));
    const std::int32_t result = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    if (op != nullptr) advance(*op, result);  // else the answer to a cancellation
    ++count;
  }
  return count;
}

bool UringBackend::sleepBegins() noexcept {
  if (!ringed_ || inFlight_ == 0) return true;
  if (queued_ != 0) return false;  // the kernel was short of something: nothing else would wake the thread
  io_uring_cq_eventfd_toggle(&ring_, true);
  io_uring_cqe* cqe = nullptr;
  if (io_uring_peek_cqe(&ring_, &cqe) != 0 || cqe == nullptr) return true;
  io_uring_cq_eventfd_toggle(&ring_, false);
  return false;
}

void UringBackend::sleepEnds() noexcept {
  if (!ringed_) return;
  io_uring_cq_eventfd_toggle(&ring_, false);
  std::uint64_t count = 0;
  [[maybe_unused]] const auto n = ::read(event_.get(), &count, sizeof count);
}

// ---- starting

void UringBackend::start(Io& io) noexcept {
  ComponentFile& file = *io.file;
  if (Limits::refuses(file)) [[unlikely]]
    return answer(io, -ETIMEDOUT);
  if (io.offsets != nullptr) return startScattered(io);
  const std::uint64_t size = file.size.load(std::memory_order_relaxed);
  if (io.op != IoOp::sync && (io.length > size || io.offset > size - io.length)) return answer(io, -EIO);
  switch (io.op) {
    case IoOp::read: return startRead(io);
    case IoOp::write: return startWrite(io);
    case IoOp::sync: {
      if (file.syncFailed.load(std::memory_order_relaxed)) return answer(io, -EIO);
      if (file.memory()) return answer(io, 0);  // there is nothing behind it
      RingOp* const op = take(io);
      return syncAfter(*op);
    }
    case IoOp::discard:
    case IoOp::zero: return startRange(io);
    case IoOp::cache:
      if (file.direct || file.memory()) return answer(io, 0);
      return advise(io, Phase::advise, POSIX_FADV_WILLNEED, io.offset, io.offset + std::min(io.length, kAdviceMax));
    case IoOp::extents: return startExtents(io);
  }
}

void UringBackend::advise(Io& io, Phase phase, int advice, std::uint64_t from, std::uint64_t to) noexcept {
  RingOp* const op = take(io);
  op->phase = phase;
  op->call.kind = SysKind::advise;
  op->call.flags = advice;
  op->call.offset = from;
  op->call.length = to - from;
  issue(*op);
}

void UringBackend::startRead(Io& io) noexcept {
  ComponentFile& file = *io.file;
  std::uint64_t done = 0;
  if (io.uncached && !file.direct && !file.memory()) {
    return advise(io, Phase::forget, POSIX_FADV_DONTNEED, down(io.offset, kPage), up(io.offset + io.length, kPage));
  }
  if (io.bulk && !file.direct && file.memory() && help(io)) return;
  if (!io.aside && !file.direct && (file.memory() || file.nowait.load(std::memory_order_relaxed))) {
    const iovec one{io.data, io.length};
    const auto list = memory(io, one);
    const auto at = static_cast<off_t>(io.offset);
    const ssize_t n =
        file.memory() && io.iov == nullptr
            ? ::pread(file.fd.get(), io.data, io.length, at)
            : ::preadv2(file.fd.get(), list.data(), static_cast<int>(list.size()), at, file.memory() ? 0 : RWF_NOWAIT);
    if (n == static_cast<ssize_t>(io.length)) return answer(io, 0);
    if (n > 0) done = static_cast<std::uint64_t>(n);
    if (n == 0) return answer(io, -EIO);
    if (n < 0 && errno == EOPNOTSUPP) {
      file.nowait.store(false, std::memory_order_relaxed);
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
      return answer(io, -errno);
    }
  }
  RingOp* const op = take(io);
  op->done = done;
  begin(*op);
}

void UringBackend::startWrite(Io& io) noexcept {
  ComponentFile& file = *io.file;
  if (io.fua && file.syncFailed.load(std::memory_order_relaxed)) return answer(io, -EIO);
  std::uint64_t done = 0;
  // A partial page that is not cached would be read first, so only whole pages are written inline.
  const bool pages = ((io.offset | io.length) & (kPage - 1)) == 0;
  if (!io.aside && file.writesInline() && (file.memory() || (pages && !io.fua))) {
    if (io.bulk && !io.fua && help(io)) return;
    const auto at = static_cast<off_t>(io.offset);
    const ssize_t n = io.iov == nullptr ? ::pwrite(file.fd.get(), io.data, io.length, at)
                                        : ::pwritev(file.fd.get(), io.iov, static_cast<int>(io.iovCount), at);
    if (n == static_cast<ssize_t>(io.length)) return answer(io, 0);
    if (n < 0 && errno != EINTR && errno != EAGAIN) {
      const int error = errno;
      if (io.fua && !harmlessWriteError(error)) file.syncFailed.store(true, std::memory_order_release);
      return answer(io, -error);
    }
    if (n > 0) done = static_cast<std::uint64_t>(n);
  }
  RingOp* const op = take(io);
  op->done = done;
  if (file.direct && !claimRange(*op, !aligned(io))) return;
  begin(*op);
}

void UringBackend::startRange(Io& io) noexcept {
  RingOp* const op = take(io);
  op->phase = Phase::allocate;
  if (io.file->direct && !claimRange(*op, ((io.offset | io.length) & (io.file->align - 1)) != 0)) return;
  begin(*op);
}

// False when the operation waits for others; begin() follows on this thread.
bool UringBackend::claimRange(RingOp& op, bool exclusive) noexcept {
  const Io& io = *op.io;
  op.claim.start = down(io.offset, io.file->align);
  op.claim.end = up(io.offset + io.length, io.file->align);
  op.claim.exclusive = exclusive;
  op.claim.granted = [](RangeClaim& claim) noexcept {
    auto* const waiter = reinterpret_cast<RingOp*>(reinterpret_cast<std::byte*>(&claim) - offsetof(RingOp, claim));
    waiter->backend->home_.post([waiter] { waiter->backend->begin(*waiter); });
  };
  op.claimed = true;
  return io.file->ranges.claim(op.claim);
}

void UringBackend::begin(RingOp& op) noexcept {
  if (Limits::refuses(*op.io->file)) [[unlikely]]
    return finish(op, -ETIMEDOUT);
  if (op.phase == Phase::allocate) return allocate(op);
  if (op.io->file->direct && !aligned(*op.io)) return nextWindow(op);
  transfer(op);
}

// ---- plain transfers

void UringBackend::transfer(RingOp& op) noexcept {
  const Io& io = *op.io;
  op.phase = Phase::transfer;
  op.call.kind = io.op == IoOp::read ? SysKind::read : SysKind::write;
  op.call.flags = 0;
  if (io.op == IoOp::write && io.fua && io.file->dsync()) {
    op.call.flags = RWF_DSYNC;
    takeTurn(op);
  }
  op.call.offset = io.offset + op.done;
  op.call.offsets = io.offsets;
  if (io.iov != nullptr && op.done == 0) {
    op.call.iov = io.iov;
    op.call.iovCount = io.iovCount;
    op.call.length = io.length;
  } else {
    // What a short transfer left goes on entry by entry.
    const auto piece = pieceAt(io, op.done);
    op.call.iov = nullptr;
    op.call.data = piece.data();
    op.call.length = piece.size();
  }
  issue(op);
}

void UringBackend::advance(RingOp& op, std::int32_t result) noexcept {
  if (op.outstanding.caller == nullptr) [[unlikely]]
    return lateAnswer(op, result);
  if (result == -EINTR || result == -EAGAIN) return issue(op);
  Io& io = *op.io;
  switch (op.phase) {
    case Phase::transfer:
      if (result == 0) result = -EIO;
      if (result < 0) return io.fua ? stableWriteFailed(op, result) : finish(op, result);
      op.done += static_cast<std::uint64_t>(result);
      if (op.done >= io.length) return written(op);
      if (io.file->direct && (op.done & (io.file->align - 1)) != 0) return finish(op, -EIO);
      return transfer(op);
    case Phase::bounceRead: return windowRead(op, result);
    case Phase::bounceWrite:
      if (result >= 0 && static_cast<std::uint64_t>(result) != op.call.length) result = -EIO;
      if (result < 0) return io.fua ? stableWriteFailed(op, result) : finish(op, result);
      op.done += op.window;
      return op.done < io.length ? nextWindow(op) : written(op);
    case Phase::zeroWrite:
      if (result == 0) result = -EIO;
      if (result < 0) return io.fua ? stableWriteFailed(op, result) : finish(op, result);
      op.done += static_cast<std::uint64_t>(result);
      return op.done < io.length ? zeroChunk(op) : written(op);
    case Phase::allocate: return allocated(op, result);
    case Phase::advise: return finish(op, 0);  // nothing depends on its success
    case Phase::extents:
      op.outstanding.caller->hole = result == 1;
      op.outstanding.caller->run = op.call.length;
      return finish(op, 0);
    case Phase::forget: return transfer(op);
    case Phase::sync:
      if (result < 0) io.file->syncFailed.store(true, std::memory_order_release);
      return finish(op, result < 0 ? result : 0);
    case Phase::witness:
      if (result < 0) io.file->syncFailed.store(true, std::memory_order_release);
      return finish(op, op.result);
  }
}

}  // namespace metadisk
