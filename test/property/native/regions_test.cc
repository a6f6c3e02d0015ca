// The dirty region log against a model of the database behind it, crashed at every step.
//
// The model knows which regions hold data that a crash could leave different on the sides: written to
// and not yet flushed. All of them must be dirty in the database, whatever becomes of the ticket that
// is out. Refused tickets may have reached the database or not.
#include "core/regions.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

// What the world around the log may get wrong; every one of these must be noticed.
enum class Mistake : std::uint8_t {
  none,
  issuesBeforeMark,     // a write does not wait for enter()
  settlesBeforeCommit,  // marked() before the commit is durable
  cleansWithoutFlush,
  forgetsLeave,  // a request's place is reused while it is inside: leave() too early
};

class World {
 public:
  World(std::uint64_t seed, Mistake mistake)
      : random_(seed),
        mistake_(mistake),
        unit_(std::uint64_t{1} << (9 + random_() % 4)),
        bytes_(unit_ * (1 + random_() % 60) - random_() % 2 * 100),
        regions_(bytes_, unit_) {
    const auto count = regions_.count();
    std::vector<std::uint8_t> initial((count + 7) / 8);
    for (auto& byte : initial) byte = random_() % 3 == 0 ? static_cast<std::uint8_t>(random_()) : 0;
    const Bitmap dirty = Bitmap::fromBytes(initial, count);
    regions_.load(dirty);
    database_.assign(count, false);
    unflushed_.assign(count, 0);
    for (std::uint32_t i = 0; i < count; i++) database_[i] = dirty.test(i);
  }

  // False when a crash now could leave two sides different in a region the database calls clean.
  bool safe() const {
    for (std::uint32_t i = 0; i < database_.size(); i++) {
      if (unflushed_[i] == 0 || (database_[i] && !maybeCleared(i))) continue;
      return false;
    }
    return true;
  }
  void step() {
    switch (random_() % 12) {
      case 0:
      case 1:
      case 2:
      case 3: return write();
      case 4:
      case 5:
      case 6: return finishOne();
      case 7:
      case 8: return ticket();
      case 9: return sweep();
      case 10: return random_() % 8 == 0 ? handBack() : flush();
      default: return other();
    }
  }
  // No failures any more: everything must be answered, and in the end everything is clean.
  void end() {
    failures_ = false;
    regions_.allowCleaning(true);
    for (int i = 0; i < 10000 && (!flying_.empty() || regions_.ticketOut() || regions_.wantsMarks()); i++) {
      finishOne();
      ticket();
      flush();
    }
    CHECK(flying_.empty());
    for (int i = 0; i < 8; i++) {
      sweep();
      flush();
      for (int k = 0; k < 4; k++) ticket();
    }
    CHECK(!regions_.anyWaiting());
    CHECK(!regions_.snapshot().any());
    CHECK(std::none_of(database_.begin(), database_.end(), [](bool dirty) { return dirty; }));
    CHECK(inside_.empty());
  }
  unsigned waited = 0;
  unsigned cleaned = 0;

 private:
  struct Write : RegionWaiter {
    World* world = nullptr;
    std::uint64_t number = 0;
    bool issued = false;
    bool waiting = false;
    bool refused = false;
  };
  bool maybeCleared(std::uint32_t region) const {
    return out_.number != 0 && outIdle_ && std::binary_search(out_.regions.begin(), out_.regions.end(), region);
  }

  void write() {
    if (flying_.size() > 20) return;
    auto w = std::make_unique<Write>();
    w->world = this;
    w->number = ++lastWrite_;
    w->granted = [](RegionWaiter& waiter, int error) noexcept {
      auto& granted = static_cast<Write&>(waiter);
      World& world = *granted.world;
      // In order of arrival, within one settling.
      if (granted.number < world.lastGranted_) world.disorder_ = true;
      world.lastGranted_ = granted.number;
      granted.waiting = false;
      if (error != 0) {
        world.disorder_ |= !world.mayRefuse_;
        granted.refused = true;
      } else {
        world.issue(granted);
      }
    };
    std::uint64_t offset = random_() % bytes_;
    if (random_() % 2 == 0) offset = std::min(next_, bytes_ - 1);  // sequential
    std::uint64_t length = 1 + random_() % std::min(bytes_ - offset, random_() % 6 == 0 ? bytes_ : unit_);
    next_ = offset + length;
    const bool go = regions_.enter(*w, offset, length);
    w->waiting = !go;
    waited += go ? 0 : 1;
    if (go || mistake_ == Mistake::issuesBeforeMark) issue(*w);
    if (go && mistake_ == Mistake::forgetsLeave && random_() % 20 == 0) {
      regions_.leave(*w);
      w->first = 1;  // leave() below does nothing
      w->last = 0;
    }
    flying_.push_back(std::move(w));
  }
  void issue(Write& w) {
    w.issued = true;
    for (std::uint32_t i = w.first; i <= w.last; i++) {
      unflushed_[i] = ++clock_;
      inside_.insert({i, w.number});
    }
  }
  void finishOne() {
    if (flying_.empty()) return;
    const std::size_t at = random_() % flying_.size();
    Write& w = *flying_[at];
    if (w.waiting) return;
    for (auto it = inside_.begin(); it != inside_.end();) {
      if (it->second != w.number) {
        ++it;
        continue;
      }
      unflushed_[it->first] = ++clock_;
      it = inside_.erase(it);
    }
    if (!w.refused) regions_.leave(w);
    flying_.erase(flying_.begin() + static_cast<std::ptrdiff_t>(at));
  }
  // The database takes a ticket, or answers the one that is out.
  void ticket() {
    if (out_.number == 0) {
      outIdle_ = false;
      out_ = regions_.takeMarks();
      if (out_.number == 0) {
        outIdle_ = true;
        out_ = regions_.takeIdle();
        cleaned += static_cast<unsigned>(out_.regions.size());
      }
      if (out_.number != 0 && mistake_ == Mistake::settlesBeforeCommit && !outIdle_) settle(true, false);
      return;
    }
    // One at a time.
    CHECK(regions_.takeMarks().number == 0);
    CHECK(regions_.takeIdle().number == 0);
    const bool ok = !failures_ || random_() % 5 != 0;
    settle(ok, ok || random_() % 2 == 0);
  }
  void settle(bool ok, bool reached) {
    const RegionTicket t = std::exchange(out_, {});
    lastGranted_ = 0;
    mayRefuse_ = !ok && !outIdle_;
    if (reached) {
      for (const std::uint32_t i : t.regions) database_[i] = !outIdle_;
    }
    CHECK(regions_.settle(t.number, ok, EIO));
    CHECK(!disorder_);
  }
  void sweep() {
    if (regions_.sweep(random_() % 3 == 0)) {
      CHECK(!flushing_);
      flushing_ = true;
      flushBegan_ = clock_;
      if (mistake_ == Mistake::cleansWithoutFlush) {
        flushing_ = false;
        regions_.flushed(true);
      }
    }
  }
  void flush() {
    if (!flushing_) return;
    flushing_ = false;
    const bool ok = !failures_ || random_() % 6 != 0;
    if (ok) {
      for (std::uint32_t i = 0; i < unflushed_.size(); i++) {
        const auto it = inside_.lower_bound({i, 0});
        const bool busy = it != inside_.end() && it->first == i;
        if (!busy && unflushed_[i] <= flushBegan_) unflushed_[i] = 0;
      }
    }
    regions_.flushed(ok);
  }
  void handBack() {
    while (RegionWaiter* waiter = regions_.handBack()) {
      std::erase_if(flying_, [&](const auto& w) { return w.get() == waiter; });
    }
  }
  void other() {
    switch (random_() % 6) {
      case 0: return regions_.allowCleaning(random_() % 3 != 0);
      case 1: {
        if (random_() % 4 == 0) regions_.doubt();
        return;
      }
      case 2: {
        if (random_() % 4 != 0 || bytes_ > 500 * unit_) return;
        // The control plane converts its bitmap first; it is not asked while a ticket is out.
        const bool doubled = random_() % 2 == 0;
        const std::uint64_t bytes = bytes_ + random_() % (10 * unit_);
        if (!regions_.grow(bytes, doubled ? unit_ * 2 : unit_)) return;
        bytes_ = bytes;
        unit_ = regions_.regionBytes();
        std::vector<bool> database(regions_.count());
        std::vector<std::uint64_t> unflushed(regions_.count());
        for (std::uint32_t i = 0; i < database_.size(); i++) {
          const std::uint32_t to = doubled ? i / 2 : i;
          if (database_[i]) database[to] = true;
          unflushed[to] = std::max(unflushed[to], unflushed_[i]);
        }
        database_ = std::move(database);
        unflushed_ = std::move(unflushed);
        return;
      }
      default: return;
    }
  }

  std::mt19937_64 random_;
  Mistake mistake_;
  std::uint64_t unit_;
  std::uint64_t bytes_;
  Regions regions_;
  std::vector<bool> database_;
  std::vector<std::uint64_t> unflushed_;                      // time of the last write; 0: all sides hold it for good
  std::set<std::pair<std::uint32_t, std::uint64_t>> inside_;  // (region, write)
  std::vector<std::unique_ptr<Write>> flying_;
  RegionTicket out_;
  bool outIdle_ = false;
  bool flushing_ = false;
  bool failures_ = true;
  bool disorder_ = false;  // granted out of order, or refused for no reason
  bool mayRefuse_ = false;
  std::uint64_t flushBegan_ = 0;
  std::uint64_t clock_ = 0;
  std::uint64_t lastWrite_ = 0;
  std::uint64_t lastGranted_ = 0;
  std::uint64_t next_ = 0;
};

}  // namespace

TEST_CASE("property: at any instant every region with unflushed writes is dirty in the database") {
  unsigned waited = 0;
  unsigned cleaned = 0;
  eachSeed(3000, [&](std::uint64_t seed) {
    World world(seed, Mistake::none);
    for (int i = 0; i < 300; i++) {
      world.step();
      REQUIRE(world.safe());
    }
    world.end();
    waited += world.waited;
    cleaned += world.cleaned;
  });
  CHECK(waited > 100);
  CHECK(cleaned > 100);
}

TEST_CASE("property: the model of the database notices every mistake around the log") {
  for (const Mistake mistake :
       {Mistake::issuesBeforeMark, Mistake::settlesBeforeCommit, Mistake::cleansWithoutFlush, Mistake::forgetsLeave}) {
    INFO("mistake " << static_cast<int>(mistake));
    bool noticed = false;
    for (std::uint64_t seed = 1; seed <= 200 && !noticed; seed++) {
      World world(seed, mistake);
      for (int i = 0; i < 300 && !noticed; i++) {
        world.step();
        noticed = !world.safe();
      }
    }
    CHECK(noticed);
  }
}
