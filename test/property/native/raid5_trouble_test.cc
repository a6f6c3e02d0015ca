// RAID5 on disks that are not as they should be, under the requests of several clients.
//
// What must hold: every answer is right (raid5_versions.h), EIO comes only where two columns of a row cannot be read or
// more has failed than parity makes up for, no request stays unanswered, nothing that can be read is lost, and when
// the columns are back all of it is there, parity included; after a crash also when a column is lost with it.
#include "property/native/raid5_clients.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

// RUNS: how many seeds, FROM: the first one; SEED: one alone.
template <typename Body>
void eachRun(unsigned count, std::initializer_list<std::uint64_t> kept, Body body) {
  const auto number = [](const char* name, std::uint64_t otherwise) {
    const char* given = std::getenv(name);
    return given != nullptr ? std::strtoull(given, nullptr, 10) : otherwise;
  };
  std::vector<std::uint64_t> seeds(kept);
  const std::uint64_t first = number("FROM", 1);
  for (std::uint64_t i = 0; i < number("RUNS", count); i++) seeds.push_back(first + i);
  if (std::getenv("SEED") != nullptr) seeds = {number("SEED", 1)};
  for (const std::uint64_t seed : seeds) {
    INFO("SEED=" << seed);
    if (std::getenv("TRACE") != nullptr) std::fprintf(stderr, "SEED=%llu\n", static_cast<unsigned long long>(seed));
    body(seed);
  }
}

// Sanitizers make it several times slower.
#ifdef __SANITIZE_ADDRESS__
constexpr unsigned kRuns = 30;
#else
constexpr unsigned kRuns = 120;
#endif

struct Totals {
  unsigned crashes = 0, lost = 0, replays = 0, unserved = 0, damaged = 0, repaired = 0, erred = 0, lastErred = 0,
           rings = 0;
  unsigned joined = 0, copied = 0, copiesDropped = 0, copiesUsed = 0;
  unsigned returned = 0, regenerated = 0, spared = 0, lates = 0, reads = 0, writes = 0, refused = 0, again = 0;

  void add(const World5& w, const Clients5& c) {
    crashes += w.crashes, lost += w.lost, replays += w.replays, unserved += w.unserved, damaged += w.damaged;
    rings += w.ringsBorne, repaired += w.repaired, erred += w.erred, lastErred += w.lastErred, returned += w.returned;
    regenerated += w.regenerated, spared += w.spared, lates += w.lates;
    joined += w.joined, copied += w.copied, copiesDropped += w.copiesDropped, copiesUsed += w.copiesUsed;
    reads += c.reads, writes += c.writes, refused += c.refused, again += c.again;
  }
  void tell() const {
    MESSAGE("raid5 trouble: reads " << reads << ", writes " << writes << ", refused " << refused << ", again " << again
                                    << "; damaged " << damaged << ", repaired " << repaired << ", erred " << erred
                                    << ", last erred " << lastErred << ", returned " << returned << ", regenerated "
                                    << regenerated << ", spares " << spared << ", late " << lates << "; joined "
                                    << joined << ", copied " << copied << ", copies dropped " << copiesDropped
                                    << ", used " << copiesUsed << "; crashes " << crashes << ", lost with one " << lost
                                    << ", replays " << replays << ", not served " << unserved << ", rings borne "
                                    << rings);
  }
};

void restart(World5& world, Clients5& clients) {
  world.wantsStart = false;
  world.crash();
  clients.forget();
}

// All disks work again: everything comes back, and is right.
void heal(World5& world, Clients5& clients) {
  world.mendAll();
  unsigned turns = 0;
  const auto until = [&](auto done) {
    while (!done()) {
      REQUIRE(turns++ < 200'000);
      world.admin(true);
      clients.step(false);
      if (world.wantsStart) restart(world, clients);
      if (world.disk.idle()) world.disk.advance(1'000'000);
    }
  };
  const std::uint64_t healed = world.turns;
  do {
    until([&] { return world.allOkay() && clients.idle() && world.decided(); });
    clients.flush();
    until([&] { return clients.idle() && world.decided(); });
  } while (!world.allOkay() || world.goodFlush < healed);
  until([&] { return world.rests(); });
  REQUIRE(world.rightCopy());
  REQUIRE(world.allOkay());
  INFO("wrong line " << world.wrongLine().value_or(0));
  REQUIRE(!world.wrongLine());
  for (std::uint64_t s = 0; s < world.versions.size(); s++) {
    INFO("sector " << s);
    REQUIRE(world.versions.rests(s, world.onDisk(s)));
  }
}

void ordeal(std::uint64_t seed, const Troubles& troubles, Totals& totals) {
  std::mt19937_64 random(seed * 31 + 7);
  Shape5 shape = anyShape(random);
  shape.spare = false;  // it has others
  if (shape.joining != 0) shape.less = 0;
  const SimOptions sim{.latencyMax = static_cast<unsigned>(1 + random() % 12),
                       .inlinePercent = static_cast<unsigned>(random() % 3 == 0 ? random() % 100 : 0),
                       .turnNanos = 50'000,
                       .scatters = seed % 2 == 0};
  Raid5Options options;
  options.cacheBytes = (1 + random() % (random() % 2 == 0 ? 300 : 2000)) * 4096;
  options.ageNanos = 50'000 * (1 + random() % 200);
  World5 world(shape, seed, sim, options, troubles.hangs ? 10'000'000 : 0);
  Clients5 clients(world, 1 + static_cast<unsigned>(random() % 24));
  for (int life = 0; life < 4; life++) {
    const unsigned turns = 50 + static_cast<unsigned>(random() % 400);
    for (unsigned i = 0; i < turns; i++) {
      world.inflict(troubles);
      world.admin(false);
      clients.step();
      if (world.wantsStart) restart(world, clients);
    }
    if (troubles.crashes && random() % 2 == 0) {
      restart(world, clients);
    } else {
      clients.drain();
      if (random() % 2 == 0) heal(world, clients);
    }
    if (random() % 2 == 0) clients.readAll();
  }
  heal(world, clients);
  clients.readAll();
  totals.add(world, clients);
}

void ordeals(unsigned count, std::initializer_list<std::uint64_t> kept, const Troubles& troubles) {
  Totals totals;
  eachRun(count, kept, [&](std::uint64_t seed) { ordeal(seed, troubles, totals); });
  totals.tell();
}

}  // namespace

TEST_CASE("raid5 trouble: sectors that cannot be read, and some that cannot be written") {
  ordeals(kRuns, {107, 1054, 1301, 1414, 3247}, {.sectors = true});
}

TEST_CASE("raid5 trouble: a column fails, then another, and both come back") {
  ordeals(kRuns, {107, 182, 533, 1054, 1301, 1414, 3247}, {.failures = true, .second = true});
}

TEST_CASE("raid5 trouble: columns that hang, and answer late") {
  ordeals(kRuns, {49, 1054, 1301, 1414, 3247}, {.second = true, .hangs = true});
}

TEST_CASE("raid5 trouble: all of it, and crashes, and columns lost with them") {
  ordeals(kRuns, {13, 76, 230, 427, 1054, 1301, 1414, 3247},
          {.sectors = true, .failures = true, .second = true, .hangs = true, .crashes = true});
}
