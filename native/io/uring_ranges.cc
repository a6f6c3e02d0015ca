// What a component cannot do in one plain transfer: odd offsets under O_DIRECT, discards and zeroes, finding holes.
#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include "io/buffers.h"
#include "io/uring.h"

namespace metadisk {

namespace {

constexpr unsigned kSeekers = 2;

bool unsupported(std::int32_t result) noexcept {
  return result == -EOPNOTSUPP || result == -ENOSYS || result == -ENODEV || result == -ENOTTY;
}

}  // namespace

// ---- O_DIRECT with odd offsets

// Reads the blocks around the next part of the Io into the bounce buffer.
void UringBackend::nextWindow(RingOp& op) noexcept {
  const Io& io = *op.io;
  if (Limits::refuses(*io.file)) [[unlikely]]
    return finish(op, -ETIMEDOUT);
  if (op.bounce == nullptr) {
    if (!bounces_.empty()) {
      op.bounce = bounces_.back();
      bounces_.pop_back();
    } else if (bouncesMade_ < kBounces) {
      op.bounce = static_cast<std::byte*>(std::aligned_alloc(kPage, kWindow));
      if (op.bounce == nullptr) return finish(op, -ENOMEM);
      ++bouncesMade_;
    } else {
      limits_.suspend(op.outstanding);
      bounceWaiters_.push_back(&op);
      return;
    }
  }
  const std::uint64_t at = io.offset + op.done;
  op.windowStart = down(at, io.file->align);
  const std::uint64_t end = std::min(up(io.offset + io.length, io.file->align), op.windowStart + kWindow);
  op.window = std::min(end, io.offset + io.length) - at;
  op.phase = Phase::bounceRead;
  op.call.kind = SysKind::read;
  op.call.flags = 0;
  op.call.data = op.bounce;
  op.call.offset = op.windowStart;
  op.call.length = end - op.windowStart;
  issue(op);
}

void UringBackend::serveBounces() noexcept {
  while (!bounceWaiters_.empty() && (!bounces_.empty() || bouncesMade_ < kBounces)) {
    RingOp* const waiter = bounceWaiters_.front();
    bounceWaiters_.pop_front();
    nextWindow(*waiter);
  }
}

void UringBackend::windowRead(RingOp& op, std::int32_t result) noexcept {
  Io& io = *op.io;
  if (result < 0) return finish(op, result);
  const std::uint64_t skip = io.offset + op.done - op.windowStart;
  const auto got = static_cast<std::uint64_t>(result);
  // The last block of a file may end inside the window, never before the component's end.
  if (got < op.call.length && got < skip + op.window) return finish(op, -EIO);
  std::memset(op.bounce + got, 0, op.call.length - got);
  if (io.op == IoOp::read) {
    scatter(io, op.done, op.bounce + skip, op.window);
    op.done += op.window;
    return op.done < io.length ? nextWindow(op) : finish(op, 0);
  }
  if (io.op == IoOp::write) {
    gather(io, op.done, op.bounce + skip, op.window);
  } else {
    std::memset(op.bounce + skip, 0, op.window);
  }
  op.phase = Phase::bounceWrite;
  op.call.kind = SysKind::write;
  issue(op);
}

// ---- discard and zero

void UringBackend::allocate(RingOp& op) noexcept {
  const Io& io = *op.io;
  const ComponentFile& file = *io.file;
  constexpr int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  constexpr int zero = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  std::uint64_t start = io.offset;
  std::uint64_t end = io.offset + io.length;
  int modes[2] = {punch, zero};
  unsigned count = 2;
  if (io.op == IoOp::discard) {
    count = 1;
    if (file.blockDevice) {
      start = up(start, kPage);
      end = down(end, kPage);
      if (start >= end) return finish(op, 0);
    }
  } else {
    if (io.noHole) modes[0] = zero;
    if (io.noHole || (io.fastZero && file.blockDevice)) count = 1;
    if (file.blockDevice && io.noHole && io.fastZero) count = 0;
    if (file.blockDevice && ((start | end) & (kPage - 1)) != 0) count = 0;
  }
  if (op.attempt < count) {
    op.phase = Phase::allocate;
    op.call.kind = SysKind::fallocate;
    op.call.flags = modes[op.attempt];
    op.call.offset = start;
    op.call.length = end - start;
    return issue(op);
  }
  if (io.op == IoOp::discard) return finish(op, 0);
  if (io.fastZero) return finish(op, -ENOTSUP);
  if (file.direct && ((io.offset | io.length) & (file.align - 1)) != 0) return nextWindow(op);
  zeroChunk(op);
}

void UringBackend::allocated(RingOp& op, std::int32_t result) noexcept {
  if (unsupported(result)) {
    ++op.attempt;
    return allocate(op);
  }
  if (result < 0) return finish(op, result);
  if (op.io->fua) return syncAfter(op);
  finish(op, 0);
}

void UringBackend::zeroChunk(RingOp& op) noexcept {
  const Io& io = *op.io;
  op.phase = Phase::zeroWrite;
  op.call.kind = SysKind::write;
  op.call.flags = 0;
  op.call.data = zeroes_;
  op.call.offset = io.offset + op.done;
  op.call.length = std::min(kZeroChunk, io.length - op.done);
  issue(op);
}

// ---- holes

// Never on this thread: the search may read a file's map from the disk, and on tmpfs looks at every page.
void UringBackend::startExtents(Io& io) noexcept {
  bool threads = workers_ || io.file->workers || seekers_;
  if (!threads && !io.file->blockDevice) {
    try {
      seekers_ = std::make_unique<Workers>(kSeekers + replaced_);
      threads = true;
    } catch (const std::system_error&) {
      // Then all is data for now.
    }
  }
  if (io.file->blockDevice || !threads) {
    io.hole = false;
    io.run = io.length;
    io.result = 0;
    return io.complete(io);
  }
  RingOp* const op = take(io);
  op->phase = Phase::extents;
  op->call.kind = SysKind::extents;
  op->call.offset = io.offset;
  op->call.length = io.length;
  issue(*op);
}

}  // namespace metadisk
