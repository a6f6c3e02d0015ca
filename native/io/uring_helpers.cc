// Threads beside the backend's own, for what is one of many: handed over in one go, answered in bundles.
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

}  // namespace metadisk
