// Mirrors with a dirty region log, crashed again and again: random writes, flushes and reads, a database
// that answers tickets late, optimized and full resyncs that are interrupted and go on.
//
// Permitted faults: those of a crash in io/sim.h. The database keeps what it committed; a ticket that is
// out at the crash is committed or not. What must hold after every crash:
// - in regions the database calls clean all sides in step are equal;
// - every sector of the side that is read holds what was flushed last or something written later;
// - reads give one answer while nobody writes, whatever the resync has done by then;
// - when the resyncs are over all sides are equal.
#include <algorithm>
#include <array>
#include <deque>
#include <optional>
#include <utility>

#include "engine/regionlog.h"
#include "harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

enum class SideState : std::uint8_t { inStep, stale, copying };

class World {
 public:
  explicit World(std::uint64_t seed)
      : random_(seed), maker_(layout()), bench_(maker_, random_(), options()), count_(sides_.size()) {
    for (std::uint32_t file = 0; file < maker_.sizes.size(); file++) {
      std::ranges::fill(bench_.sim.content(file), std::byte{0});
      bench_.sim.makeDurable(file);
    }
    const std::uint64_t regions = (mirror().size + mirror().region - 1) / mirror().region;
    database_ = Bitmap(static_cast<std::uint32_t>(regions));
    sectors_.resize(mirror().size / kBlock);
    states_.assign(count_, SideState::inStep);
    if (random_() % 2 == 0) {
      states_.back() = SideState::copying;
      for (std::uint64_t s = 0; s < sectors_.size(); s += 3) scribble(count_ - 1, s);
    }
    start();
  }

  void live() {
    const std::uint64_t crashes = 1 + random_() % 4;
    for (std::uint64_t i = 0; i < crashes; i++) {
      const std::uint64_t steps = 20 + random_() % 150;
      for (std::uint64_t k = 0; k < steps; k++) step();
      crash();
    }
    for (unsigned k = 0; !everythingInStep(); k++) {
      REQUIRE(k < 20000);
      step();
    }
    quiet_ = true;
    for (unsigned k = 0; !flying_.empty() || bench_.volume->inFlight() != 0 || log_->regions()->snapshot().any(); k++) {
      REQUIRE(k < 20000);
      step();
    }
    CHECK(!database_.any());
    const auto all = bench_.sides();
    for (std::size_t side = 1; side < all.size(); side++) CHECK(all[side] == all[0]);
    checkContent();
    CHECK(bench_.sim.overlappingWrites() == 0);
  }
  static inline unsigned resyncs = 0;
  static inline unsigned continued = 0;
  static inline unsigned interrupted = 0;
  static inline unsigned compared = 0;
  static inline unsigned cleaned = 0;

 private:
  struct Sector {
    std::vector<std::uint32_t> versions{0};
    std::size_t acked = 0;    // index of the newest version whose write was answered
    std::size_t durable = 0;  // oldest index a crash may leave
  };
  struct Flying {
    std::unique_ptr<Call> call;
    std::uint32_t number = 0;
    bool checkable = true;
    std::vector<std::size_t> covers;      // flush
    std::vector<std::uint32_t> expected;  // read
  };

  PlanMaker layout() {
    PlanMaker m;
    const std::uint64_t blocks = 100 + random_() % 200;
    const std::uint64_t count = 2 + random_() % 2;
    for (std::uint64_t i = 0; i < count; i++) {
      sides_.push_back(
          {random_() % 2 == 0 ? m.component(random_() % 5, blocks) : m.randomStripe(random_, blocks), true});
      sides_.back().slot = static_cast<std::uint32_t>(i);
    }
    m.mirror(sides_, static_cast<ReadPolicy>(random_() % 3), static_cast<WritePolicy>(random_() % 2));
    auto& node = std::get<MirrorNode>(m.plan->nodes.back());
    node.region = kBlock << (1 + random_() % 4);
    node.size -= node.size % kBlock;
    return m;
  }
  SimOptions options() {
    return {.latencyMax = static_cast<unsigned>(1 + random_() % 12), .inlinePercent = random_() % 3 == 0 ? 30U : 0U};
  }
  const MirrorNode& mirror() const { return std::get<MirrorNode>(maker_.plan->root()); }
  bool everythingInStep() const {
    return std::ranges::all_of(states_, [](SideState s) { return s == SideState::inStep; });
  }

  // ---- the control plane

  std::shared_ptr<Plan> plan() const {
    auto next = std::make_shared<Plan>(*maker_.plan);
    auto& node = std::get<MirrorNode>(next->nodes.back());
    for (std::size_t i = 0; i < count_; i++) {
      node.sides[i].readable = states_[i] != SideState::copying;
      node.sides[i].stale = states_[i] == SideState::stale;
    }
    return next;
  }
  // The daemon comes up: everything it knows is in the database.
  void start() {
    bench_.volume.reset();
    log_ = std::make_unique<RegionLog>(
        0, 50'000,
        RegionLog::Owner{.event = [this](EngineEvent e) { ticket_.emplace(std::move(e)); },
                         .attend = [] {},
                         .flush = [this](std::function<void(int)> done) { flush(std::move(done)); }});
    std::vector<std::byte> bytes((database_.size() + 7) / 8);
    for (std::uint32_t i = 0; i < database_.size(); i++) {
      if (database_.test(i)) bytes[i / 8] |= std::byte{1} << (i % 8);
    }
    log_->load(bytes);
    bench_.state = {};
    mount();
  }
  void mount() {
    const auto next = plan();
    log_->mount(*next);
    bench_.state.regions = log_->regions();
    bench_.state.stale = &log_->stale();
    bench_.open(next);
  }
  void database() {
    if (!ticket_ || random_() % 4 != 0) return;
    const EngineEvent e = std::move(*std::exchange(ticket_, std::nullopt));
    commit(e);
    log_->marked(e.ticket, true, 0);
  }
  void commit(const EngineEvent& e) {
    for (const std::uint32_t i : e.regions) {
      if (e.kind == EngineEvent::Kind::regionsDirty) {
        database_.set(i);
      } else {
        database_.clear(i);
        cleaned++;
      }
    }
  }
  // Which copy comes next; its end makes the side readable.
  void jobs() {
    for (; toldCheckpoints_ < bench_.checkpoints.size(); toldCheckpoints_++) {
      checkpoint_ = bench_.checkpoints[toldCheckpoints_];
    }
    if (bench_.endedCount != ended_) {
      ended_ = bench_.endedCount;
      if (bench_.endedOutcome != ResyncOutcome::done) {
        CHECK(bench_.endedOutcome == ResyncOutcome::cancelled);
        return;
      }
      resyncs++;
      if (states_[target_] == SideState::copying) checkpoint_ = 0;
      finished_ = true;
    }
    if (finished_ && bench_.volume->inFlight() == 0) {
      finished_ = false;
      states_[target_] = SideState::inStep;
      mount();
    }
    if (finished_ || bench_.volume->resyncing()) return;
    for (const SideState wanted : {SideState::stale, SideState::copying}) {
      for (std::uint32_t i = 0; i < count_; i++) {
        if (states_[i] != wanted) continue;
        target_ = i;
        const bool full = wanted == SideState::copying;
        if (full && checkpoint_ > 0) continued++;
        REQUIRE(bench_.volume->startResync({.job = 1,
                                            .target = i,
                                            .kind = full ? ResyncKind::full : ResyncKind::optimized,
                                            .from = full ? checkpoint_ : 0,
                                            .bufferBlocks = static_cast<std::uint32_t>(1 + random_() % 30),
                                            .checkpointMillis = full ? 1U : 0U}) == 0);
        return;
      }
    }
  }

  // ---- clients

  void step() {
    // A plan swap waits until nothing is in flight; new requests wait with it.
    if (!finished_ && !quiet_) {
      while (flying_.size() < 6 && random_() % 3 == 0) send();
    }
    if (quiet_ && random_() % 8 == 0) bench_.sim.advance(60'000);
    if (random_() % 64 == 0 && bench_.volume->resyncing()) {
      bench_.volume->cancelResync();
      interrupted++;
    }
    bench_.turn();
    if (random_() % 4 == 0) bench_.sim.advance(300'000);
    log_->advance(bench_.sim.now());
    database();
    collect();
    jobs();
  }
  void send() {
    Flying f;
    const std::uint64_t kind = random_() % 10;
    const std::uint64_t first = random_() % sectors_.size();
    const std::uint64_t length = 1 + random_() % std::min<std::uint64_t>(sectors_.size() - first, 12);
    if (kind == 0) {
      f.call = std::make_unique<Call>(Op::flush, 0, 0);
      for (const Sector& sector : sectors_) f.covers.push_back(sector.acked);
    } else {
      const Op op = kind < 5 ? Op::read : kind == 5 ? Op::zero : Op::write;
      f.call = std::make_unique<Call>(op, first * kBlock, length * kBlock);
      if (op == Op::write) f.number = ++number_;
      f.call->fua = op == Op::write && random_() % 6 == 0;
      for (std::uint64_t i = 0; op == Op::write && i < f.call->length; i += 4) {
        std::memcpy(f.call->buffer.data() + i, &f.number, 4);
      }
      for (std::uint64_t s = first; s < first + length; s++) {
        if (op == Op::read) f.expected.push_back(sectors_[s].versions.back());
        if (op != Op::read) sectors_[s].versions.push_back(f.number);
      }
      for (Flying& other : flying_) {
        const bool apart = other.call->offset >= f.call->offset + f.call->length ||
                           f.call->offset >= other.call->offset + other.call->length;
        if (apart || other.call->op == Op::flush || other.call->finished()) continue;
        if (op == Op::read && other.call->op != Op::read) f.checkable = false;
        if (op != Op::read && other.call->op == Op::read) other.checkable = false;
      }
    }
    flying_.push_back(std::move(f));
    bench_.submit(*flying_.back().call);
  }
  void collect() {
    for (auto it = flying_.begin(); it != flying_.end();) {
      Call& call = *it->call;
      if (call.doneCount == 0) {
        ++it;
        continue;
      }
      REQUIRE(call.doneCount == 1);
      REQUIRE(call.error == 0);
      answered(*it);
      it = flying_.erase(it);
    }
  }
  void answered(Flying& f) {
    const Call& call = *f.call;
    const std::uint64_t first = call.offset / kBlock;
    if (call.op == Op::flush) {
      for (std::size_t s = 0; s < f.covers.size(); s++) {
        sectors_[s].durable = std::max(sectors_[s].durable, f.covers[s]);
      }
      return;
    }
    for (std::uint64_t i = 0; i < call.length / kBlock; i++) {
      Sector& sector = sectors_[first + i];
      if (call.op == Op::read) {
        if (!f.checkable) continue;
        compared++;
        std::uint32_t got = 0;
        std::memcpy(&got, call.buffer.data() + i * kBlock, 4);
        INFO("sector " << first + i);
        REQUIRE(got == f.expected[i]);
        continue;
      }
      // Zeroes have no number of their own: they count only when a flush covers the newest version.
      const auto found = std::find(sector.versions.begin(), sector.versions.end(), f.number);
      const auto index = static_cast<std::size_t>(found - sector.versions.begin());
      if (f.number == 0) continue;
      sector.acked = std::max(sector.acked, index);
      if (call.fua) sector.durable = std::max(sector.durable, index);
    }
  }
  // The flush before regions are called clean.
  void flush(std::function<void(int)> done) {
    struct Sweep : Call {
      using Call::Call;
      std::function<void(int)> then;
    };
    auto* const sweep = new Sweep(Op::flush, 0, 0);
    sweep->then = std::move(done);
    sweep->done = [](Request& r) noexcept {
      const std::unique_ptr<Sweep> ended(static_cast<Sweep*>(&r));
      ended->then(r.error);
    };
    bench_.submit(*sweep);
  }

  // ---- crashes

  void crash() {
    // The database may have taken what it was asked.
    if (ticket_ && random_() % 2 == 0) commit(*ticket_);
    ticket_.reset();
    bench_.sim.crash();
    bench_.volume->cancelResync();
    log_->refuse(EIO);
    for (unsigned turns = 0; bench_.volume->inFlight() != 0; turns++) {
      REQUIRE(turns < 1000);
      bench_.turn();
      log_->refuse(EIO);
    }
    bench_.state.hold.drop(EIO);
    flying_.clear();
    finished_ = false;
    ended_ = bench_.endedCount;
    toldCheckpoints_ = bench_.checkpoints.size();
    bench_.sim.reopen();

    std::size_t good = 0;
    while (states_[good] != SideState::inStep) good++;
    // Any side in step may become the one that counts.
    std::vector<std::size_t> candidates;
    for (std::size_t i = 0; i < count_; i++) {
      if (states_[i] == SideState::inStep) candidates.push_back(i);
    }
    good = candidates[random_() % candidates.size()];
    const auto all = bench_.sides();
    const std::uint64_t region = mirror().region;
    for (std::size_t i = 0; i < count_; i++) {
      if (states_[i] != SideState::inStep) continue;
      for (std::uint32_t r = 0; r < database_.size(); r++) {
        const std::uint64_t at = r * region;
        INFO("region " << r << " of side " << i);
        if (!database_.test(r)) {
          REQUIRE(std::equal(all[i].begin() + static_cast<std::ptrdiff_t>(at),
                             all[i].begin() + static_cast<std::ptrdiff_t>(std::min(at + region, mirror().size)),
                             all[good].begin() + static_cast<std::ptrdiff_t>(at)));
        }
      }
      if (i != good) states_[i] = SideState::stale;
    }
    for (std::size_t s = 0; s < sectors_.size(); s++) {
      Sector& sector = sectors_[s];
      std::uint32_t value = 0;
      std::memcpy(&value, all[good].data() + s * kBlock, 4);
      const auto from = sector.versions.begin() + static_cast<std::ptrdiff_t>(sector.durable);
      INFO("sector " << s);
      REQUIRE(std::find(from, sector.versions.end(), value) != sector.versions.end());
      sector = Sector{{value}, 0, 0};
    }
    start();
  }
  void checkContent() {
    const auto content = bench_.sides()[0];
    for (std::size_t s = 0; s < sectors_.size(); s++) {
      std::uint32_t value = 0;
      std::memcpy(&value, content.data() + s * kBlock, 4);
      REQUIRE(value == sectors_[s].versions.back());
    }
  }
  void scribble(std::size_t side, std::uint64_t sector) {
    Fragment f;
    std::uint64_t covered = 0;
    mapNode(maker_.plan->nodes[sides_[side].child], sector * kBlock, kBlock, {&f, 1}, covered);
    std::ranges::fill(bench_.sim.content(f.file).subspan(f.offset, kBlock), std::byte{0xee});
    bench_.sim.makeDurable(f.file);
  }

  std::mt19937_64 random_;
  std::vector<MirrorSide> sides_;
  PlanMaker maker_;
  Bench bench_;
  std::size_t count_;
  std::unique_ptr<RegionLog> log_;
  std::optional<EngineEvent> ticket_;
  // What the database holds.
  Bitmap database_;
  std::vector<SideState> states_;
  std::uint64_t checkpoint_ = 0;

  std::vector<Sector> sectors_;
  std::deque<Flying> flying_;
  std::uint32_t number_ = 0;
  std::uint32_t target_ = 0;
  int ended_ = 0;
  std::size_t toldCheckpoints_ = 0;
  bool finished_ = false;  // a copy is complete; its side becomes readable when nothing is in flight
  bool quiet_ = false;
};

}  // namespace

TEST_CASE("property: a mirror that crashes again and again loses nothing, reads one answer, and ends in step") {
  eachSeed(400, [](std::uint64_t seed) { World(seed).live(); });
  if (std::getenv("SEED") != nullptr) return;
  CHECK(World::resyncs > 100);
  CHECK(World::continued > 10);
  CHECK(World::interrupted > 100);
  CHECK(World::compared > 1000);
  CHECK(World::cleaned > 100);
}
