// Comparison: a block is wrong when the sum of all columns there is not zero. Its parity is made again from the data.
#include <isa-l.h>

#include <algorithm>

#include "core/xorsum.h"
#include "md/raid5_jobs.h"

namespace metadisk {

// Finds the blocks that are wrong, and computes what their parity should be into the parity column's buffer.
void Raid5Jobs::compare(Window& window) noexcept {
  std::array<void*, 65> vectors;
  const auto at = [&](std::uint64_t offset) {
    for (std::uint32_t c = 0; c < shape_.columns(); c++) vectors[c] = buffer(window, c) + offset;
    return vectors.data();
  };
  const int count = static_cast<int>(shape_.columns());
  if (xor_check(count, static_cast<int>(window.range.length), at(0)) == 0) return;
  window.differs.fill(0);
  window.wrong = true;
  for (std::uint64_t i = 0; i < window.range.length / kBlock; i++) {
    const std::uint64_t offset = i * kBlock;
    if (xor_check(count, kBlock, at(offset)) == 0) continue;
    window.differs[i / 64] |= std::uint64_t{1} << (i % 64);
    const std::uint32_t parity = shape_.parityColumn((window.range.offset + offset) / shape_.segment());
    XorSum data;
    for (std::uint32_t c = 0; c < shape_.columns(); c++) {
      if (c != parity) data.add(buffer(window, c));
    }
    data.into(buffer(window, parity), offset, kBlock);
  }
}

// The next run of wrong blocks whose parity lies in this column.
void Raid5Jobs::repairNext(Part& part) noexcept {
  Window& window = *part.window;
  const std::uint64_t end = window.range.offset + window.range.length;
  const auto wrong = [&](std::uint64_t at) {
    const std::uint64_t i = (at - window.range.offset) / kBlock;
    return (window.differs[i / 64] >> (i % 64) & 1U) != 0 && shape_.parityColumn(at / shape_.segment()) == part.column;
  };
  while (part.at < end && !wrong(part.at)) part.at += kBlock;
  if (part.at == end) return;
  const std::uint64_t from = part.at;
  while (part.at < end && wrong(part.at)) part.at += kBlock;
  window.pending++;
  issue(part, IoOp::write, node_.columns[part.column].start + from, part.at - from,
        buffer(window, part.column) + (from - window.range.offset));
}

}  // namespace metadisk
