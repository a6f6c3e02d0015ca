// The mapping of RAID5 against the tables of driver.md 4.3 and against a reader that walks segment by segment.
#include "md/raid5.h"

#include <doctest/doctest.h>

#include <map>
#include <random>

using namespace metadisk;

namespace {

Raid5Shape shapeOf(std::uint32_t originals, std::uint32_t columns, std::uint64_t segment, std::uint64_t lines) {
  Raid5Node node;
  node.segment = segment;
  node.lines = lines;
  node.originals = originals;
  node.serving = columns;
  node.columns.resize(columns);
  return Raid5Shape(node);
}

constexpr int P = -1;

}  // namespace

TEST_CASE("raid5: the tables of segments") {
  struct Table {
    std::uint32_t originals, columns;
    std::uint64_t lines;
    std::vector<int> cells;
  };
  const Table tables[] = {
      {3, 3, 6, {0, 1, P, P, 2, 3, 5, P, 4, 6, 7, P, P, 8, 9, 11, P, 10}},
      {4, 4, 5, {0, 1, 2, P, P, 3, 4, 5, 8, P, 6, 7, 10, 11, P, 9, 12, 13, 14, P}},
      {5, 5, 6, {0,  1,  2, 3,  P,  P,  4,  5,  6, 7,  11, P,  8,  9,  10,
                 14, 15, P, 12, 13, 17, 18, 19, P, 16, 20, 21, 22, 23, P}},
      {3, 4, 4, {0, 1, P, 8, P, 2, 3, 9, 5, P, 4, 10, 6, 7, P, 11}},
  };
  for (const Table& table : tables) {
    const auto shape = shapeOf(table.originals, table.columns, 16384, table.lines);
    for (std::uint64_t line = 0; line < table.lines; line++) {
      for (std::uint32_t column = 0; column < table.columns; column++) {
        const int cell = table.cells[line * table.columns + column];
        INFO("N " << table.originals << " T " << table.columns << " line " << line << " column " << column);
        CHECK((shape.parityColumn(line) == column) == (cell == P));
        if (cell == P) continue;
        const auto offset = static_cast<std::uint64_t>(cell) * 16384 + 7;
        const Raid5Place place = shape.placeOf(offset);
        CHECK(place.line == line);
        CHECK(place.column == column);
        CHECK(place.within == 7);
        CHECK(shape.offsetOf(place) == offset);
      }
    }
  }
}

TEST_CASE("raid5: the worked block of driver.md 4.3") {
  const auto shape = shapeOf(4, 4, 32 * 512, 100);
  const Raid5Place place = shape.placeOf(300 * 512);
  CHECK(place.line == 3);
  CHECK(place.column == 3);
  CHECK(place.line * 32 + place.within / 512 == 108);
  CHECK(shape.parityColumn(3) == 2);
}

// Lays the segments out one after another, the way the tables are drawn: a line's data begins behind its parity.
TEST_CASE("raid5: random shapes agree with a reader that counts") {
  std::mt19937_64 random(5);
  for (int round = 0; round < 200; round++) {
    const auto originals = static_cast<std::uint32_t>(3 + random() % 10);
    const auto columns = static_cast<std::uint32_t>(originals + random() % 4);
    const std::uint64_t segment = (2 + random() % 40) * 512;
    const std::uint64_t lines = 1 + random() % 30;
    const auto shape = shapeOf(originals, columns, segment, lines);
    std::map<std::pair<std::uint64_t, std::uint32_t>, std::uint64_t> numbers;
    std::uint64_t next = 0;
    std::uint32_t parity = originals - 1;
    for (std::uint64_t line = 0; line < lines; line++) {
      REQUIRE(shape.parityColumn(line) == parity);
      for (std::uint32_t column = parity + 1;; column++) {
        if (column == originals) column = 0;
        if (column == parity) break;
        numbers[{line, column}] = next++;
      }
      parity = parity + 1 == originals ? 0 : parity + 1;
    }
    for (std::uint32_t column = originals; column < columns; column++) {
      for (std::uint64_t line = 0; line < lines; line++) numbers[{line, column}] = next++;
    }
    REQUIRE(shape.capacity() == next * segment);
    for (const auto& [cell, number] : numbers) {
      const std::uint64_t within = random() % segment;
      const Raid5Place place = shape.placeOf(number * segment + within);
      REQUIRE(place.line == cell.first);
      REQUIRE(place.column == cell.second);
      REQUIRE(place.within == within);
      REQUIRE(shape.offsetOf(place) == number * segment + within);
    }
  }
}

TEST_CASE("raid5: rows follow each other on a column and end with the line") {
  for (const std::uint64_t blocks : {2, 8, 15, 16, 17, 40}) {
    const auto shape = shapeOf(3, 4, blocks * 512, 9);
    std::uint64_t at = 0;
    for (std::uint64_t row = 0; row < shape.rows(); row++) {
      CHECK(shape.rowStart(row) == at);
      CHECK(shape.lineOf(row) == at / shape.segment());
      CHECK(shape.rowBytes(row) <= 4096);
      CHECK(shape.rowMask(row) == (1U << (shape.rowBytes(row) / 512)) - 1);
      CHECK(shape.rowOf({shape.lineOf(row), 0, at % shape.segment()}) == row);
      at += shape.rowBytes(row);
    }
    CHECK(at == blocks * 512 * 9);
  }
}
