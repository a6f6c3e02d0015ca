// Mapping of stripes, concatenations and bare components: pure arithmetic, no I/O (driver.md 1.4).
//
// Invariants: a range inside the node maps to fragments in order, without gaps; mapping is injective
// over the node because the plan's ranges do not overlap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "plan/plan.h"

namespace metadisk {

struct Fragment {
  std::uint32_t file = 0;
  std::uint64_t offset = 0;  // bytes in the component
  std::uint64_t length = 0;
  const Service* service = nullptr;  // of the component there, never null
};

// Fills `out` with the fragments of [offset, offset + length) of the stripe, as many as fit; returns
// how many. `covered` is how much of the range they hold: less than `length` means call again.
std::size_t mapStripe(const StripeNode& stripe, std::uint64_t offset, std::uint64_t length, std::span<Fragment> out,
                      std::uint64_t& covered) noexcept;

// The same for a child of a mirror or a root: a stripe or a component.
std::size_t mapNode(const Node& node, std::uint64_t offset, std::uint64_t length, std::span<Fragment> out,
                    std::uint64_t& covered) noexcept;

// For operations without data, however long: what of [offset, offset + length) lies on one column of a
// row is one piece there. Calls visit(Fragment) once per column touched; the order is not that of the range.
template <typename Visit>
void mapExtents(const Node& node, std::uint64_t offset, std::uint64_t length, Visit visit) noexcept {
  const auto* stripe = std::get_if<StripeNode>(&node);
  if (stripe == nullptr) {
    const auto& part = *std::get_if<ComponentNode>(&node);
    visit(Fragment{part.file, part.start + offset, length, &part.service});
    return;
  }
  for (const Row& row : stripe->rows) {
    if (row.end <= offset || row.base >= offset + length) continue;
    const std::uint64_t from = offset > row.base ? offset - row.base : 0;
    const std::uint64_t to = (offset + length < row.end ? offset + length : row.end) - row.base;
    const std::size_t n = row.columns.size();
    const std::uint64_t line = row.interlace * n;
    // Bytes of column `c` among the first `x` bytes of the row.
    const auto upTo = [&](std::size_t c, std::uint64_t x) {
      if (n == 1) return x;
      const std::uint64_t rest = x % line;
      const std::uint64_t before = c * row.interlace;
      const std::uint64_t part = rest > before ? rest - before : 0;
      return x / line * row.interlace + (part < row.interlace ? part : row.interlace);
    };
    for (std::size_t c = 0; c < n; c++) {
      const std::uint64_t first = upTo(c, from);
      const std::uint64_t last = upTo(c, to);
      const Column& column = row.columns[c];
      if (last > first) visit(Fragment{column.file, column.start + first, last - first, &column.service});
    }
  }
}

// The longest fragment that starts at `offset`, at most `length`. Inline: it is the whole mapping of a small request.
inline Fragment mapOne(const Row& row, std::uint64_t offset, std::uint64_t length) noexcept {
  const std::uint64_t inRow = offset - row.base;
  const std::size_t n = row.columns.size();
  if (n == 1) {
    const std::uint64_t run = row.end - offset;
    const Column& column = row.columns[0];
    return {column.file, column.start + inRow, length < run ? length : run, &column.service};
  }
  const std::uint64_t segment = row.shift >= 0 ? inRow >> row.shift : inRow / row.interlace;
  const std::uint64_t frag = inRow - segment * row.interlace;
  const Column& column = row.columns[segment % n];
  const std::uint64_t run = row.interlace - frag;
  return {column.file, column.start + (segment / n) * row.interlace + frag, length < run ? length : run,
          &column.service};
}

}  // namespace metadisk
