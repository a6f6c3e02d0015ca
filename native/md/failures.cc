// What becomes of Ios that failed: another source is asked, blocks are to be repaired, requests wait.
#include <algorithm>
#include <utility>

#include "md/repair.h"
#include "md/volume_impl.h"

namespace metadisk {

namespace {

// Visits the memory of an Io: visit(memory, length) until it answers false; whether it never did.
template <typename Visit>
bool eachPiece(const Io& io, Visit visit) noexcept {
  if (io.iov == nullptr) return visit(io.data, io.length);
  return std::all_of(io.iov, io.iov + io.iovCount, [&](const iovec& v) {
    return visit(static_cast<std::byte*>(v.iov_base), std::uint64_t{v.iov_len});
  });
}

}  // namespace

void Volume::Impl::childFailed(Child& child, Task& task) noexcept {
  const bool copying = task.request == nullptr && task.kind != Task::Kind::flush;
  const bool held = std::exchange(child.held, false);
  if (child.op == IoOp::read || child.op == IoOp::cache) {
    const bool another = anotherSource(child, task.offset, task.data);
    // Two bad places would ask for each other's repair for ever.
    const bool wanted = another && task.kind != Task::Kind::repair;
    const bool news = !wanted || wantRepair(child, task.offset, task.data);
    if (news && !task.quiet) report(child, another || copying);
    if (another && held) {
      task.again = true;  // with other memory: this one may still be read into
      return;
    }
    if (another) return retryRead(child, task);
    if (child.op != IoOp::read) return;
    task.error = -child.result;
    task.erred = plan_->components[child.index];
    return;
  }
  const bool parks = mirror_ != nullptr && !copying && child.lastErred == 0;
  if (!task.quiet) report(child, parks || copying);
  if (parks) {
    task.parks = true;
  } else if (child.op != IoOp::discard || child.result != -EOPNOTSUPP) {
    task.error = -child.result;
    task.erred = plan_->components[child.index];
  }
}

void Volume::Impl::report(const Child& child, bool masked) noexcept {
  const int error = -child.result;
  // "Cannot do that" is an answer, not a fault of the component; on a mirror every side must do it.
  const bool optional = child.op == IoOp::discard || child.op == IoOp::zero || child.op == IoOp::cache;
  if (mirror_ == nullptr && optional && (error == EOPNOTSUPP || error == EINVAL)) return;
  const ComponentOp op = child.op == IoOp::sync                              ? ComponentOp::flush
                         : child.op == IoOp::read || child.op == IoOp::cache ? ComponentOp::read
                                                                             : ComponentOp::write;
  host_.componentError({.component = plan_->components[child.index],
                        .op = op,
                        .block = child.offset / kBlockBytes,
                        .error = error,
                        .masked = masked});
}

// ---- reads

// Whether all of a failed read can be had elsewhere; `data` lies at `offset` of the mirror.
bool Volume::Impl::anotherSource(const Child& child, std::uint64_t offset, const std::byte* data) const noexcept {
  if (mirror_ == nullptr || child.op != IoOp::read) return false;
  return eachPiece(child, [&](const std::byte* piece, std::uint64_t length) {
    return sources_->cover(offset + static_cast<std::uint64_t>(piece - data), length, child.tried);
  });
}

void Volume::Impl::retryRead(const Child& child, Task& task) noexcept {
  task.retried = true;
  eachPiece(child, [&](std::byte* piece, std::uint64_t length) {
    readPieces(task, task.offset + static_cast<std::uint64_t>(piece - task.data), length, piece, child.tried);
    return true;
  });
}

// A read that another source answers is a reason to look at the blocks that failed. What hangs is never
// rewritten. False: the failure is no news, the place is being looked at or will be.
bool Volume::Impl::wantRepair(const Child& child, std::uint64_t offset, const std::byte* data) noexcept {
  if (child.result == -ETIMEDOUT || plan_->readOnly) return true;
  const std::uint32_t slot = mirror_->sides[sideAsked(child.tried)].slot;
  bool news = false;
  eachPiece(child, [&](const std::byte* piece, std::uint64_t length) {
    const std::uint64_t at = offset + static_cast<std::uint64_t>(piece - data);
    const RepairQueue::Place place{slot, at, at + length};
    if (state_.repairs.holds(place) || repairs_->at(place)) return true;
    news = true;
    state_.repairs.add(place);
    return true;
  });
  if (news) host_.attend();
  return news;
}

// ---- writes

// Everything that waits for others goes back in order; what is in flight finishes or parks.
void Volume::Impl::closeGate() noexcept {
  if (state_.hold.closed()) return;
  host_.attend();
  for (OverlapEntry* entry = overlaps_.handBack(); entry != nullptr;) {
    Task& task = static_cast<Task&>(*std::exchange(entry, entry->after));
    Request& r = *task.request;
    tasks_.give(task);
    park(r, false);
  }
  while (RegionWaiter* waiter = state_.regions != nullptr ? state_.regions->handBack() : nullptr) {
    Task& task = static_cast<Task&>(*waiter);
    Request& r = *task.request;
    overlaps_.leave(task);
    tasks_.give(task);
    park(r, false);
  }
}

void Volume::Impl::park(Request& r, bool failed) noexcept {
  requests_--;
  state_.hold.park(r, failed);
}

}  // namespace metadisk
