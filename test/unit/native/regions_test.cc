// The dirty region log by itself: who waits, what is asked of the database, when a region is clean.
#include "core/regions.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <deque>
#include <vector>

using namespace metadisk;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;
using List = std::vector<std::uint32_t>;

struct Write : RegionWaiter {
  bool entered = false;
  int answer = -1;
  std::vector<int>* log = nullptr;
  int name = 0;
};

struct Log {
  explicit Log(std::uint32_t count) : regions(count * kMiB, kMiB) {}
  // Over regions first to last.
  Write& write(std::uint32_t first, std::uint32_t last) {
    Write& w = writes.emplace_back();
    w.log = &order;
    w.name = static_cast<int>(writes.size()) - 1;
    w.granted = [](RegionWaiter& waiter, int error) noexcept {
      auto& granted = static_cast<Write&>(waiter);
      granted.answer = error;
      granted.log->push_back(granted.name);
    };
    w.entered = regions.enter(w, first * kMiB + 5, (last - first) * kMiB + 10);
    return w;
  }
  Write& write(std::uint32_t region) { return write(region, region); }
  List mark(bool ok = true) {
    const RegionTicket t = regions.takeMarks();
    if (t.number != 0) CHECK(regions.settle(t.number, ok, EIO));
    return t.regions;
  }
  // A region that was written once.
  void soil(std::uint32_t region) {
    Write& w = write(region);
    mark();
    regions.leave(w);
  }
  List clean(bool atOnce = true, bool ok = true) {
    if (!regions.sweep(atOnce)) return {};
    regions.flushed(true);
    const RegionTicket t = regions.takeIdle();
    if (t.number != 0) CHECK(regions.settle(t.number, ok, EIO));
    return t.regions;
  }
  List soiled() const {
    List list;
    const Bitmap map = regions.snapshot();
    for (std::uint32_t i = map.nextSet(0); i < map.size(); i = map.nextSet(i + 1)) list.push_back(i);
    return list;
  }

  Regions regions;
  std::deque<Write> writes;
  std::vector<int> order;
};

}  // namespace

TEST_CASE("bitmap: least significant bit first, and what lies outside is ignored") {
  const std::uint8_t bytes[] = {0x81, 0x00, 0xff};
  const Bitmap map = Bitmap::fromBytes(bytes, 18);
  CHECK(map.count() == 4);
  for (const std::uint32_t i : {0U, 7U, 16U, 17U}) CHECK(map.test(i));
  CHECK(map.nextSet(1) == 7);
  CHECK(map.nextSet(8) == 16);
  CHECK(map.nextClear(16) == 18);
  CHECK(map.nextClear(0) == 1);
  CHECK(map.any(8, 16));
  CHECK(!map.any(8, 15));
  CHECK(!Bitmap::fromBytes({}, 200).any());
  CHECK(Bitmap::fromBytes({}, 200).nextSet(0) == 200);
  CHECK(map.merged(1, 9).count() == 3);
  Bitmap far(200);
  far.set(130);
  CHECK(far.nextSet(0) == 130);
  CHECK(far.nextClear(130) == 131);
  far.clear(130);
  CHECK(far == Bitmap(200));
}

TEST_CASE("regions: a write into a clean region waits for its mark, one into a dirty region does not") {
  Log log(8);
  Write& a = log.write(3);
  CHECK(!a.entered);
  CHECK(log.regions.wantsMarks());
  const RegionTicket t = log.regions.takeMarks();
  CHECK(t.regions == List{3});
  CHECK(a.answer == -1);
  CHECK(!log.regions.settle(t.number + 1, true, 0));
  CHECK(log.regions.settle(t.number, true, 0));
  CHECK(!log.regions.settle(t.number, true, 0));
  CHECK(a.answer == 0);
  CHECK(log.write(3).entered);
  CHECK(!log.regions.wantsMarks());
  CHECK(log.soiled() == List{3});
}

TEST_CASE("regions: those who come while a ticket is out share the next one, and go on in order") {
  Log log(100);
  log.write(10);
  const RegionTicket t = log.regions.takeMarks();
  log.write(50, 51);
  log.write(10);
  log.write(30);
  log.write(50);
  CHECK(!log.regions.wantsMarks());
  CHECK(log.regions.takeMarks().number == 0);
  log.regions.settle(t.number, true, 0);
  CHECK(log.order == std::vector<int>{0, 2});
  CHECK(log.mark() == List{30, 50, 51});
  CHECK(log.order == std::vector<int>{0, 2, 1, 3, 4});
  CHECK(!log.regions.anyWaiting());
}

TEST_CASE("regions: a refused mark is told to everyone who waits for it, and to nobody else") {
  Log log(100);
  Write& a = log.write(10);
  const RegionTicket t = log.regions.takeMarks();
  Write& b = log.write(10, 11);
  Write& c = log.write(40);
  log.regions.settle(t.number, false, EROFS);
  CHECK(a.answer == EROFS);
  CHECK(b.answer == EROFS);
  CHECK(c.answer == -1);
  // Nobody knows what the database holds now: region 10 is marked again, and cleaned some day.
  CHECK(log.soiled() == List{10, 11, 40});
  CHECK(log.mark() == List{11, 40});
  CHECK(c.answer == 0);
  log.regions.leave(c);
  Write& d = log.write(10);
  CHECK(!d.entered);
  CHECK(log.mark() == List{10});
  log.regions.leave(d);
  CHECK(log.clean() == List{10, 11, 40});
  CHECK(log.soiled().empty());
}

TEST_CASE("regions: cleaned after two sweeps without a touch and a flush, not before") {
  Log log(8);
  Write& w = log.write(1);
  log.mark();
  CHECK(!log.regions.sweep(false));
  CHECK(!log.regions.sweep(false));  // a write is inside
  log.regions.leave(w);
  CHECK(!log.regions.sweep(false));
  log.regions.leave(log.write(1));
  CHECK(!log.regions.sweep(false));  // touched in between
  CHECK(log.regions.sweep(false));
  CHECK(!log.regions.sweep(false));  // one at a time
  CHECK(!log.regions.wantsIdle());
  log.regions.flushed(true);
  CHECK(log.regions.wantsIdle());
  const RegionTicket t = log.regions.takeIdle();
  CHECK(t.regions == List{1});
  CHECK(log.soiled() == List{1});  // until the database knows
  log.regions.settle(t.number, true, 0);
  CHECK(log.soiled().empty());
  CHECK(!log.regions.anyToClean());
}

TEST_CASE("regions: a touch during the flush keeps the region dirty") {
  Log log(8);
  log.soil(1);
  log.soil(5);
  CHECK(log.regions.sweep(true));
  Write& w = log.write(1);
  CHECK(w.entered);
  log.regions.leave(w);
  log.regions.flushed(true);
  CHECK(log.regions.takeIdle().regions == List{5});
}

TEST_CASE("regions: a failed flush cleans nothing") {
  Log log(8);
  log.soil(1);
  CHECK(log.regions.sweep(true));
  log.regions.flushed(false);
  CHECK(!log.regions.wantsIdle());
  CHECK(log.regions.takeIdle().number == 0);
  CHECK(log.write(1).entered);
}

TEST_CASE("regions: a write into a region being cleaned waits, then marks it again") {
  Log log(8);
  log.soil(1);
  log.regions.sweep(true);
  log.regions.flushed(true);
  const RegionTicket t = log.regions.takeIdle();
  Write& w = log.write(1);
  CHECK(!w.entered);
  SUBCASE("clean") { log.regions.settle(t.number, true, 0); }
  SUBCASE("refused") { log.regions.settle(t.number, false, EIO); }
  CHECK(w.answer == -1);
  CHECK(log.mark() == List{1});
  CHECK(w.answer == 0);
}

TEST_CASE("regions: a refused cleaning leaves nothing that counts as marked") {
  Log log(8);
  log.soil(1);
  CHECK(log.clean(true, false) == List{1});
  CHECK(log.soiled() == List{1});
  CHECK(log.regions.anyToClean());
  CHECK(!log.write(1).entered);
}

TEST_CASE("regions: marks and cleaning take turns") {
  Log log(64);
  log.soil(1);
  log.regions.sweep(true);
  Write& a = log.write(20);
  const RegionTicket marks = log.regions.takeMarks();
  log.regions.flushed(true);
  log.write(40);
  log.regions.settle(marks.number, true, 0);
  CHECK(a.answer == 0);
  CHECK(!log.regions.wantsMarks());
  const RegionTicket idle = log.regions.takeIdle();
  CHECK(idle.regions == List{1});
  CHECK(!log.regions.wantsIdle());
  log.regions.settle(idle.number, true, 0);
  CHECK(log.mark() == List{40});
}

TEST_CASE("regions: nothing is cleaned while cleaning is not allowed") {
  Log log(8);
  log.soil(1);
  log.regions.allowCleaning(false);
  CHECK(!log.regions.anyToClean());
  CHECK(!log.regions.sweep(true));
  log.regions.allowCleaning(true);
  CHECK(log.regions.sweep(true));
  log.regions.allowCleaning(false);
  log.regions.allowCleaning(true);
  CHECK(!log.regions.sweep(true));  // the flush of the sweep before is still under way
  log.regions.flushed(true);
  CHECK(!log.regions.wantsIdle());
  CHECK(log.regions.sweep(true));
  log.regions.flushed(true);
  log.regions.allowCleaning(false);
  CHECK(log.regions.takeIdle().number == 0);
  CHECK(log.write(1).entered);
}

TEST_CASE("regions: a sequential writer finds the regions before it marked, and no more than a few") {
  Log log(2000);
  unsigned waited = 0;
  std::size_t marked = 0;
  for (std::uint32_t i = 0; i < 1000; i++) {
    Write& w = log.write(i);
    waited += w.entered ? 0 : 1;
    marked += log.mark().size();
    CHECK((w.entered || w.answer == 0));
    log.regions.leave(w);
    CHECK(marked <= i + 17);
  }
  CHECK(waited <= 4);
}

TEST_CASE("regions: a random writer marks little more than it writes") {
  Log log(20000);
  std::size_t marked = 0;
  for (std::uint32_t i = 0; i < 1000; i++) {
    Write& w = log.write(i * 7919 % 20000);
    marked += log.mark().size();
    log.regions.leave(w);
  }
  CHECK(marked >= 1000);
  CHECK(marked < 1100);
}

TEST_CASE("regions: what is marked ahead but never written is cleaned like the rest") {
  Log log(100);
  for (std::uint32_t i = 10; i < 14; i++) log.soil(i);
  CHECK(log.soiled().size() > 4);
  log.mark();
  CHECK(!log.regions.sweep(false));
  log.clean(false);
  CHECK(log.soiled().empty());
}

TEST_CASE("regions: waiting writes are handed back in order, and what they wanted is no burden") {
  Log log(100);
  Write& a = log.write(10);
  const RegionTicket t = log.regions.takeMarks();
  Write& b = log.write(20, 22);
  Write& c = log.write(10);
  CHECK(log.regions.handBack() == &a);
  CHECK(log.regions.handBack() == &b);
  CHECK(log.regions.handBack() == &c);
  CHECK(log.regions.handBack() == nullptr);
  CHECK(!log.regions.anyWaiting());
  log.regions.settle(t.number, true, 0);
  CHECK(log.order.empty());
  CHECK(log.regions.doubt());  // so nothing is inside
  CHECK(log.soiled() == List{10});
}

TEST_CASE("regions: one that is let through may hand the rest back") {
  Log log(100);
  static Regions* regions;
  static std::vector<RegionWaiter*> back;
  regions = &log.regions;
  back.clear();
  Write& a = log.write(10);
  Write& b = log.write(11);
  Write& c = log.write(12);
  a.granted = [](RegionWaiter&, int) noexcept {
    while (RegionWaiter* waiter = regions->handBack()) back.push_back(waiter);
  };
  log.mark();
  CHECK(back == std::vector<RegionWaiter*>{&b, &c});
  CHECK(log.order.empty());
  log.regions.leave(a);
  CHECK(log.regions.doubt());
}

TEST_CASE("regions: growing keeps what is dirty, in more regions and in larger ones") {
  Log log(10);
  Bitmap dirty(10);
  for (const std::uint32_t i : {0U, 3U, 9U}) dirty.set(i);
  log.regions.load(dirty);
  CHECK(log.write(9).entered);
  CHECK(!log.regions.grow(20 * kMiB, kMiB));  // a write is inside
  log.regions.leave(log.writes[0]);
  CHECK(log.regions.grow(20 * kMiB, kMiB));
  CHECK(log.soiled() == List{0, 3, 9});
  CHECK(log.write(9).entered);
  CHECK(!log.write(15).entered);
  const RegionTicket t = log.regions.takeMarks();
  CHECK(!log.regions.grow(40 * kMiB, 2 * kMiB));
  log.regions.settle(t.number, true, 0);
  for (const std::size_t i : {1UL, 2UL}) log.regions.leave(log.writes[i]);
  CHECK(log.regions.grow(41 * kMiB, 4 * kMiB));
  CHECK(log.regions.count() == 11);
  CHECK(log.soiled() == List{0, 2, 3});
  CHECK(log.clean() == List{0, 2, 3});
}

TEST_CASE("regions: a larger region that was dirty only in part is dirty, one in doubt is marked again") {
  Log log(4);
  log.soil(0);
  log.clean(true, false);  // 0 in doubt
  log.soil(2);
  CHECK(log.regions.grow(4 * kMiB, 2 * kMiB));
  CHECK(log.soiled() == List{0, 1});
  Write w;
  CHECK(log.regions.enter(w, 3 * kMiB, 1));
  w.granted = [](RegionWaiter&, int) noexcept {};
  CHECK(!log.regions.enter(w, kMiB, 1));
}

TEST_CASE("regions: after doubt every region is marked again, and is still known to need a look") {
  Log log(8);
  log.soil(1);
  log.soil(4);
  CHECK(log.regions.doubt());
  CHECK(log.soiled() == List{1, 4});
  CHECK(!log.write(4).entered);
  CHECK(log.mark() == List{4});
}
