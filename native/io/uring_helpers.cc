// Threads beside the backend's own, for what is one of many: handed over in one go, answered in bundles.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <utility>

#include "io/uring.h"

namespace metadisk {

namespace {

constexpr unsigned kBundle = 32;  // answers with one wake

}  // namespace

// In one go, because there are many.
void UringBackend::handOver() noexcept {
  SysCall* const first = std::exchange(handed_, nullptr);
  if (first != nullptr) helpers_->enqueue(*first, *handedLast_, std::exchange(handedCount_, 0));
}

// True: a helper does what else would be done inline.
bool UringBackend::help(Io& io) noexcept {
  if (helpersMax_ == 0) return false;
  if (!helpers_) {
    try {
      helpers_ = std::make_unique<Workers>(helpersMax_ + replaced_, kBundle);
    } catch (const std::system_error&) {
      helpersMax_ = 0;
      return false;
    }
  }
  RingOp* const op = take(io);
  op->helped = true;
  transfer(*op);
  return true;
}

// Never by the ring, which knows no such call.
void UringBackend::startScattered(Io& io) noexcept {
  if (!scatters(*io.file) || io.fua) std::abort();
  const std::uint64_t size = io.file->size.load(std::memory_order_relaxed);
  const auto inside = [&](std::uint32_t i) {
    return io.iov[i].iov_len <= size && io.offsets[i] <= size - io.iov[i].iov_len;
  };
  std::int32_t result = 0;
  for (std::uint32_t i = 0; i < io.iovCount; i++) {
    if (!inside(i)) result = -EIO;
  }
  if (result == 0 && io.bulk && help(io)) return;
  if (result == 0) {
    SysCall call;
    call.kind = io.op == IoOp::read ? SysKind::read : SysKind::write;
    call.fd = io.file->fd.get();
    call.iov = io.iov;
    call.iovCount = io.iovCount;
    call.offsets = io.offsets;
    result = std::min(perform(call), 0);
  }
  io.result = result;
  io.complete(io);
}

}  // namespace metadisk
