// Random layouts, random operations, random faults; the model is an array of bytes.
//
// Reads are compared when nothing wrote to their range while they were in flight. Overlapping writes
// in flight are sent to mirrors only: there the later one must win on every side, so the model may be
// changed when a write is submitted.
#include <algorithm>
#include <array>
#include <deque>

#include "harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

struct Op1 {
  std::unique_ptr<Call> call;
  bool checkable = true;
  std::vector<std::byte> expected;
};

bool changes(Op op) { return op == Op::write || op == Op::zero || op == Op::trim; }
bool overlap(const Request& a, const Request& b) {
  return a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}

// A mirror of `count` random sides, or a lone stripe for 0.
PlanMaker randomPlan(std::mt19937_64& random, unsigned count, bool targetUnreadable = false) {
  PlanMaker m;
  if (count == 0) {
    m.randomStripe(random, 30);
    return m;
  }
  std::vector<MirrorSide> sides;
  for (unsigned i = 0; i < count; i++) {
    sides.push_back({m.randomStripe(random, 100), i + 1 < count || !targetUnreadable});
  }
  m.mirror(sides, static_cast<ReadPolicy>(random() % 3), static_cast<WritePolicy>(random() % 2));
  return m;
}

class Client {
 public:
  Client(Bench& bench, std::mt19937_64& random, bool overlaps, std::uint64_t grain)
      : bench_(bench), random_(random), overlaps_(overlaps), grain_(grain), model(bench.sides()[0]) {}

  void step(unsigned depth) {
    collect();
    while (flying_.size() < depth && random_() % 4 != 0) send();
    bench_.turn();
  }
  void finish() {
    bench_.drain();
    collect();
    CHECK(flying_.empty());
  }

 private:
  void send() {
    constexpr Op kinds[] = {Op::read,  Op::read, Op::read, Op::write, Op::write, Op::write,
                            Op::write, Op::zero, Op::trim, Op::flush, Op::cache};
    const Op op = kinds[random_() % std::size(kinds)];
    const std::uint64_t units = model.size() / grain_;
    const std::uint64_t first = random_() % units;
    const std::uint64_t longest = random_() % 3 == 0 ? units : std::max<std::uint64_t>(1, 9 * kBlock / grain_);
    const std::uint64_t count = 1 + random_() % std::min(units - first, longest);
    auto call = std::make_unique<Call>(op, first * grain_, count * grain_);
    for (std::byte& b : call->buffer) b = static_cast<std::byte>(random_());
    call->fua = changes(op) && random_() % 8 == 0;
    call->noHole = op == Op::zero && random_() % 2 == 0;
    bool checkable = true;
    if (op != Op::flush && op != Op::cache) {
      for (Op1& other : flying_) {
        if (other.call->finished() || !overlap(*call, *other.call)) continue;
        if (changes(op) && changes(other.call->op) && !overlaps_) return;
        if (op == Op::read && changes(other.call->op)) checkable = false;
        if (changes(op) && other.call->op == Op::read) other.checkable = false;
      }
    }
    const auto at = model.begin() + static_cast<std::ptrdiff_t>(call->offset);
    if (op == Op::write) std::copy(call->buffer.begin(), call->buffer.end(), at);
    if (op == Op::zero || op == Op::trim) std::fill_n(at, call->length, std::byte{0});
    Op1 sent{std::move(call), checkable, {}};
    if (op == Op::read) sent.expected.assign(at, at + static_cast<std::ptrdiff_t>(sent.call->length));
    flying_.push_back(std::move(sent));
    bench_.volume->submit(*flying_.back().call);
  }
  void collect() {
    for (auto it = flying_.begin(); it != flying_.end();) {
      const Call& call = *it->call;
      REQUIRE(call.doneCount <= 1);
      if (!call.finished()) {
        ++it;
        continue;
      }
      CHECK(call.error == 0);
      if (call.op == Op::read && it->checkable) {
        CHECK(call.buffer == it->expected);
        compared++;
      }
      it = flying_.erase(it);
    }
  }

  Bench& bench_;
  std::mt19937_64& random_;
  bool overlaps_;
  std::uint64_t grain_;
  std::deque<Op1> flying_;

 public:
  std::vector<std::byte> model;
  unsigned compared = 0;
};

SimOptions randomOptions(std::mt19937_64& random) {
  return {.latencyMax = static_cast<unsigned>(1 + random() % 20), .inlinePercent = random() % 3 == 0 ? 30U : 0U};
}

}  // namespace

TEST_CASE("property: mapping is a bijection and extents say the same") {
  eachSeed(60, [](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    PlanMaker m;
    m.randomStripe(random, 200);
    const Node& node = m.plan->root();
    const std::uint64_t size = nodeSize(node);
    std::vector<std::vector<bool>> taken;
    for (const std::uint64_t bytes : m.sizes) taken.emplace_back(bytes / kBlock);
    for (std::uint64_t at = 0; at < size; at += kBlock) {
      Fragment f;
      std::uint64_t covered = 0;
      REQUIRE(mapNode(node, at, kBlock, {&f, 1}, covered) == 1);
      REQUIRE(covered == kBlock);
      REQUIRE(f.offset % kBlock == 0);
      REQUIRE(f.offset / kBlock < taken[f.file].size());
      REQUIRE(!taken[f.file][f.offset / kBlock]);
      taken[f.file][f.offset / kBlock] = true;
    }
    for (int i = 0; i < 5; i++) {
      const std::uint64_t first = random() % size;
      const std::uint64_t length = 1 + random() % (size - first);
      std::vector<std::vector<bool>> byFragment;
      for (const std::uint64_t bytes : m.sizes) byFragment.emplace_back(bytes);
      auto byExtent = byFragment;
      bool twice = false;
      const auto mark = [&](auto& map, const Fragment& f) {
        for (std::uint64_t k = 0; k < f.length; k++) {
          twice = twice || map[f.file][f.offset + k];
          map[f.file][f.offset + k] = true;
        }
      };
      std::array<Fragment, 5> out;
      for (std::uint64_t at = 0; at < length;) {
        std::uint64_t covered = 0;
        const std::size_t n = mapNode(node, first + at, length - at, out, covered);
        for (std::size_t k = 0; k < n; k++) mark(byFragment, out[k]);
        at += covered;
      }
      mapExtents(node, first, length, [&](const Fragment& f) { mark(byExtent, f); });
      REQUIRE(!twice);
      REQUIRE((byFragment == byExtent));
    }
  });
}

TEST_CASE("property: random operations on random layouts equal a byte array") {
  unsigned compared = 0;
  eachSeed(80, [&](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const auto count = static_cast<unsigned>(random() % 5);
    PlanMaker m = randomPlan(random, count);
    Bench bench(m, random(), randomOptions(random));
    bench.equalise();
    Client client(bench, random, count >= 2, random() % 3 == 0 ? 1 : kBlock);
    const auto depth = static_cast<unsigned>(1 + random() % 12);
    for (int i = 0; i < 300; i++) client.step(depth);
    client.finish();
    compared += client.compared;
    for (const auto& side : bench.sides()) CHECK(side == client.model);
    if (count >= 2) CHECK(bench.sim.overlappingWrites() == 0);
    CHECK(bench.events.empty());
  });
  CHECK(compared > 20);
}

TEST_CASE("property: a resync among random writes ends with equal sides") {
  eachSeed(60, [](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const auto count = static_cast<unsigned>(2 + random() % 3);
    PlanMaker m = randomPlan(random, count, true);
    Bench bench(m, random(), randomOptions(random));
    bench.equalise();
    const std::uint32_t target = count - 1;
    // The target holds something else everywhere.
    const auto& mirror = std::get<MirrorNode>(m.plan->root());
    const auto* stripe = std::get_if<StripeNode>(&m.plan->nodes[mirror.sides[target].child]);
    for (const Row& row : stripe->rows) {
      for (const Column& column : row.columns) {
        for (std::byte& b : bench.sim.content(column.file)) b = static_cast<std::byte>(random());
      }
    }
    Client client(bench, random, true, random() % 3 == 0 ? 1 : kBlock);
    REQUIRE(bench.volume->startResync(
                {.job = 1, .target = target, .bufferBlocks = static_cast<std::uint32_t>(1 + random() % 40)}) == 0);
    unsigned during = 0;
    while (bench.volume->resyncing()) {
      client.step(10);
      REQUIRE(++during < 100000);
    }
    client.finish();
    CHECK(during > 5);
    CHECK(bench.endedCount == 1);
    CHECK(bench.endedOutcome == ResyncOutcome::done);
    for (const auto& side : bench.sides()) CHECK(side == client.model);
    CHECK(bench.sim.overlappingWrites() == 0);
  });
}

TEST_CASE("property: reads on mirrors are right while at most one side of any block fails") {
  eachSeed(40, [](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    PlanMaker m = randomPlan(random, static_cast<unsigned>(2 + random() % 3));
    Bench bench(m, random(), randomOptions(random));
    bench.equalise();
    const auto content = bench.sides()[0];
    // All components of all sides but one, chosen at random, fail now and then.
    const auto& mirror = std::get<MirrorNode>(m.plan->root());
    const std::size_t good = random() % mirror.sides.size();
    for (std::size_t s = 0; s < mirror.sides.size(); s++) {
      if (s == good) continue;
      for (const Row& row : std::get<StripeNode>(m.plan->nodes[mirror.sides[s].child]).rows) {
        for (const Column& column : row.columns) {
          const std::uint64_t first = random() % m.sizes[column.file];
          bench.sim.fault({.file = column.file, .op = IoOp::read, .first = first, .end = first + 20 * kBlock});
        }
      }
    }
    for (int i = 0; i < 60; i++) {
      const std::uint64_t first = random() % content.size();
      Call read(Op::read, first, 1 + random() % (content.size() - first));
      REQUIRE(bench.run(read) == 0);
      REQUIRE(std::memcmp(read.buffer.data(), content.data() + first, read.length) == 0);
    }
  });
}

TEST_CASE("property: after a crash every side holds what was flushed, or something written later") {
  unsigned flushes = 0;
  eachSeed(80, [&](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const auto count = static_cast<unsigned>(random() % 4);
    PlanMaker m = randomPlan(random, count);
    Bench bench(m, random(), randomOptions(random));
    bench.equalise();
    const std::uint64_t sectors = m.plan->size() / kBlock;
    // Version 0 of a sector is what was there before; a write fills its sectors with its number.
    struct Sector {
      std::vector<std::uint32_t> versions{0};
      std::size_t acked = 0;    // index of the newest version whose write was answered
      std::size_t durable = 0;  // oldest index a crash may leave
    };
    std::vector<Sector> model(sectors);
    const auto before = bench.sides()[0];
    struct Flying {
      std::unique_ptr<Call> call;
      std::uint32_t number = 0;
      std::vector<std::size_t> covers;  // flush: what must be durable afterwards
    };
    std::vector<Flying> flying;
    std::uint32_t number = 0;
    const auto collect = [&] {
      // FUA and acknowledgements first, then flushes: a flush promises only what was answered before it.
      for (auto it = flying.begin(); it != flying.end();) {
        Call& call = *it->call;
        if (call.doneCount == 0) {
          ++it;
          continue;
        }
        REQUIRE(call.error == 0);
        if (call.op == Op::write) {
          for (std::uint64_t s = call.offset / kBlock; s < (call.offset + call.length) / kBlock; s++) {
            Sector& sector = model[s];
            const auto found = std::find(sector.versions.begin(), sector.versions.end(), it->number);
            const auto index = static_cast<std::size_t>(found - sector.versions.begin());
            sector.acked = std::max(sector.acked, index);
            if (call.fua) sector.durable = std::max(sector.durable, index);
          }
        } else {
          flushes++;
          for (std::uint64_t s = 0; s < sectors; s++) model[s].durable = std::max(model[s].durable, it->covers[s]);
        }
        it = flying.erase(it);
      }
    };
    const std::uint64_t steps = 20 + random() % 150;
    for (std::uint64_t step = 0; step < steps; step++) {
      while (flying.size() < 8 && random() % 3 != 0) {
        Flying f;
        if (random() % 5 == 0) {
          f.call = std::make_unique<Call>(Op::flush, 0, 0);
          for (const Sector& sector : model) f.covers.push_back(sector.acked);
        } else {
          const std::uint64_t first = random() % sectors;
          const std::uint64_t length = 1 + random() % std::min<std::uint64_t>(sectors - first, 40);
          f.call = std::make_unique<Call>(Op::write, first * kBlock, length * kBlock);
          f.call->fua = random() % 6 == 0;
          const bool clash = std::any_of(flying.begin(), flying.end(), [&](const Flying& other) {
            return other.call->op == Op::write && overlap(*other.call, *f.call);
          });
          if (clash && count < 2) continue;
          f.number = ++number;
          for (std::uint64_t i = 0; i < f.call->length; i += 4) std::memcpy(f.call->buffer.data() + i, &f.number, 4);
          for (std::uint64_t s = first; s < first + length; s++) model[s].versions.push_back(f.number);
        }
        flying.push_back(std::move(f));
        bench.volume->submit(*flying.back().call);
      }
      bench.turn();
      collect();
    }
    bench.sim.crash();
    for (unsigned turns = 0; bench.volume->inFlight() != 0; turns++) {
      REQUIRE(turns < 1000);
      bench.turn();
    }
    bench.sim.reopen();
    bench.open(m.plan);
    const auto sides = bench.sides();
    for (const auto& side : sides) {
      for (std::uint64_t s = 0; s < sectors; s++) {
        const Sector& sector = model[s];
        bool allowed = false;
        for (std::size_t v = sector.durable; v < sector.versions.size() && !allowed; v++) {
          const std::uint32_t value = sector.versions[v];
          std::array<std::byte, kBlock> want;
          std::memcpy(want.data(), before.data() + s * kBlock, kBlock);
          for (std::uint64_t i = 0; value != 0 && i < kBlock; i += 4) std::memcpy(want.data() + i, &value, 4);
          allowed = std::memcmp(want.data(), side.data() + s * kBlock, kBlock) == 0;
        }
        INFO("sector " << s);
        REQUIRE(allowed);
      }
    }
  });
  CHECK(flushes > 0);
}

TEST_CASE("property: no flush succeeds after a sync failed, whatever else happens") {
  eachSeed(60, [](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const auto count = static_cast<unsigned>(random() % 4);
    PlanMaker m = randomPlan(random, count);
    // Nothing else has the data, so nothing waits for a decision.
    m.allLastErred();
    Bench bench(m, random(), randomOptions(random));
    const auto file = static_cast<std::uint32_t>(random() % m.sizes.size());
    bench.sim.fault(
        {.file = file, .op = IoOp::sync, .error = EIO, .skip = static_cast<unsigned>(random() % 6), .times = 1});
    std::vector<std::unique_ptr<Call>> calls;
    bool failed = false;
    for (int step = 0; step < 200; step++) {
      const Op op = random() % 2 == 0 ? Op::flush : Op::write;
      auto call = std::make_unique<Call>(op, kBlock, op == Op::write ? 20 * kBlock : 0, 1);
      call->fua = op == Op::write && random() % 2 == 0;
      // A mirror's FUA write concerns the components that it is written to.
      const bool must = failed && (op == Op::flush || (call->fua && count == 0));
      bench.volume->submit(*call);
      if (random() % 3 == 0) bench.drain();
      if (must) {
        bench.drain();
        REQUIRE(call->error == EIO);
      }
      calls.push_back(std::move(call));
      for (const auto& other : calls)
        failed = failed || (other->op == Op::flush && other->finished() && other->error != 0);
    }
    bench.drain();
    CHECK(failed);
  });
}
