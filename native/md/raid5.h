// Where the blocks of a RAID5 device lie (driver.md 4.3): pure arithmetic, no I/O. docs/raid5.md has the tables.
//
// Words: a line is one segment of every column; parity of a line lies in one of the original columns and moves one
// to the right with every line; a row is what lies at the same place of all columns, one page of each at most.
// Invariants: placeOf() and offsetOf() are each other's inverse over all data segments; a row never crosses a line.
#pragma once

#include <algorithm>
#include <cstdint>

#include "plan/plan.h"

namespace metadisk {

struct Raid5Place {
  std::uint64_t line = 0;
  std::uint32_t column = 0;
  std::uint64_t within = 0;  // bytes inside the segment
};

class Raid5Shape {
 public:
  static constexpr std::uint32_t kPage = 4096;
  static constexpr std::uint32_t kSector = 512;

  Raid5Shape() = default;
  explicit Raid5Shape(const Raid5Node& node) noexcept
      : segment_(node.segment),
        lines_(node.lines),
        originals_(node.originals),
        columns_(node.serving),
        rowsPerLine_((node.segment + kPage - 1) / kPage) {}

  std::uint32_t columns() const noexcept { return columns_; }
  std::uint64_t segment() const noexcept { return segment_; }
  std::uint64_t lines() const noexcept { return lines_; }
  std::uint64_t rows() const noexcept { return lines_ * rowsPerLine_; }
  // Bytes of data in all segments; the device may be a little smaller.
  std::uint64_t capacity() const noexcept { return segment_ * lines_ * (columns_ - 1); }

  std::uint32_t parityColumn(std::uint64_t line) const noexcept {
    return static_cast<std::uint32_t>((line + originals_ - 1) % originals_);
  }

  // Of a byte below capacity().
  Raid5Place placeOf(std::uint64_t offset) const noexcept {
    const std::uint64_t number = offset / segment_;
    const std::uint64_t within = offset - number * segment_;
    const std::uint64_t data = originals_ - 1;
    if (number < data * lines_) {
      const std::uint64_t line = number / data;
      return {line, static_cast<std::uint32_t>((number - line * data + line) % originals_), within};
    }
    const std::uint64_t attached = number - data * lines_;
    return {attached % lines_, static_cast<std::uint32_t>(originals_ + attached / lines_), within};
  }

  // The byte of the device at a place that is not parity.
  std::uint64_t offsetOf(const Raid5Place& place) const noexcept {
    const std::uint64_t data = originals_ - 1;
    const std::uint64_t turn = place.line % originals_;
    const std::uint64_t number = place.column < originals_
                                     ? place.line * data + (place.column + originals_ - turn) % originals_
                                     : data * lines_ + (place.column - originals_) * lines_ + place.line;
    return number * segment_ + place.within;
  }

  // ---- rows

  std::uint64_t rowOf(const Raid5Place& place) const noexcept {
    return place.line * rowsPerLine_ + place.within / kPage;
  }
  std::uint64_t lineOf(std::uint64_t row) const noexcept { return row / rowsPerLine_; }
  // Where a row begins in the data of every column, and how long it is; bytes.
  std::uint64_t rowStart(std::uint64_t row) const noexcept {
    return row / rowsPerLine_ * segment_ + row % rowsPerLine_ * kPage;
  }
  std::uint32_t rowBytes(std::uint64_t row) const noexcept {
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(kPage, segment_ - row % rowsPerLine_ * kPage));
  }
  // One bit for each of its sectors.
  std::uint8_t rowMask(std::uint64_t row) const noexcept {
    return static_cast<std::uint8_t>((1U << (rowBytes(row) / kSector)) - 1);
  }

  // Bits of the sectors that hold `length` bytes from `at` on, of one row.
  static constexpr std::uint8_t sectorsOf(std::uint32_t at, std::uint32_t length) noexcept {
    const std::uint32_t first = at / kSector;
    const std::uint32_t end = (at + length + kSector - 1) / kSector;
    return static_cast<std::uint8_t>(((1U << end) - 1) & ~((1U << first) - 1));
  }

  bool operator==(const Raid5Shape&) const = default;
  // Whether it is the other one with more columns attached.
  bool grownFrom(const Raid5Shape& other) const noexcept {
    return segment_ == other.segment_ && lines_ == other.lines_ && originals_ == other.originals_ &&
           columns_ > other.columns_;
  }

 private:
  std::uint64_t segment_ = 1;
  std::uint64_t lines_ = 0;
  std::uint32_t originals_ = 3;
  std::uint32_t columns_ = 3;
  std::uint64_t rowsPerLine_ = 1;
};

}  // namespace metadisk
