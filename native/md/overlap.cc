#include "md/overlap.h"

namespace metadisk {

void OverlapList::Chain::add(OverlapEntry& entry) noexcept {
  entry.before = tail;
  entry.after = nullptr;
  (tail != nullptr ? tail->after : head) = &entry;
  tail = &entry;
}

void OverlapList::Chain::remove(OverlapEntry& entry) noexcept {
  (entry.before != nullptr ? entry.before->after : head) = entry.after;
  (entry.after != nullptr ? entry.after->before : tail) = entry.before;
  entry.before = entry.after = nullptr;
}

bool OverlapList::Chain::overlaps(const OverlapEntry& entry, const OverlapEntry* until) const noexcept {
  for (const OverlapEntry* e = head; e != until; e = e->after) {
    if (e->overlaps(entry)) return true;
  }
  return false;
}

void OverlapList::enter(OverlapEntry& entry) noexcept {
  const bool free = !active_.overlaps(entry, nullptr) && !waiting_.overlaps(entry, nullptr);
  (free ? active_ : waiting_).add(entry);
  if (free) entry.start(entry);
}

void OverlapList::leave(OverlapEntry& entry) noexcept {
  active_.remove(entry);
  startFree(&entry);
}

bool OverlapList::withdraw(OverlapEntry& entry) noexcept {
  const OverlapEntry* e = waiting_.head;
  while (e != nullptr && e != &entry) e = e->after;
  if (e == nullptr) return false;
  waiting_.remove(entry);
  startFree(&entry);
  return true;
}

OverlapEntry* OverlapList::handBack() noexcept {
  Chain out;
  for (OverlapEntry* e = waiting_.head; e != nullptr;) {
    OverlapEntry* const next = e->after;
    if (!e->stays) {
      waiting_.remove(*e);
      out.add(*e);
    }
    e = next;
  }
  startFree(nullptr);
  return out.head;
}

// Starts what waits for nobody any more; given `behind`, which is gone, only what waited for that.
void OverlapList::startFree(const OverlapEntry* behind) noexcept {
  for (OverlapEntry* e = waiting_.head; e != nullptr;) {
    OverlapEntry* const next = e->after;
    const bool touched = behind == nullptr || e->overlaps(*behind);
    if (touched && !active_.overlaps(*e, nullptr) && !waiting_.overlaps(*e, e)) {
      waiting_.remove(*e);
      active_.add(*e);
      e->toStart = nullptr;
      (startHead_ != nullptr ? startTail_->toStart : startHead_) = e;
      startTail_ = e;
    }
    e = next;
  }
  if (starting_) return;
  starting_ = true;
  while (OverlapEntry* e = startHead_) {
    startHead_ = e->toStart;
    e->start(*e);
  }
  starting_ = false;
}

}  // namespace metadisk
