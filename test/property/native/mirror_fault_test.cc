// Mirrors whose components fail at random under a control plane that decides and settles, against a
// model of every sector: which versions it may hold, which was acknowledged, which must survive a crash.
#include <algorithm>
#include <deque>
#include <optional>

#include "property/native/control.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

struct Version {
  std::uint32_t number;  // 0: what was there before
  bool zero;
};

struct Sector {
  std::vector<Version> versions{{0, false}};
  std::size_t acked = 0;    // newest version whose write was answered well
  std::size_t durable = 0;  // oldest version a crash may leave
};

struct Sent {
  std::unique_ptr<Call> call;
  std::uint32_t number = 0;
  std::vector<std::size_t> before;  // acked when it was sent: of the range for a read, of everything for a flush
};

// Sends random requests, knows what each may answer, and checks it.
class Model {
 public:
  Model(Bench& bench, std::mt19937_64& random)
      : bench_(bench), random_(random), sectors_(bench.volume->size() / kBlock), before_(bench.sides()[0]) {}
  // What a crash left unanswered.
  ~Model() {
    for (const Sent& sent : flying_) {
      if (sent.call->doneCount == 0) giveBack(bench_, *sent.call);
    }
  }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  void send() {
    constexpr Op kinds[] = {Op::read,  Op::read,  Op::read, Op::write, Op::write,
                            Op::write, Op::write, Op::zero, Op::trim,  Op::flush};
    const Op op = kinds[random_() % std::size(kinds)];
    const std::uint64_t count = sectors_.size();
    // A few hot places make overlaps likely.
    const std::uint64_t first = random_() % 2 == 0 ? random_() % count : random_() % 40 % count;
    const std::uint64_t length = 1 + random_() % std::min<std::uint64_t>(count - first, random_() % 4 == 0 ? 100 : 12);
    Sent sent;
    sent.call = std::make_unique<Call>(op, op == Op::flush ? 0 : first * kBlock, op == Op::flush ? 0 : length * kBlock);
    sent.call->fua = op != Op::read && op != Op::flush && random_() % 6 == 0;
    if (op == Op::read) {
      for (std::uint64_t s = first; s < first + length; s++) sent.before.push_back(sectors_[s].acked);
    } else if (op == Op::flush) {
      for (const Sector& sector : sectors_) sent.before.push_back(sector.acked);
    } else {
      sent.number = ++number_;
      for (std::uint64_t i = 0; i < sent.call->buffer.size(); i += 4) {
        std::memcpy(sent.call->buffer.data() + i, &sent.number, 4);
      }
      for (std::uint64_t s = first; s < first + length; s++) {
        sectors_[s].versions.push_back({sent.number, op != Op::write});
      }
    }
    flying_.push_back(std::move(sent));
    submitLent(bench_, *flying_.back().call);
  }

  void collect() {
    for (auto it = flying_.begin(); it != flying_.end();) {
      Call& call = *it->call;
      REQUIRE(call.doneCount <= 1);
      if (call.doneCount == 0) {
        ++it;
        continue;
      }
      answered++;
      redone += call.redone;
      if (call.error != 0) {
        errors++;
        if (call.op == Op::write || call.op == Op::zero || call.op == Op::trim) failedWrites++;
      } else {
        check(*it);
      }
      it = flying_.erase(it);
    }
  }

  // Every readable part of every side holds something the model allows; at least `durable` when it is
  // after a crash, at least what was acknowledged otherwise. `equal`: all sides the same.
  void checkSides(const Plan& plan, bool crashed, bool equal) {
    const auto& mirror = std::get<MirrorNode>(plan.root());
    for (std::uint64_t s = 0; s < sectors_.size(); s++) {
      const std::byte* reference = nullptr;
      for (const MirrorSide& side : mirror.sides) {
        Fragment f;
        std::uint64_t covered = 0;
        mapNode(plan.nodes[side.child], s * kBlock, kBlock, {&f, 1}, covered);
        if (!side.readable || !f.service->okay()) continue;
        const std::byte* const found = bench_.sim.content(f.file).data() + f.offset;
        INFO("sector " << s << " file " << f.file);
        REQUIRE(allowed(s, found, crashed ? sectors_[s].durable : sectors_[s].acked));
        if (reference == nullptr) reference = found;
        if (equal) REQUIRE(std::memcmp(reference, found, kBlock) == 0);
      }
    }
  }

  std::size_t flying() const { return flying_.size(); }
  unsigned answered = 0;
  unsigned redone = 0;
  unsigned errors = 0;
  unsigned failedWrites = 0;
  unsigned compared = 0;
  unsigned flushes = 0;

 private:
  bool allowed(std::uint64_t s, const std::byte* found, std::size_t low) const {
    const Sector& sector = sectors_[s];
    for (std::size_t v = sector.versions.size(); v-- > low;) {
      std::array<std::byte, kBlock> want{};
      const Version version = sector.versions[v];
      if (version.number == 0) {
        std::memcpy(want.data(), before_.data() + s * kBlock, kBlock);
      } else if (!version.zero) {
        for (std::uint64_t i = 0; i < kBlock; i += 4) std::memcpy(want.data() + i, &version.number, 4);
      }
      if (std::memcmp(want.data(), found, kBlock) == 0) return true;
    }
    return false;
  }
  void check(const Sent& sent) {
    const Call& call = *sent.call;
    const std::uint64_t first = call.offset / kBlock;
    const std::uint64_t end = (call.offset + call.length) / kBlock;
    if (call.op == Op::read) {
      for (std::uint64_t s = first; s < end; s++) {
        INFO("sector " << s);
        REQUIRE(allowed(s, call.buffer.data() + (s - first) * kBlock, sent.before[s - first]));
        compared++;
      }
      return;
    }
    if (call.op == Op::flush) {
      flushes++;
      for (std::uint64_t s = 0; s < sectors_.size(); s++) {
        sectors_[s].durable = std::max(sectors_[s].durable, sent.before[s]);
      }
      return;
    }
    for (std::uint64_t s = first; s < end; s++) {
      Sector& sector = sectors_[s];
      const auto found = std::find_if(sector.versions.begin(), sector.versions.end(),
                                      [&](const Version& v) { return v.number == sent.number; });
      const auto index = static_cast<std::size_t>(found - sector.versions.begin());
      sector.acked = std::max(sector.acked, index);
      if (call.fua) sector.durable = std::max(sector.durable, index);
    }
  }

  Bench& bench_;
  std::mt19937_64& random_;
  std::vector<Sector> sectors_;
  std::vector<std::byte> before_;
  std::deque<Sent> flying_;
  std::uint32_t number_ = 0;
};

PlanMaker randomMirror(std::mt19937_64& random) {
  PlanMaker m;
  std::vector<MirrorSide> sides;
  const std::uint64_t count = 2 + random() % 3;
  for (std::uint64_t i = 0; i < count; i++) sides.push_back({m.randomStripe(random, 100), true});
  m.mirror(sides, static_cast<ReadPolicy>(random() % 3), static_cast<WritePolicy>(random() % 2));
  return m;
}

SimOptions randomOptions(std::mt19937_64& random) {
  return {.latencyMax = static_cast<unsigned>(1 + random() % 20), .inlinePercent = random() % 3 == 0 ? 40U : 0U};
}

// A fault of a random kind on one of `files`.
SimFault randomFault(std::mt19937_64& random, const std::vector<std::uint32_t>& files,
                     std::span<const std::uint64_t> sizes) {
  constexpr IoOp ops[] = {IoOp::read, IoOp::read, IoOp::write, IoOp::write, IoOp::zero, IoOp::sync};
  constexpr int errors[] = {EIO, ENOSPC, ENODATA, EROFS, ENXIO};
  SimFault fault;
  fault.file = files[random() % files.size()];
  fault.op = ops[random() % std::size(ops)];
  fault.error = errors[random() % std::size(errors)];
  if (random() % 2 == 0) {
    fault.first = random() % sizes[fault.file];
    fault.end = fault.first + (1 + random() % 30) * kBlock;
  }
  fault.skip = static_cast<unsigned>(random() % 5);
  fault.times = random() % 2 == 0 ? 1 + static_cast<unsigned>(random() % 3) : UINT32_MAX;
  return fault;
}

std::vector<std::uint32_t> filesOf(const Plan& plan, std::size_t side) {
  std::vector<std::uint32_t> files;
  const auto& mirror = std::get<MirrorNode>(plan.root());
  for (const Row& row : std::get<StripeNode>(plan.nodes[mirror.sides[side].child]).rows) {
    for (const Column& column : row.columns) files.push_back(column.file);
  }
  return files;
}

// Of every other side.
std::vector<std::uint32_t> filesBut(const Plan& plan, std::size_t good) {
  std::vector<std::uint32_t> files;
  for (std::size_t side = 0; side < std::get<MirrorNode>(plan.root()).sides.size(); side++) {
    if (side == good) continue;
    for (const std::uint32_t file : filesOf(plan, side)) files.push_back(file);
  }
  return files;
}

struct Run {
  explicit Run(std::uint64_t seed, std::optional<SimOptions> options = {})
      : random(seed), maker(randomMirror(random)), bench(maker, random(), options ? *options : randomOptions(random)) {
    bench.equalise();
    model = std::make_unique<Model>(bench, random);
    control = std::make_unique<Control>(bench, random, std::make_shared<Plan>(*maker.plan));
    bench.open(std::make_shared<Plan>(*maker.plan));
    depth = 1 + random() % 12;
  }
  void step(unsigned failPercent = 0) {
    while (model->flying() < depth && random() % 4 != 0) model->send();
    bench.turn();
    control->turn(failPercent);
    model->collect();
  }
  void finish(unsigned failPercent = 0) {
    for (unsigned turns = 0; model->flying() != 0; turns++) {
      REQUIRE(turns < 1'000'000);
      bench.turn();
      control->turn(failPercent);
      model->collect();
    }
    CHECK(!bench.state.hold.closed());
    CHECK(bench.volume->requests() == 0);
  }

  // Some sectors go bad, sometimes for ever.
  void damage(std::uint32_t file) {
    const std::uint64_t first = random() % (maker.sizes[file] / kBlock) * kBlock;
    bench.sim.damage(file, first, std::min(maker.sizes[file], first + (1 + random() % 20) * kBlock), random() % 8 == 0);
  }

  std::mt19937_64 random;
  PlanMaker maker;
  Bench bench;
  std::unique_ptr<Model> model;
  std::unique_ptr<Control> control;
  std::uint64_t depth = 1;
};

}  // namespace

TEST_CASE("property: while one side is good no error of the others reaches a client") {
  unsigned decisions = 0, compared = 0, repairs = 0, rewritten = 0;
  eachSeed(120, [&](std::uint64_t seed) {
    Run run(seed);
    const auto sides = std::get<MirrorNode>(run.maker.plan->root()).sides.size();
    for (int round = 0; round < 4; round++) {
      const std::size_t good = run.random() % sides;
      const auto files = filesBut(*run.maker.plan, good);
      for (int i = 0; i < 200; i++) {
        if (run.random() % 25 == 0) run.bench.sim.fault(randomFault(run.random, files, run.maker.sizes));
        if (run.random() % 15 == 0) run.damage(files[run.random() % files.size()]);
        run.step();
      }
      run.finish();
      run.bench.rest();
      run.control->decide();
      run.model->checkSides(run.control->plan(), false, true);
      run.bench.sim.clearFaults();
      run.control->repairAll();
      CHECK(run.model->errors == 0);
    }
    run.model->checkSides(run.control->plan(), false, true);
    CHECK(run.bench.sim.overlappingWrites() == 0);
    for (const ComponentFault& event : run.bench.events) CHECK(event.masked);
    decisions += run.control->decisions;
    compared += run.model->compared;
    repairs += run.control->repairs;
    rewritten += static_cast<unsigned>(run.bench.repaired.size());
  });
  CHECK(decisions > 100);
  CHECK(rewritten > 100);
  CHECK(repairs > 100);
  CHECK(compared > 100000);
}

TEST_CASE("property: whatever fails, no answer is wrong and every readable part holds what was acknowledged") {
  unsigned errors = 0, lastErred = 0, fails = 0, equal = 0;
  eachSeed(150, [&](std::uint64_t seed) {
    Run run(seed);
    std::vector<std::uint32_t> files(run.maker.sizes.size());
    for (std::uint32_t i = 0; i < files.size(); i++) files[i] = i;
    const unsigned failPercent = seed % 3 == 0 ? 30 : 0;
    for (int round = 0; round < 3; round++) {
      for (int i = 0; i < 200; i++) {
        if (run.random() % 40 == 0) run.bench.sim.fault(randomFault(run.random, files, run.maker.sizes));
        run.step(failPercent);
      }
      run.finish(failPercent);
      // Sides may differ only where the state says that they may.
      run.model->checkSides(run.control->plan(), false, !run.bench.state.unequal);
      equal += run.bench.state.unequal ? 0 : 1;
      run.bench.sim.clearFaults();
      run.control->repairAll();
    }
    errors += run.model->errors;
    lastErred += run.control->lastErred;
    fails += run.control->fails;
  });
  CHECK(errors > 100);
  CHECK(lastErred > 20);
  CHECK(fails > 5);
  CHECK(equal > 20);
}

TEST_CASE("property: a crash amid failures leaves every part in service with what was flushed") {
  unsigned flushes = 0, erred = 0;
  eachSeed(150, [&](std::uint64_t seed) {
    Run run(seed);
    std::vector<std::uint32_t> files(run.maker.sizes.size());
    for (std::uint32_t i = 0; i < files.size(); i++) files[i] = i;
    const std::uint64_t steps = 30 + run.random() % 300;
    for (std::uint64_t i = 0; i < steps; i++) {
      if (run.random() % 30 == 0) run.bench.sim.fault(randomFault(run.random, files, run.maker.sizes));
      if (run.random() % 20 == 0) run.damage(files[run.random() % files.size()]);
      run.step(seed % 3 == 0 ? 20 : 0);
    }
    run.bench.volume->quiesce();
    run.bench.sim.crash();
    const auto plan = std::make_shared<Plan>(run.control->plan());
    for (unsigned turns = 0; run.bench.volume->inFlight() != 0; turns++) {
      REQUIRE(turns < 1000);
      run.bench.turn();
    }
    run.bench.sim.reopen();
    run.model->checkSides(*plan, true, false);
    flushes += run.model->flushes;
    erred += run.control->erred;
  });
  CHECK(flushes > 200);
  CHECK(erred > 50);
}

TEST_CASE("property: while one side answers no component that hangs is noticed, and nothing it held comes back") {
  unsigned decisions = 0, redone = 0, late = 0;
  eachSeed(80, [&](std::uint64_t seed) {
    Run run(seed, SimOptions{.latencyMax = 6, .turnNanos = 200'000});
    SimBackend& sim = run.bench.sim;
    sim.limit(20'000'000);
    const auto sides = std::get<MirrorNode>(run.maker.plan->root()).sides.size();
    for (int round = 0; round < 4; round++) {
      const std::size_t good = run.random() % sides;
      const auto files = filesBut(*run.maker.plan, good);
      for (int i = 0; i < 300; i++) {
        if (run.random() % 60 == 0) {
          SimFault fault = randomFault(run.random, files, run.maker.sizes);
          fault.hangs = run.random() % 3 != 0;
          sim.fault(fault);
        }
        // Some come back before the limit, some when nobody waits for them any more.
        if (run.random() % 100 == 0) sim.letGo(files[run.random() % files.size()]);
        run.step();
      }
      run.finish();
      run.bench.rest();
      run.control->decide();
      sim.clearFaults();
      redone += run.model->redone;
      late += sim.abandoned();
      // What is held might still write: only then may a component be used again.
      for (const std::uint32_t file : files) sim.letGo(file);
      for (unsigned turns = 0; !sim.idle(); turns++) {
        REQUIRE(turns < 1000);
        run.bench.turn();
      }
      REQUIRE(sim.abandoned() == 0);
      CHECK(!sim.held().any());
      CHECK(sim.held().retiredBytes() == 0);
      run.model->checkSides(run.control->plan(), false, true);
      run.control->repairAll();
      CHECK(run.model->errors == 0);
    }
    run.model->checkSides(run.control->plan(), false, true);
    CHECK(sim.overlappingWrites() == 0);
    for (const ComponentFault& event : run.bench.events) CHECK(event.masked);
    decisions += run.control->decisions;
  });
  CHECK(decisions > 50);
  CHECK(redone > 50);
  CHECK(late > 100);
}
