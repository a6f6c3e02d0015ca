#include "io/syncgate.h"

namespace metadisk {

void SyncGate::Chain::append(SyncTurn& turn) noexcept {
  turn.before = tail;
  turn.after = nullptr;
  (tail != nullptr ? tail->after : head) = &turn;
  tail = &turn;
}

void SyncGate::Chain::remove(SyncTurn& turn) noexcept {
  (turn.before != nullptr ? turn.before->after : head) = turn.after;
  (turn.after != nullptr ? turn.after->before : tail) = turn.before;
}

void SyncGate::begin(SyncTurn& turn) noexcept {
  const std::lock_guard lock(mutex_);
  turn.ticket = ++issued_;
  running_.append(turn);
}

bool SyncGate::end(SyncTurn& turn, bool failed) noexcept {
  const std::lock_guard lock(mutex_);
  running_.remove(turn);
  const std::uint64_t oldest = running_.head != nullptr ? running_.head->ticket : UINT64_MAX;
  while (waiting_.head != nullptr && waiting_.head->ticket < oldest) {
    SyncTurn& granted = *waiting_.head;
    waiting_.remove(granted);
    granted.granted(granted);
  }
  if (failed || running_.head == nullptr) return true;
  turn.ticket = issued_;
  waiting_.append(turn);
  return false;
}

}  // namespace metadisk
