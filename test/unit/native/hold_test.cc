// The gate of a device: who waits, in which order they go on, what a verdict does.
#include "md/hold.h"

#include <doctest/doctest.h>

#include <array>
#include <vector>

using namespace metadisk;

namespace {

struct Asked : Request {
  std::vector<int>* answers = nullptr;
  int name = 0;
};

struct Rig {
  Rig() {
    for (std::size_t i = 0; i < r.size(); i++) {
      r[i].answers = &answers;
      r[i].name = static_cast<int>(i);
      r[i].done = [](Request& done) noexcept {
        auto& mine = static_cast<Asked&>(done);
        mine.answers->push_back(mine.error == EIO ? -mine.name : 1000);
      };
      hold.order(r[i]);
    }
  }
  std::vector<int> release() {
    std::vector<int> submitted;
    hold.release([&](Request& request) { submitted.push_back(static_cast<Asked&>(request).name); });
    return submitted;
  }
  Hold hold;
  std::vector<int> answers;
  std::array<Asked, 7> r;
};

}  // namespace

TEST_CASE("hold: requests go on in the order in which the device took them, however they were parked") {
  Rig rig;
  CHECK(!rig.hold.closed());
  for (const std::size_t i : {4U, 2U, 5U, 1U, 6U, 3U}) rig.hold.park(rig.r[i], i % 2 == 0);
  CHECK(rig.hold.closed());
  CHECK(rig.hold.closing());
  CHECK(rig.hold.number() == 0);
  const std::uint64_t number = rig.hold.announce();
  CHECK(rig.hold.number() == number);
  CHECK(!rig.hold.settle(number + 1, true));
  CHECK(rig.hold.settle(number, true));
  CHECK(!rig.hold.settle(number, true));
  CHECK(rig.hold.settled());
  CHECK(rig.release() == std::vector<int>{1, 2, 3, 4, 5, 6});
  CHECK(!rig.hold.closed());
  CHECK(rig.answers.empty());
}

TEST_CASE("hold: fail answers what had failed and lets the rest go on") {
  Rig rig;
  for (const std::size_t i : {1U, 2U, 3U, 4U, 5U}) rig.hold.park(rig.r[i], i == 1 || i == 2 || i == 5);
  CHECK(rig.hold.settle(rig.hold.announce(), false));
  CHECK(rig.release() == std::vector<int>{3, 4});
  CHECK(rig.answers == std::vector<int>{-1, -2, -5});
}

TEST_CASE("hold: one that fails again while others go on keeps its place before them") {
  Rig rig;
  for (std::size_t i = 1; i <= 5; i++) rig.hold.park(rig.r[i], false);
  const std::uint64_t first = rig.hold.announce();
  rig.hold.settle(first, true);
  std::vector<int> submitted;
  rig.hold.release([&](Request& request) {
    submitted.push_back(static_cast<Asked&>(request).name);
    if (submitted.size() == 2) rig.hold.park(request, true);
  });
  CHECK(submitted == std::vector<int>{1, 2});
  CHECK(rig.hold.closing());
  const std::uint64_t second = rig.hold.announce();
  CHECK(second > first);
  CHECK(!rig.hold.settle(first, true));
  CHECK(rig.hold.settle(second, true));
  CHECK(rig.release() == std::vector<int>{2, 3, 4, 5});
}

TEST_CASE("hold: when the device goes, everything is answered") {
  Rig rig;
  rig.hold.park(rig.r[1], true);
  rig.hold.park(rig.r[2], false);
  rig.hold.drop(EIO);
  CHECK(rig.answers == std::vector<int>{-1, -2});
  CHECK(!rig.hold.closed());
  CHECK(rig.release().empty());
}
