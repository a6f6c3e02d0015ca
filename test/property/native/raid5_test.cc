// RAID5 under random load, crashes and lost columns, beside a model that knows every version of every sector.
//
// Permitted faults: those of io/sim.h; one column at a time fails, or is lost together with a crash. What must hold:
// reads give what was written last; after a crash every sector is what was flushed last or something written later,
// whichever column is missing; parity of every stripe is right at rest and after a replay.
#include "property/native/raid5_rig.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

// Where a turn takes long, jobs have checkpoints.
SimOptions anySim(std::mt19937_64& random) {
  return {.latencyMax = static_cast<unsigned>(1 + random() % 12),
          .inlinePercent = static_cast<unsigned>(random() % 3 == 0 ? random() % 100 : 0),
          .turnNanos = random() % 2 == 0 ? 1000U : 200'000U,
          .scatters = random() % 2 == 0};
}

Raid5Options anyOptions(std::mt19937_64& random, const SimOptions& sim) {
  Raid5Options options;
  options.cacheBytes = (1 + random() % 300) * 4096;
  options.ageNanos = sim.turnNanos * (1 + random() % 200);
  return options;
}

void run(Rig5& rig, Load5& load, unsigned turns, unsigned depth, Admin5* admin = nullptr) {
  for (unsigned i = 0; i < turns; i++) {
    if (admin != nullptr) admin->step();
    if (admin != nullptr && admin->tests && rig.random() % 4 == 0) return;
    if (load.underWay() < depth && rig.random() % 3 != 0) load.begin();
    rig.turn();
    load.reap();
  }
}

}  // namespace

TEST_CASE("raid5: reads give what was written last, and parity is right at rest") {
  eachSeed(150, [](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const Shape5 shape = anyShape(random);
    const SimOptions sim = anySim(random);
    Rig5 rig(shape, seed, sim, anyOptions(random, sim));
    Load5 load(rig);
    for (int round = 0; round < 4; round++) {
      run(rig, load, 150, 1 + static_cast<unsigned>(random() % 20));
      load.drain();
      rig.rest();
      CHECK(rig.wrongParity() == 0);
      CHECK(rig.disk.overlappingWrites() == 0);
      for (std::uint64_t s = 0; s < rig.model.size(); s++) {
        REQUIRE(rig.onDisk(s) == rig.model[s].back().data);
      }
    }
  });
}

TEST_CASE("raid5: degraded, with every column missing in turn") {
  eachSeed(120, [](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const Shape5 shape = anyShape(random);
    const SimOptions sim = anySim(random);
    Rig5 rig(shape, seed, sim, anyOptions(random, sim));
    Load5 load(rig);
    const auto gone = static_cast<std::uint32_t>(random() % rig.columns());
    // Found out by its errors, in the middle of everything.
    run(rig, load, 60, 10);
    rig.disk.fault({.file = gone, .op = IoOp::write});
    rig.disk.fault({.file = gone, .op = IoOp::sync});
    if (random() % 2 == 0) rig.disk.fault({.file = gone, .op = IoOp::read});
    run(rig, load, 200, 10);
    load.drain();
    rig.rest();
    if (rig.missing()) CHECK(*rig.missing() == gone);
    load.settle();
    if (!rig.missing()) return;
    rig.rest();
    rig.bringBack(gone);
    load.settle();
    run(rig, load, 60, 10);
    load.drain();
    rig.rest();
    CHECK(rig.wrongParity() == 0);
  });
}

// Sanitizers make it several times slower, and look for other things than lost data: they get a third.
#ifdef __SANITIZE_ADDRESS__
constexpr unsigned kCrashSeeds = 100;
#else
constexpr unsigned kCrashSeeds = 300;
#endif

TEST_CASE("raid5: crashes, and columns lost with them") {
  unsigned crashes = 0;
  unsigned replayCrashes = 0;
  std::uint64_t replays = 0;
  std::uint64_t torn = 0;
  unsigned regenerated = 0;
  unsigned compared = 0;
  unsigned joined = 0;
  unsigned resumed = 0;
  unsigned lent = 0;
  unsigned sums = 0;
  unsigned copied = 0;
  unsigned copiesResumed = 0;
  unsigned ringsBorne = 0;
  unsigned ringsTold = 0;
  eachSeed(kCrashSeeds, [&](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const Shape5 shape = anyShape(random);
    const SimOptions sim = anySim(random);
    Rig5 rig(shape, seed, sim, anyOptions(random, sim));
    Load5 load(rig);
    Admin5 admin(rig);
    rig.ringsFail = true;
    for (int life = 0; life < 7; life++) {
      const bool degraded = rig.missing().has_value();
      if (!degraded && random() % 6 == 0) {
        const std::uint32_t disks = rig.serving() + (rig.spare() != kNoFile ? 1U : 0U);
        rig.disk.fault({.file = static_cast<std::uint32_t>(random() % disks),
                        .op = random() % 2 == 0 ? IoOp::write : IoOp::sync,
                        .skip = static_cast<unsigned>(random() % 20)});
      }
      run(rig, load, 20 + static_cast<unsigned>(random() % 150), 1 + static_cast<unsigned>(random() % 20), &admin);
      const bool certain = rig.crash(random() % 2 == 0);
      load.forget();
      if (!certain) break;
      admin.crashed();
      if (!rig.missing()) CHECK(rig.wrongParity() == 0);
      load.settle();
      if (rig.missing() && random() % 2 == 0) {
        // Left alone, all that is to be done is done.
        for (unsigned i = 0; rig.missing() && i < 100'000; i++) {
          admin.step();
          rig.turn();
          if (rig.disk.idle()) rig.disk.advance(1'000'000);
        }
        CHECK(!rig.missing());
        rig.rest();
        CHECK(rig.wrongParity() == 0);
        load.settle();
      }
    }
    crashes += rig.crashes;
    replayCrashes += rig.replayCrashes;
    replays += rig.replays;
    torn += rig.torn;
    regenerated += admin.regenerated;
    compared += admin.compared;
    joined += admin.joined;
    resumed += admin.resumed;
    lent += load.lent;
    sums += load.sums;
    copied += admin.copied;
    copiesResumed += admin.copiesResumed;
    ringsBorne += rig.ringsBorne;
    ringsTold += rig.ringsTold;
  });
  if (std::getenv("SEED") != nullptr) return;
  MESSAGE("raid5: crash states: " << crashes + replayCrashes << " (" << replayCrashes
                                  << " in replays); groups replayed " << replays << ", torn " << torn
                                  << "; damaged rings made up for " << ringsBorne << ", told of " << ringsTold
                                  << "; regenerated " << regenerated << " (resumed " << resumed << "), compared "
                                  << compared << ", joined " << joined << ", lent " << lent << ", copied " << copied
                                  << " (resumed " << copiesResumed << ")");
  CHECK(copied * 6 > kCrashSeeds);
  CHECK((crashes + replayCrashes) * 3 >= kCrashSeeds * 20);
  CHECK(resumed * 20 > kCrashSeeds);
  CHECK(copiesResumed * 40 > kCrashSeeds);
  CHECK(replayCrashes * 3 > kCrashSeeds * 2);
  CHECK(replays * 3 > kCrashSeeds * 10);
  CHECK(torn * 3 > kCrashSeeds);
  CHECK(lent * 3 > kCrashSeeds * 20);
  CHECK(sums > kCrashSeeds);
}
