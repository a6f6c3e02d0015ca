// What jobs ask of a RAID5 device while it serves: rows to themselves, and older groups of the journal forgotten.
#include <cerrno>

#include "md/raid5_io.h"

namespace metadisk {

void Raid5Io::claim(Raid5Claim& claim) noexcept {
  claims_.add(claim);
  pump();
}

void Raid5Io::claimAgain(Raid5Claim& claim) noexcept {
  claim.owned = false;
  pump();
}

void Raid5Io::unclaim(Raid5Claim& claim) noexcept {
  claims_.remove(claim);
  pump();
}

// Whoever is granted a claim may give it back before granted() returns.
void Raid5Io::grantClaims() noexcept {
  if (granting_ || claims_.empty()) return;
  granting_ = true;
  const auto atRest = [this](std::uint64_t key) {
    const Raid5Row* const row = cache_.find(key);
    if (row == nullptr) return true;
    const bool staging = row->busy && static_cast<const Batch*>(row->owner)->op == nullptr;
    return row->pins == 0 && !staging;
  };
  while (Raid5Claim* const claim = claims_.grant(state_.journal.durableTail(), !forgets(), atRest))
    claim->granted(*claim);
  granting_ = false;
}

// What was read of it meanwhile may be what it was.
void Raid5Io::parityChanged(std::uint32_t column, std::uint64_t offset, std::uint64_t length) noexcept {
  parities_++;
  for (std::uint64_t at = offset; at < offset + length;) {
    const std::uint64_t line = at / shape_.segment();
    const std::uint64_t key = shape_.rowOf({line, column, at % shape_.segment()});
    Raid5Row* const row = cache_.find(key);
    if (row != nullptr) row->cells[column].valid = 0;
    at = shape_.rowStart(key) + shape_.rowBytes(key);
  }
}

// What hangs is never rewritten, nor anything that the others do not know for sure.
void Raid5Io::wantRepair(std::uint32_t column, std::uint64_t offset, std::uint64_t length, int error) noexcept {
  const ColumnSet all = shape_.columns() == 64 ? ~ColumnSet{0} : (ColumnSet{1} << shape_.columns()) - 1;
  if (repairs_ == nullptr || error == ETIMEDOUT || plan_.readOnly || readable_ != all) return;
  repairs_->add({column, offset, offset + length});
  host_.attend();
}

void Raid5Io::mended(std::uint64_t row, std::uint32_t column) noexcept {
  Raid5Row* const found = cache_.find(row);
  if (found != nullptr) found->bad &= ~(ColumnSet{1} << column);
}

}  // namespace metadisk
