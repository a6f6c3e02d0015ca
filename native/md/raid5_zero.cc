// Zeroes on columns that nobody uses: what is a hole stays one, what has storage keeps it.
#include <algorithm>

#include "md/raid5_jobs.h"

namespace metadisk {

void Raid5Jobs::zeroNext(Part& part) noexcept {
  Window& window = *part.window;
  Extent& extent = extents_[part.column];
  const std::uint64_t start = node_.columns[part.column].prewrite;
  const std::uint64_t end = window.range.offset + window.range.length;
  if (part.op == IoOp::extents && part.offset == start + part.at && part.length != 0) {
    // It was asked what lies here. What cannot be known is data, up to the end of the window.
    const bool known = part.result == 0 && part.run != 0;
    extent = {part.at, known ? part.at + part.run : end, known && part.hole};
  }
  const auto inside = [&] { return extent.from <= part.at && part.at < extent.end; };
  if (part.at < end && inside() && extent.hole) part.at = std::min(end, extent.end);
  if (part.at == end) return;
  const std::uint64_t offset = start + part.at;
  window.pending++;
  if (!inside()) return issue(part, IoOp::extents, offset, end_ - part.at, nullptr);
  const std::uint64_t length = std::min(end, extent.end) - part.at;
  part.at += length;
  issue(part, IoOp::zero, offset, length, nullptr);
}

}  // namespace metadisk
