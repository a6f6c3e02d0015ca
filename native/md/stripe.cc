#include "md/stripe.h"

#include <algorithm>

namespace metadisk {

namespace {

// The row that holds `offset`, which must be inside the stripe.
const Row* rowOf(const StripeNode& stripe, std::uint64_t offset) noexcept {
  const Row* first = stripe.rows.data();
  if (offset < first->end) return first;
  const auto found = std::upper_bound(stripe.rows.begin() + 1, stripe.rows.end(), offset,
                                      [](std::uint64_t at, const Row& row) { return at < row.end; });
  return &*found;
}

}  // namespace

std::size_t mapStripe(const StripeNode& stripe, std::uint64_t offset, std::uint64_t length, std::span<Fragment> out,
                      std::uint64_t& covered) noexcept {
  covered = 0;
  std::size_t count = 0;
  const Row* row = rowOf(stripe, offset);
  while (covered < length && count < out.size()) {
    const std::uint64_t at = offset + covered;
    if (at == row->end) row++;
    out[count] = mapOne(*row, at, length - covered);
    covered += out[count].length;
    count++;
  }
  return count;
}

std::size_t mapNode(const Node& node, std::uint64_t offset, std::uint64_t length, std::span<Fragment> out,
                    std::uint64_t& covered) noexcept {
  if (const auto* stripe = std::get_if<StripeNode>(&node)) return mapStripe(*stripe, offset, length, out, covered);
  const auto& part = *std::get_if<ComponentNode>(&node);
  out[0] = {part.file, part.start + offset, length, &part.service};
  covered = length;
  return 1;
}

}  // namespace metadisk
