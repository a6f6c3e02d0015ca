// The stripe cache: what it keeps, what it drops, and that it never has more than it was given.
#include "md/raid5_cache.h"

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <set>

using namespace metadisk;

namespace {

Raid5Shape shapeOf(std::uint32_t columns, std::uint64_t blocks) {
  Raid5Node node;
  node.segment = blocks * 512;
  node.lines = 1000;
  node.originals = columns;
  node.serving = columns;
  node.columns.resize(columns);
  return Raid5Shape(node);
}

constexpr std::size_t kBytes = 128 * 4096;

}  // namespace

TEST_CASE("raid5 cache: rows are found, and dropped the least recently used first") {
  Raid5Cache cache(shapeOf(3, 16), kBytes);
  REQUIRE(cache.usable());
  REQUIRE(cache.pages() == 128);
  CHECK(cache.find(7) == nullptr);
  for (std::uint64_t key = 0; key < 128; key++) {
    Raid5Row* const row = cache.obtain(key);
    REQUIRE(row != nullptr);
    CHECK(row->key == key);
    CHECK(row->mask == 0xff);
    REQUIRE(cache.needPage(*row, row->cells[1]));
  }
  CHECK(cache.freePages() == 0);
  cache.touch(*cache.find(0));
  Raid5Row* const more = cache.obtain(500);
  REQUIRE(more != nullptr);
  CHECK(cache.find(0) != nullptr);
  CHECK(cache.find(1) == nullptr);
  CHECK(more->cells[1].page == nullptr);
  CHECK(more->cells[1].valid == 0);
}

TEST_CASE("raid5 cache: dirty, busy, pinned and awaited rows stay") {
  Raid5Cache cache(shapeOf(3, 16), kBytes);
  for (std::uint64_t key = 0; key < 128; key++) {
    Raid5Row& row = *cache.obtain(key);
    REQUIRE(cache.needPage(row, row.cells[0]));
    switch (key % 4) {
      case 0: cache.soil(row, row.cells[0], 3, 10); break;
      case 1: row.busy = true; break;
      case 2: row.pins = 1; break;
      default: row.waiters = 1;
    }
  }
  CHECK(cache.obtain(200) == nullptr);
  std::byte* const page = cache.find(0)->cells[0].page;
  CHECK(!cache.needPage(*cache.find(0), cache.find(0)->cells[1]));
  cache.clean(*cache.find(0));
  // Not even for itself: what it has is what is wanted.
  CHECK(!cache.needPage(*cache.find(0), cache.find(0)->cells[1]));
  Raid5Row* const other = cache.obtain(200);
  REQUIRE(other != nullptr);
  REQUIRE(cache.needPage(*other, other->cells[2]));
  CHECK(other->cells[2].page == page);
}

TEST_CASE("raid5 cache: what is dirty is counted, stamped and in order") {
  Raid5Cache cache(shapeOf(4, 8), kBytes);
  for (const std::uint64_t key : {5, 3, 9}) {
    Raid5Row& row = *cache.obtain(key);
    REQUIRE(cache.needPage(row, row.cells[2]));
    cache.soil(row, row.cells[2], 1, key);
  }
  Raid5Row& first = *cache.find(5);
  REQUIRE(cache.needPage(first, first.cells[0]));
  cache.soil(first, first.cells[0], 6, 99);
  CHECK(cache.changes() == 4);
  CHECK(cache.dirtyPages() == 4);
  CHECK(first.stamp == 1);
  CHECK(first.since == 5);
  CHECK(first.cells[0].valid == 6);
  CHECK(cache.oldestDirty() == &first);
  CHECK(first.after->key == 3);
  cache.clean(first);
  CHECK(cache.dirtyPages() == 2);
  CHECK(first.cells[0].valid == 6);
  CHECK(first.cells[0].dirty == 0);
  CHECK(cache.oldestDirty()->key == 3);
  cache.soil(first, first.cells[0], 1, 100);
  CHECK(first.stamp == 5);
  cache.forgetClean();
  CHECK(cache.rowsUsed() == 3);
}

TEST_CASE("raid5 cache: clean pages of dirty rows go before a page is refused") {
  Raid5Cache cache(shapeOf(4, 8), kBytes);
  for (std::uint64_t key = 0; key < 32; key++) {
    Raid5Row& row = *cache.obtain(key);
    for (std::uint32_t c = 0; c < 4; c++) REQUIRE(cache.needPage(row, row.cells[c]));
    cache.soil(row, row.cells[1], 1, 0);
    row.cells[3].valid = 5;
  }
  CHECK(cache.freePages() == 0);
  Raid5Row& more = *cache.obtain(99);
  REQUIRE(cache.needPage(more, more.cells[0]));
  CHECK(cache.freePages() == 2);
  const Raid5Row& stripped = *cache.find(31);
  CHECK(stripped.cells[1].page != nullptr);
  CHECK(stripped.cells[3].page == nullptr);
  CHECK(stripped.cells[3].valid == 0);
  CHECK(cache.find(30)->cells[3].valid == 5);
}

TEST_CASE("raid5 cache: the last row of an uneven segment is short") {
  Raid5Cache cache(shapeOf(3, 11), kBytes);
  CHECK(cache.obtain(0)->mask == 0xff);
  CHECK(cache.obtain(1)->mask == 0x07);
}

TEST_CASE("raid5 cache: random use beside a model") {
  std::mt19937_64 random(9);
  Raid5Cache cache(shapeOf(5, 16), kBytes);
  std::map<std::uint64_t, std::set<std::uint32_t>> dirty;
  for (int step = 0; step < 200000; step++) {
    const std::uint64_t key = random() % 400;
    Raid5Row* const row = cache.obtain(key);
    if (row != nullptr) {
      const auto c = static_cast<std::uint32_t>(random() % 5);
      if (random() % 3 != 0 && cache.needPage(*row, row->cells[c])) {
        cache.soil(*row, row->cells[c], static_cast<std::uint8_t>(1U << (random() % 8)), 0);
        dirty[key].insert(c);
      }
      if (random() % 5 == 0 && cache.needOld(*row, row->cells[c])) cache.dropOld(*row);
    }
    while (cache.dirtyPages() > 90 || (row == nullptr && cache.oldestDirty() != nullptr)) {
      dirty.erase(cache.oldestDirty()->key);
      cache.clean(*cache.oldestDirty());
      if (cache.dirtyPages() <= 90) break;
    }
    std::size_t pages = 0;
    for (const auto& [at, columns] : dirty) pages += columns.size();
    REQUIRE(cache.dirtyPages() == pages);
    if (step % 1000 != 0) continue;
    std::set<std::byte*> seen;
    std::size_t used = 0;
    for (std::uint64_t at = 0; at < 400; at++) {
      Raid5Row* const found = cache.find(at);
      CHECK((found != nullptr || dirty.count(at) == 0));
      for (std::uint32_t c = 0; found != nullptr && c < 5; c++) {
        CHECK((found->cells[c].dirty != 0) == (dirty.count(at) != 0 && dirty[at].count(c) != 0));
        if (found->cells[c].page == nullptr) continue;
        CHECK(seen.insert(found->cells[c].page).second);
        used++;
      }
    }
    CHECK(used + cache.freePages() == cache.pages());
  }
}

TEST_CASE("raid5 cache: a staged page is left alone, and comes back when it is in place") {
  Raid5Cache cache(shapeOf(3, 16), kBytes);
  Raid5Row& row = *cache.obtain(3);
  Raid5Cell& cell = row.cells[0];
  REQUIRE(cache.needPage(row, cell));
  std::byte* const page = cell.page;
  page[5] = std::byte{7};
  CHECK(cache.own(row, cell, 1));
  CHECK(cell.page == page);
  cache.soil(row, cell, 0xff, 1);
  cache.clean(row);
  cache.pin(cell);
  row.pins = 1;
  const std::size_t free = cache.freePages();
  REQUIRE(cache.own(row, cell, 2));
  CHECK(cell.page != page);
  CHECK(cell.staged == page);
  CHECK(cell.page[5] == std::byte{7});
  CHECK(cache.freePages() == free - 1);
  std::byte* const second = cell.page;
  REQUIRE(cache.own(row, cell, 4));
  CHECK(cell.page == second);
  row.pins = 0;
  cache.unpin(row);
  CHECK(cell.staged == nullptr);
  CHECK(cell.page == second);
  CHECK(cache.freePages() == free);
  cache.forget(row);
  CHECK(cache.find(3) == nullptr);
  CHECK(cache.freePages() == cache.pages());
}

TEST_CASE("raid5 cache: full rows are known as such while they are dirty") {
  Raid5Cache cache(shapeOf(4, 16), kBytes);
  Raid5Row* const rows[] = {cache.obtain(1), cache.obtain(2), cache.obtain(3)};
  for (Raid5Row* row : rows) {
    for (std::uint32_t c = 0; c < 3; c++) {
      REQUIRE(cache.needPage(*row, row->cells[c]));
      cache.soil(*row, row->cells[c], 0x7f, 1);
      CHECK(cache.fullRows() == static_cast<std::size_t>(row->key - 1));
      cache.soil(*row, row->cells[c], 0x80, 1);
      cache.soil(*row, row->cells[c], 0xff, 1);
    }
    CHECK(cache.fullRows() == static_cast<std::size_t>(row->key));
  }
  cache.clean(*rows[1]);
  CHECK(cache.fullRows() == 2);
  CHECK(cache.oldestFull() == rows[0]);
  CHECK(rows[0]->fullAfter == rows[2]);
  cache.soil(*rows[1], rows[1]->cells[0], 0xff, 1);
  cache.clean(*rows[1]);
  CHECK(cache.fullRows() == 2);
}
