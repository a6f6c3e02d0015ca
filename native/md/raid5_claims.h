// Rows that somebody has to himself: a job's window, a repair. Nothing that is claimed is staged, so what is in place
// of these rows, parity included, changes by the hand of the claim's owner alone.
//
// Invariants: one thread; of two claims that overlap the earlier one is granted first, and left before the other is
// granted. A claim waits until none of its rows is on its way into place: no new one sets out, so it gets there.
#pragma once

#include <cstdint>

namespace metadisk {

// Embedded in what waits.
struct Raid5Claim {
  std::uint64_t first = 0;  // rows
  std::uint64_t end = 0;
  // Granted only when no group up to this one of the journal would be carried out again at a restart.
  std::uint64_t tail = 0;
  void (*granted)(Raid5Claim&) noexcept = nullptr;

  // The list's.
  std::uint64_t checked = 0;  // rows below this one are not on their way
  bool owned = false;
  bool refused = false;  // granted all the same: the groups cannot be forgotten
  bool listed = false;
  Raid5Claim* before = nullptr;
  Raid5Claim* after = nullptr;

  bool overlaps(const Raid5Claim& other) const noexcept { return first < other.end && other.first < end; }
};

class Raid5Claims {
 public:
  bool empty() const noexcept { return head_ == nullptr; }
  // Whether the row is claimed, granted or not.
  bool holds(std::uint64_t row) const noexcept {
    for (const Raid5Claim* claim = head_; claim != nullptr; claim = claim->after) {
      if (claim->first <= row && row < claim->end) return true;
    }
    return false;
  }

  void add(Raid5Claim& claim) noexcept {
    claim.owned = claim.refused = false;
    claim.listed = true;
    claim.checked = claim.first;
    claim.before = tail_;
    claim.after = nullptr;
    (tail_ != nullptr ? tail_->after : head_) = &claim;
    tail_ = &claim;
  }
  void remove(Raid5Claim& claim) noexcept {
    (claim.before != nullptr ? claim.before->after : head_) = claim.after;
    (claim.after != nullptr ? claim.after->before : tail_) = claim.before;
    claim.listed = claim.owned = false;
  }

  // The first one that is to be granted, which is owned from now on. `atRest(row)`: whether nothing of it is on its
  // way into place; `hopeless`: the tail will not move. Null: none.
  template <typename AtRest>
  Raid5Claim* grant(std::uint64_t durableTail, bool hopeless, AtRest atRest) noexcept {
    for (Raid5Claim* claim = head_; claim != nullptr; claim = claim->after) {
      if (claim->owned) continue;
      claim->refused = hopeless && durableTail <= claim->tail;
      if (claim->refused) {
        claim->owned = true;
        return claim;
      }
      while (claim->checked < claim->end && atRest(claim->checked)) claim->checked++;
      if (claim->checked < claim->end || durableTail <= claim->tail || behindAnother(*claim)) continue;
      claim->owned = true;
      return claim;
    }
    return nullptr;
  }

  // The greatest `tail` of those that wait; 0: nobody needs the journal to move on.
  std::uint64_t tailWanted() const noexcept {
    std::uint64_t most = 0;
    for (const Raid5Claim* claim = head_; claim != nullptr; claim = claim->after) {
      if (!claim->owned && claim->tail > most) most = claim->tail;
    }
    return most;
  }

 private:
  bool behindAnother(const Raid5Claim& claim) const noexcept {
    for (const Raid5Claim* other = head_; other != &claim; other = other->after) {
      if (other->overlaps(claim)) return true;
    }
    return false;
  }

  Raid5Claim* head_ = nullptr;
  Raid5Claim* tail_ = nullptr;
};

}  // namespace metadisk
