// Zeroes on columns that nobody uses: what is a hole stays one, what has storage keeps it.
#include <algorithm>

#include "md/raid5_jobs.h"

namespace metadisk {

void Raid5Jobs::zeroNext(Part& part) noexcept {
  Window& window = *part.window;
  const std::uint64_t start = node_.columns[part.column].prewrite;
  const std::uint64_t end = window.range.offset + window.range.length;
  IoOp next = IoOp::extents;
  std::uint64_t length = end - part.at;
  if (part.op == IoOp::extents && part.offset == start + part.at && part.length != 0) {
    // It was asked what lies here.
    const bool known = part.result == 0 && part.run != 0;
    length = known ? std::min(part.run, length) : length;
    if (known && part.hole) {
      part.at += length;
      length = end - part.at;
    } else {
      next = IoOp::zero;
    }
  }
  if (part.at == end) return;
  const std::uint64_t offset = start + part.at;
  if (next == IoOp::zero) part.at += length;
  window.pending++;
  issue(part, next, offset, length, nullptr);
}

}  // namespace metadisk
