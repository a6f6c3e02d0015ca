// Volumes over simulated components, for the unit and property tests of the volume layer.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "io/sim.h"
#include "md/stripe.h"
#include "md/volume.h"

namespace metadisk::test {

constexpr std::uint64_t kBlock = 512;

// SEED=n replays one seed; otherwise `count` seeds run, each printed when its checks fail.
template <typename Body>
void eachSeed(unsigned count, Body body) {
  if (const char* fixed = std::getenv("SEED")) {
    const std::uint64_t seed = std::strtoull(fixed, nullptr, 10);
    INFO("SEED=" << seed);
    return body(seed);
  }
  for (std::uint64_t seed = 1; seed <= count; seed++) {
    INFO("SEED=" << seed);
    body(seed);
  }
}

// Puts a plan together in memory; every component node gets a component of its own.
class PlanMaker {
 public:
  NodeIndex component(std::uint64_t start, std::uint64_t blocks, std::uint64_t spare = 0) {
    const auto file = static_cast<std::uint32_t>(sizes.size());
    sizes.push_back((start + blocks + spare) * kBlock);
    plan->components.push_back(100 + file);
    plan->nodes.emplace_back(ComponentNode{100 + file, file, start * kBlock, blocks * kBlock});
    return last();
  }
  struct RowSpec {
    std::uint64_t interlace;  // blocks
    std::uint64_t per;        // blocks on every column
    std::vector<std::uint64_t> starts;
  };
  NodeIndex stripe(const std::vector<RowSpec>& specs, std::uint64_t lessBlocks = 0) {
    StripeNode node;
    for (const RowSpec& spec : specs) {
      Row row;
      row.base = node.size;
      row.interlace = spec.interlace * kBlock;
      row.shift = (spec.interlace & (spec.interlace - 1)) == 0 ? __builtin_ctzll(row.interlace) : -1;
      for (const std::uint64_t start : spec.starts) {
        component(start, spec.per, start % 3);
        row.columns.push_back({static_cast<std::uint32_t>(sizes.size() - 1), start * kBlock});
      }
      row.end = node.size = row.base + spec.per * spec.starts.size() * kBlock;
      node.rows.push_back(row);
    }
    node.size -= lessBlocks * kBlock;
    plan->nodes.emplace_back(std::move(node));
    return last();
  }
  // Slots are given in order.
  NodeIndex mirror(std::vector<MirrorSide> sides, ReadPolicy read = ReadPolicy::roundrobin,
                   WritePolicy write = WritePolicy::parallel) {
    std::uint64_t size = UINT64_MAX;
    for (const MirrorSide& side : sides) size = std::min(size, nodeSize(plan->nodes[side.child]));
    for (std::uint32_t i = 0; i < sides.size(); i++) sides[i].slot = i;
    plan->nodes.emplace_back(MirrorNode{size, read, write, std::move(sides)});
    return last();
  }
  // A stripe of random rows, at least `atLeast` blocks large.
  NodeIndex randomStripe(std::mt19937_64& random, std::uint64_t atLeast = 1) {
    std::vector<RowSpec> specs;
    std::uint64_t total = 0;
    do {
      const std::uint64_t columns = 1 + random() % 4;
      const std::uint64_t interlace = std::vector<std::uint64_t>{16, 17, 20, 32, 64}[random() % 5];
      RowSpec spec{interlace, interlace * (1 + random() % 5), {}};
      if (columns == 1) spec.per += random() % 7;
      for (std::uint64_t c = 0; c < columns; c++) spec.starts.push_back(random() % 20);
      total += spec.per * columns;
      specs.push_back(spec);
    } while (total < atLeast || random() % 3 != 0);
    return stripe(specs, total > atLeast ? random() % std::min<std::uint64_t>(total - atLeast + 1, 9) : 0);
  }

  // Every component of the mirror, if the root is one.
  void allLastErred() {
    if (!std::holds_alternative<MirrorNode>(plan->root())) return;
    std::uint32_t order = 0;
    for (Node& node : plan->nodes) {
      if (auto* part = std::get_if<ComponentNode>(&node)) part->service.lastErred = ++order;
      auto* stripe = std::get_if<StripeNode>(&node);
      for (std::size_t r = 0; stripe != nullptr && r < stripe->rows.size(); r++) {
        for (Column& column : stripe->rows[r].columns) column.service.lastErred = ++order;
      }
    }
  }
  NodeIndex last() const { return static_cast<NodeIndex>(plan->nodes.size() - 1); }

  std::shared_ptr<Plan> plan = std::make_shared<Plan>();
  std::vector<std::uint64_t> sizes;
};

// A request with a buffer of its own and a place for the answer.
struct Call : Request {
  std::vector<std::byte> buffer;
  int doneCount = 0;
  unsigned redone = 0;

  Call(Op what, std::uint64_t at, std::uint64_t size, std::uint8_t fill = 0) {
    op = what;
    offset = at;
    length = size;
    if (what == Op::read || what == Op::write) buffer.assign(size, static_cast<std::byte>(fill));
    data = buffer.data();
    done = [](Request& r) noexcept { static_cast<Call&>(r).doneCount++; };
  }
  bool finished() const { return doneCount == 1; }
};

class Bench;

// As from a connection: the memory is not the call's own, a component that hangs may keep it, and a read that
// must be done again gets other memory. `buffer` has what was read when it is done.
void submitLent(Bench& bench, Call& call);

class Bench : public VolumeHost {
 public:
  Bench(const PlanMaker& maker, std::uint64_t seed, SimOptions options = {}) : sim(seed, maker.sizes, options) {
    open(maker.plan);
  }
  ~Bench() override {
    if (volume == nullptr) return;
    volume->quiesce();
    for (unsigned turns = 0; volume->working() && turns < 100'000; turns++) turn();
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;
  void open(std::shared_ptr<const Plan> plan) {
    if (volume != nullptr) {
      volume->quiesce();
      drain();
    }
    volume.reset();
    const auto files = sim.files();
    volume = std::make_unique<Volume>(std::move(plan), files, sim, *this, state);
    volume->begin();
  }
  void turn() {
    sim.poll();
    if (sim.now() >= volume->wakeAt()) volume->tick();
  }
  // Until nothing is in flight.
  void drain() {
    for (unsigned turns = 0; volume->inFlight() != 0; turns++) {
      REQUIRE(turns < 1'000'000);
      turn();
      if (sim.idle() && volume->wakeAt() != UINT64_MAX) sim.advance(1'000'000);
    }
  }
  // Until repairs and jobs are over as well.
  void rest() {
    for (unsigned turns = 0; volume->working() || volume->inFlight() != 0; turns++) {
      REQUIRE(turns < 1'000'000);
      turn();
      if (sim.idle() && volume->wakeAt() != UINT64_MAX) sim.advance(1'000'000);
    }
  }
  // As a device does.
  void submit(Request& request) {
    state.hold.order(request);
    if (state.hold.closed()) return state.hold.park(request, false);
    volume->submit(request);
  }
  int run(Call& call) {
    submit(call);
    for (unsigned turns = 0; call.doneCount == 0; turns++) {
      REQUIRE(turns < 1'000'000);
      turn();
    }
    CHECK(call.finished());
    return call.error;
  }
  int run(Op op, std::uint64_t offset = 0, std::uint64_t length = 0, std::uint8_t fill = 0, bool fua = false) {
    Call call(op, offset, length, fill);
    call.fua = fua;
    return run(call);
  }

  void componentError(const ComponentFault& fault) noexcept override { events.push_back(fault); }
  void resyncProgress(std::uint64_t, std::uint64_t done, std::uint64_t) noexcept override { progress.push_back(done); }
  void resyncCheckpoint(std::uint64_t, std::uint64_t done) noexcept override { checkpoints.push_back(done); }
  void verifyMismatch(std::uint64_t, std::uint64_t block, std::uint64_t blocks) noexcept override {
    mismatches.emplace_back(block, blocks);
  }
  void resyncEnded(const ResyncEnd& end) noexcept override {
    endedCount++;
    endedJob = end.job;
    endedOutcome = end.outcome;
    endedError = end.error;
    endedDone = end.done;
    endedComponent = end.component;
    endedMismatches = end.mismatches;
  }
  void attend() noexcept override {}
  void componentRepaired(std::uint32_t component, std::uint64_t block, std::uint64_t blocks) noexcept override {
    repaired.push_back({component, block, blocks});
  }
  void replayed(const Raid5Replayed& result) noexcept override { replays.push_back(result); }
  std::uint64_t now() noexcept override { return sim.now(); }

  // What a side of the mirror, or the root itself, holds: read past the volume, by its mapping.
  std::vector<std::byte> sideContent(NodeIndex node, std::uint64_t size) const {
    std::vector<std::byte> bytes;
    for (std::uint64_t at = 0; at < size;) {
      Fragment fragment;
      std::uint64_t covered = 0;
      mapNode(volume->plan().nodes[node], at, size - at, {&fragment, 1}, covered);
      const auto content = sim.content(fragment.file).subspan(fragment.offset, fragment.length);
      bytes.insert(bytes.end(), content.begin(), content.end());
      at += covered;
    }
    return bytes;
  }
  // Every side of the mirror (or the one root), whether readable or not.
  std::vector<std::vector<std::byte>> sides() const {
    const Plan& plan = volume->plan();
    std::vector<std::vector<std::byte>> all;
    const auto* mirror = std::get_if<MirrorNode>(&plan.root());
    if (mirror == nullptr) return {sideContent(static_cast<NodeIndex>(plan.nodes.size() - 1), plan.size())};
    for (const MirrorSide& side : mirror->sides) all.push_back(sideContent(side.child, mirror->size));
    return all;
  }
  // Makes all sides hold what the first one does.
  void equalise() {
    const auto* mirror = std::get_if<MirrorNode>(&volume->plan().root());
    if (mirror == nullptr) return;
    const auto first = sides()[0];
    for (const MirrorSide& side : mirror->sides) {
      for (std::uint64_t at = 0; at < mirror->size;) {
        Fragment f;
        std::uint64_t covered = 0;
        mapNode(volume->plan().nodes[side.child], at, mirror->size - at, {&f, 1}, covered);
        std::memcpy(sim.content(f.file).data() + f.offset, first.data() + at, f.length);
        sim.makeDurable(f.file);
        at += covered;
      }
    }
  }

  SimBackend sim;
  MirrorState state;
  std::unique_ptr<Volume> volume;
  std::vector<ComponentFault> events;
  std::vector<Raid5Replayed> replays;
  std::vector<std::uint64_t> progress;
  std::vector<std::uint64_t> checkpoints;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> mismatches;
  struct Repaired {
    std::uint32_t component;
    std::uint64_t block, blocks;
  };
  std::vector<Repaired> repaired;
  int endedCount = 0;
  std::uint64_t endedJob = 0;
  ResyncOutcome endedOutcome = ResyncOutcome::failed;
  int endedError = 0;
  std::uint64_t endedDone = 0;
  std::uint32_t endedComponent = 0;
  std::uint64_t endedMismatches = 0;
};

// The memory that submitLent() lent to a call which is over, or will never be.
inline void giveBack(Bench& bench, const Call& call) {
  if (!call.buffer.empty()) bench.sim.held().retire(call.data, call.length);
}

inline void submitLent(Bench& bench, Call& call) {
  struct Lender {
    static std::byte* take(const Call& c) {
      return static_cast<std::byte*>(std::aligned_alloc(4096, (c.length + 4095) / 4096 * 4096));
    }
  };
  call.owner = &bench;
  if (!call.buffer.empty()) {
    call.data = Lender::take(call);
    std::memcpy(call.data, call.buffer.data(), call.length);
  }
  call.done = [](Request& r) noexcept {
    Call& mine = static_cast<Call&>(r);
    Bench& from = *static_cast<Bench*>(r.owner);
    if (std::exchange(r.again, false)) {
      from.sim.held().retire(r.data, r.length);
      r.data = Lender::take(mine);
      mine.redone++;
      return from.submit(r);
    }
    if (r.op == Op::read) std::memcpy(mine.buffer.data(), r.data, r.length);
    giveBack(from, mine);
    mine.doneCount++;
  };
  bench.submit(call);
}

}  // namespace metadisk::test
