#include "md/mirror.h"

namespace metadisk {

ReadBalance::ReadBalance(const MirrorNode& mirror) noexcept : policy_(mirror.read) {
  for (std::uint32_t i = 0; i < mirror.sides.size() && i < readable_.size(); i++) {
    if (mirror.sides[i].readable) readable_[count_++] = i;
  }
  if (count_ > 0) {
    zone_ = (mirror.size + count_ - 1) / count_;
    last_ = count_ - 1;
  }
}

std::uint32_t ReadBalance::choose(std::uint64_t offset, std::uint64_t length) noexcept {
  if (count_ == 1) return readable_[0];
  switch (policy_) {
    case ReadPolicy::first: return readable_[0];
    case ReadPolicy::geometric: return readable_[offset / zone_];
    case ReadPolicy::roundrobin: break;
  }
  return roundrobin(offset, length);
}

// SVM's round robin advances on every request and so makes every disk seek for one sequential reader.
// Here a read that continues a recent one (or skips a little, because several are in flight) stays on
// its side; only new streams and random reads take turns.
std::uint32_t ReadBalance::roundrobin(std::uint64_t offset, std::uint64_t length) noexcept {
  for (Stream& stream : streams_) {
    if (offset >= stream.end && offset - stream.end <= 2 * length) {
      stream.end = offset + length;
      return stream.side;
    }
  }
  last_ = last_ + 1 == count_ ? 0 : last_ + 1;
  Stream& stream = streams_[evict_];
  evict_ = (evict_ + 1) % static_cast<std::uint32_t>(streams_.size());
  stream = {offset + length, readable_[last_]};
  return stream.side;
}

int ReadBalance::other(std::uint32_t tried) const noexcept {
  for (std::uint32_t i = 0; i < count_; i++) {
    if ((tried >> readable_[i] & 1U) == 0) return static_cast<int>(readable_[i]);
  }
  return -1;
}

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
  startAfter(entry);
}

bool OverlapList::withdraw(OverlapEntry& entry) noexcept {
  const OverlapEntry* e = waiting_.head;
  while (e != nullptr && e != &entry) e = e->after;
  if (e == nullptr) return false;
  waiting_.remove(entry);
  startAfter(entry);
  return true;
}

void OverlapList::startAfter(const OverlapEntry& gone) noexcept {
  for (OverlapEntry* e = waiting_.head; e != nullptr;) {
    OverlapEntry* const next = e->after;
    // Anything that does not overlap the range that is free now waits for something else.
    if (e->overlaps(gone) && !active_.overlaps(*e, nullptr) && !waiting_.overlaps(*e, e)) {
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
