// Which ranges of a mirror lie on one component of one side (driver.md 1.4, turned round).
//
// Invariants: ranges come in rising order, do not touch each other unless a row ends between them, and
// together are everything of that component that the mirror reaches.
#pragma once

#include <algorithm>
#include <cstdint>

#include "md/stripe.h"
#include "plan/plan.h"

namespace metadisk {

class Footprint {
 public:
  struct Range {
    std::uint64_t offset = 0;  // bytes of the mirror
    std::uint64_t length = 0;  // 0: there is none
  };

  Footprint() = default;
  // `file`: as in Column::file; `size`: bytes of the mirror.
  Footprint(const Node& side, std::uint32_t file, std::uint64_t size) noexcept
      : side_(&side), file_(file), size_(size) {}

  // The first range at or above `from`, cut off there.
  Range at(std::uint64_t from) const noexcept {
    if (const auto* part = std::get_if<ComponentNode>(side_)) {
      return part->file == file_ && from < size_ ? Range{from, size_ - from} : Range{};
    }
    for (const Row& row : std::get_if<StripeNode>(side_)->rows) {
      if (row.end <= from || row.base >= size_) continue;
      const Range found = inRow(row, from);
      if (found.length > 0) return found;
    }
    return {};
  }

  // Bytes on the component below `end`.
  std::uint64_t bytes(std::uint64_t end) const noexcept {
    std::uint64_t sum = 0;
    if (std::min(end, size_) == 0) return 0;
    mapExtents(*side_, 0, std::min(end, size_), [&](const Fragment& fragment) {
      if (fragment.file == file_) sum += fragment.length;
    });
    return sum;
  }

 private:
  Range inRow(const Row& row, std::uint64_t from) const noexcept {
    const std::uint64_t end = std::min(row.end, size_);
    const std::size_t columns = row.columns.size();
    const std::uint64_t start = std::max(from, row.base);
    if (columns == 1) return row.columns[0].file == file_ ? Range{start, end - start} : Range{};
    // Looks at one piece of every column, from the one that holds `start`.
    std::uint64_t segment = (start - row.base) / row.interlace;
    for (std::size_t i = 0; i <= columns; i++, segment++) {
      const std::uint64_t first = row.base + segment * row.interlace;
      if (first >= end) return {};
      if (row.columns[segment % columns].file != file_) continue;
      const std::uint64_t offset = std::max(first, start);
      return {offset, std::min(first + row.interlace, end) - offset};
    }
    return {};
  }

  const Node* side_ = nullptr;
  std::uint32_t file_ = 0;
  std::uint64_t size_ = 0;
};

}  // namespace metadisk
