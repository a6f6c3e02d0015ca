// Bytes of open files that a reply is made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace metadisk {

struct FileRange {
  int fd = -1;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  // What is meant is the sum (XOR) of so many ranges, as long as one another: of this one and those behind it in the
  // list, whose own count is not looked at.
  std::uint32_t summed = 1;
};

// Whether the page cache holds all of it. False also where the kernel cannot tell (before Linux 6.5).
bool cached(const FileRange& range) noexcept;

// Takes the ranges of the next piece off the list; empty: the list is, or is not one.
inline std::span<const FileRange> nextPiece(std::span<const FileRange>& list) noexcept {
  if (list.empty() || list[0].summed == 0 || list[0].summed > list.size()) return {};
  const std::span<const FileRange> piece = list.first(list[0].summed);
  list = list.subspan(piece.size());
  return piece;
}

}  // namespace metadisk
