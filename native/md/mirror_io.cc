// Reads that may have several sources and writes that have several sides.
#include <algorithm>

#include "md/jobs.h"
#include "md/repair.h"
#include "md/volume_impl.h"

namespace metadisk {

// ---- reads

// The side whose own bytes are the answer; null where sides may differ, or none is whole.
const Node* Volume::Impl::sideToLend(std::uint64_t offset, std::uint64_t length) noexcept {
  if (sources_->unsure(offset, length)) return nullptr;
  const int side = sources_->lookAhead(offset, length);
  return side < 0 ? nullptr : &sideNode(static_cast<std::uint32_t>(side));
}

void Volume::Impl::submitRead(Request& r) noexcept {
  if (sources_->unsure(r.offset, r.length) && r.op == Op::read && !plan_->readOnly) [[unlikely]] {
    return submitUnsureRead(r);
  }
  const int side = sources_->fast(r.offset, r.length);
  const std::uint32_t bit = side < 0 ? 0 : asked(0, static_cast<std::uint32_t>(side));
  if (side >= 0 && submitSingle(r, sideNode(static_cast<std::uint32_t>(side)), bit)) return;
  if (side < 0 && !sources_->cover(r.offset, r.length, 0)) return finish(r, r.op == Op::cache ? 0 : EIO);
  Task* const task = newTask(r, Task::Kind::plain);
  if (task == nullptr) return finish(r, ENOMEM);
  if (side >= 0) {
    issue(*task, sideNode(static_cast<std::uint32_t>(side)), r.offset, r.length, r.data, bit);
  } else {
    readPieces(*task, r.offset, r.length, r.data, 0);
  }
  drop(*task);
}

// Each piece from its best source; neighbours with the same source go together. Every piece has one.
void Volume::Impl::readPieces(Task& task, std::uint64_t offset, std::uint64_t length, std::byte* data,
                              std::uint32_t tried) noexcept {
  while (length > 0) {
    const ReadSources::Source first = sources_->at(offset, length, tried);
    std::uint64_t run = first.length;
    while (run < length) {
      const ReadSources::Source next = sources_->at(offset + run, length - run, tried);
      if (next.side != first.side) break;
      run += next.length;
    }
    const auto side = static_cast<std::uint32_t>(first.side);
    issue(task, sideNode(side), offset, run, data, asked(tried, side));
    offset += run;
    length -= run;
    if (data != nullptr) data += run;
  }
}

// ---- reads where sides may differ: in stale regions of sides that were in step before a crash
//
// Whatever a client has been told must be what every later read says, although the source may fail before
// it: what was read is written to the sides that may differ, and answered after that (driver.md 2.9).

void Volume::Impl::submitUnsureRead(Request& r) noexcept {
  // It parked because a side hangs in the write: that memory must stay what it was.
  if (backend_.held().holds(r.data, r.length)) {
    r.again = true;
    return finish(r, 0);
  }
  if (!sources_->cover(r.offset, r.length, 0)) return finish(r, EIO);
  Task* const task = newTask(r, Task::Kind::unsureRead);
  if (task == nullptr) return finish(r, ENOMEM);
  own(*task);
}

// The writes to the sides; false: without memory, and none.
bool Volume::Impl::prepareSides(Task& task) noexcept {
  const std::uint64_t region = state_.stale->regionBytes();
  const std::uint64_t end = task.offset + task.length;
  // The label of a side is its own.
  const std::uint64_t first = plan_->labelled ? std::max(task.offset, kBlockBytes) : task.offset;
  for (std::uint64_t at = first, length = 0; at < end; at += length) {
    length = std::min(end - at, region - (at & (region - 1)));
    if (!sources_->unsure(at, length)) continue;
    // What was not read from a side in step goes to those as well: they may be read again one day.
    const bool all = task.retried || !sources_->cover(at, length, ReadSources::kInStep);
    for (std::uint32_t side = 0; side < mirror_->sides.size(); side++) {
      const bool differs = sources_->unsure(side, at, length) || (all && mirror_->sides[side].readable);
      if (!differs || !mirror_->sides[side].writable) continue;
      // Where they are stale, Last Erred components are no source.
      task.okayOnly = sources_->unsure(side, at, length);
      std::byte* const data = task.data + (at - task.offset);
      if (prepare(task, task.unstarted, sideNode(side), at, length, data, asked(0, side))) continue;
      discard(task.unstarted, nullptr);
      return false;
    }
  }
  return true;
}

// Of the read, then of the writes.
void Volume::Impl::endUnsureRead(Task& task) noexcept {
  if (task.op == IoOp::read && task.error == 0 && !task.again) {
    task.op = IoOp::write;
    if (prepareSides(task)) {
      task.pending = 1;
      start(task, task.unstarted);
      return drop(task);
    }
    task.error = ENOMEM;
  }
  Request& r = *task.request;
  const int error = task.error;
  const bool parks = task.parks;
  r.again = task.again && error == 0;
  if (parks) closeGate();
  overlaps_.leave(task);
  tasks_.give(task);
  if (parks) return park(r, true);
  finish(r, error);
}

// ---- writes

// Goes on in onOwned().
void Volume::Impl::own(Task& task) noexcept {
  task.OverlapEntry::first = task.offset;
  task.OverlapEntry::end = task.offset + task.length;
  task.stays = false;
  task.OverlapEntry::start = onOwned;
  overlaps_.enter(task);
}

void Volume::Impl::submitWrite(Request& r) noexcept {
  // What could not be read back is not taken.
  if (!sources_->coverAll() && !sources_->cover(r.offset, r.length, 0)) return finish(r, EIO);
  Task* const task = newTask(r, Task::Kind::mirrorWrite);
  if (task == nullptr) return finish(r, ENOMEM);
  own(*task);
}

void Volume::Impl::onOwned(OverlapEntry& entry) noexcept {
  Task& task = static_cast<Task&>(entry);
  Impl& self = *task.impl;
  if (task.kind == Task::Kind::window)
    return task.window != nullptr ? self.jobs_->onOwned(task) : self.repairs_->onOwned();
  if (task.kind == Task::Kind::unsureRead) {
    self.readPieces(task, task.offset, task.length, task.data, 0);
    return self.drop(task);
  }
  task.granted = onMarked;
  if (self.state_.regions != nullptr && !self.state_.regions->enter(task, task.offset, task.length)) return;
  self.writeSides(task);
}

void Volume::Impl::onMarked(RegionWaiter& waiter, int error) noexcept {
  Task& task = static_cast<Task&>(waiter);
  Impl& self = *task.impl;
  if (error == 0) return self.writeSides(task);
  Request& r = *task.request;
  self.overlaps_.leave(task);
  self.tasks_.give(task);
  self.finish(r, error);
}

void Volume::Impl::writeSides(Task& task) noexcept {
  const auto sides = static_cast<std::uint32_t>(mirror_->sides.size());
  for (std::uint32_t side = 0; side < sides; side++) {
    if (!mirror_->sides[side].writable) continue;
    if (!prepare(task, task.unstarted, sideNode(side), task.offset, task.length, task.data, asked(0, side))) {
      discard(task.unstarted, nullptr);
      task.error = ENOMEM;
      break;
    }
  }
  start(task, task.unstarted, mirror_->write == WritePolicy::serial);
  drop(task);
}

void Volume::Impl::endWrite(Task& task) noexcept {
  if (task.unstarted.head != nullptr) {  // serial: the next side
    task.pending = 1;
    start(task, task.unstarted, true);
    return drop(task);
  }
  Request& r = *task.request;
  const int error = task.error;
  const bool parks = task.parks;
  if (state_.regions != nullptr) state_.regions->leave(task);
  // What waits behind this write is handed back before it could start.
  if (parks) closeGate();
  if (error != 0 && !parks) state_.unequal = true;
  overlaps_.leave(task);
  tasks_.give(task);
  if (parks) return park(r, true);
  endOfData(r, error);
}

std::uint32_t Volume::Impl::sideOf(std::uint32_t slot) const noexcept {
  const auto found = std::find_if(mirror_->sides.begin(), mirror_->sides.end(),
                                  [slot](const MirrorSide& side) { return side.slot == slot; });
  return static_cast<std::uint32_t>(found - mirror_->sides.begin());
}

}  // namespace metadisk
