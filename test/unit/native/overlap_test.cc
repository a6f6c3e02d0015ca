// Who waits for whom among overlapping ranges, and who is handed back.
#include "md/overlap.h"

#include <doctest/doctest.h>

#include <vector>

using namespace metadisk;

namespace {

struct Entry : OverlapEntry {
  std::vector<int>* log = nullptr;
  int name = 0;
  void set(std::vector<int>& to, int called, std::uint64_t from, std::uint64_t until) {
    log = &to;
    name = called;
    first = from;
    end = until;
    start = [](OverlapEntry& o) noexcept {
      auto& started = static_cast<Entry&>(o);
      started.log->push_back(started.name);
    };
  }
};

}  // namespace

TEST_CASE("overlap: overlapping ranges are owned in the order of arrival") {
  std::vector<int> log;
  OverlapList list;
  std::vector<Entry> e(6);
  const std::uint64_t ranges[6][2] = {{0, 10}, {5, 15}, {12, 20}, {20, 30}, {0, 30}, {8, 9}};
  for (int i = 0; i < 6; i++) {
    e[static_cast<std::size_t>(i)].set(log, i, ranges[i][0], ranges[i][1]);
    list.enter(e[static_cast<std::size_t>(i)]);
  }
  CHECK(log == std::vector<int>{0, 3});
  list.leave(e[0]);
  CHECK(log == std::vector<int>{0, 3, 1});
  list.leave(e[1]);
  CHECK(log == std::vector<int>{0, 3, 1, 2});
  list.leave(e[3]);
  list.leave(e[2]);
  CHECK(log == std::vector<int>{0, 3, 1, 2, 4});
  list.leave(e[4]);
  CHECK(log == std::vector<int>{0, 3, 1, 2, 4, 5});
  list.leave(e[5]);
  CHECK(list.empty());
}

TEST_CASE("overlap: those that wait are handed back in order, those that stay are not held up by them") {
  std::vector<int> log;
  OverlapList list;
  std::vector<Entry> e(6);
  const std::uint64_t ranges[6][2] = {{0, 10}, {5, 15}, {12, 20}, {8, 9}, {100, 110}, {14, 16}};
  for (int i = 0; i < 6; i++) {
    Entry& entry = e[static_cast<std::size_t>(i)];
    entry.set(log, i, ranges[i][0], ranges[i][1]);
    entry.stays = i == 2 || i == 3;  // 2 waits for 1, which is handed back; 3 for 0, which is not
    list.enter(entry);
  }
  CHECK(log == std::vector<int>{0, 4});
  OverlapEntry* const back = list.handBack();
  REQUIRE(back == &e[1]);
  REQUIRE(back->after == &e[5]);  // it waited for 1 and 2, and is not started when 1 goes
  CHECK(back->after->after == nullptr);
  CHECK(log == std::vector<int>{0, 4, 2});
  CHECK(list.handBack() == nullptr);
  list.leave(e[0]);
  CHECK(log == std::vector<int>{0, 4, 2, 3});
  for (const std::size_t i : {2U, 3U, 4U}) list.leave(e[i]);
  CHECK(list.empty());
}
