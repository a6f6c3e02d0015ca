// The end of writes that must be stable, and syncs: what a failure says, and who else is told.
#include <sys/uio.h>

#include "io/uring.h"

namespace metadisk {

// All bytes are written; those that must be stable are, or a sync follows.
void UringBackend::written(RingOp& op) noexcept {
  const bool stable = !op.io->fua || (op.call.flags & RWF_DSYNC) != 0;
  return stable ? finish(op, 0) : syncAfter(op);
}

void UringBackend::takeTurn(RingOp& op) noexcept {
  if (op.syncing) return;
  op.syncing = true;
  op.turn.granted = [](SyncTurn& turn) noexcept {
    auto* const waiter = reinterpret_cast<RingOp*>(reinterpret_cast<std::byte*>(&turn) - offsetof(RingOp, turn));
    waiter->backend->home_.post([waiter] { waiter->backend->settle(*waiter, waiter->result); });
  };
  op.io->file->syncs.begin(op.turn);
}

// A write that also syncs may fail in either half, and "no space" of the second half is acknowledged data
// that is lost, reported this once. The witness has not been told of it yet: if it can sync, nothing was lost.
void UringBackend::stableWriteFailed(RingOp& op, std::int32_t result) noexcept {
  ComponentFile& file = *op.io->file;
  const bool harmless = harmlessWriteError(-result);
  if (harmless && op.syncing && file.witness) {
    op.result = result;
    op.phase = Phase::witness;
    op.call.kind = SysKind::sync;
    op.call.flags = 0;
    return issue(op);
  }
  if (!harmless || op.syncing) file.syncFailed.store(true, std::memory_order_release);
  finish(op, result);
}

void UringBackend::syncAfter(RingOp& op) noexcept {
  takeTurn(op);
  op.phase = Phase::sync;
  op.call.kind = SysKind::sync;
  op.call.flags = 0;
  issue(op);
}

}  // namespace metadisk
