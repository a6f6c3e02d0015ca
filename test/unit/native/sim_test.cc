// The simulator itself: a test tool that forgives would make every other test worthless.
#include "io/sim.h"

#include "property/native/harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

struct Shot : Io {
  std::vector<std::byte> buffer;
  int completions = 0;
  Shot(ComponentFile* f, IoOp what, std::uint64_t at = 0, std::uint64_t size = 0, int fill = 0) {
    op = what;
    file = f;
    offset = at;
    length = size;
    buffer.assign(size, static_cast<std::byte>(fill));
    data = buffer.data();
    complete = [](Io& io) noexcept { static_cast<Shot&>(io).completions++; };
  }
};

int go(SimBackend& sim, Shot& shot) {
  sim.start(shot);
  while (shot.completions == 0) sim.poll();
  return shot.result;
}

const std::vector<std::uint64_t> kSizes{64 * kBlock, 64 * kBlock};

}  // namespace

TEST_CASE("sim: the same seed gives the same order, another seed another") {
  const auto order = [](std::uint64_t seed) {
    SimBackend sim(seed, kSizes, {.latencyMax = 20});
    std::vector<Shot> shots;
    for (int i = 0; i < 20; i++) shots.emplace_back(sim.files()[0], IoOp::read, 0, 512);
    for (Shot& shot : shots) {
      shot.data = shot.buffer.data();
      sim.start(shot);
    }
    std::vector<std::vector<int>> log;
    while (!sim.idle()) {
      sim.poll();
      std::vector<int> done;
      for (const Shot& shot : shots) done.push_back(shot.completions);
      log.push_back(done);
    }
    return log;
  };
  CHECK(order(1) == order(1));
  CHECK(order(1) != order(2));
}

TEST_CASE("sim: unsynced writes may be lost at a crash, synced and FUA ones never") {
  unsigned lost = 0;
  unsigned kept = 0;
  for (std::uint64_t seed = 0; seed < 50; seed++) {
    SimBackend sim(seed, kSizes);
    Shot synced(sim.files()[0], IoOp::write, 0, 512, 1);
    Shot sync(sim.files()[0], IoOp::sync);
    Shot fua(sim.files()[0], IoOp::write, 512, 512, 2);
    Shot loose(sim.files()[0], IoOp::write, 1024, 512, 3);
    fua.fua = true;
    const std::byte before = sim.content(0)[1024];
    CHECK(go(sim, synced) == 0);
    CHECK(go(sim, sync) == 0);
    CHECK(go(sim, fua) == 0);
    CHECK(go(sim, loose) == 0);
    sim.crash();
    Shot late(sim.files()[0], IoOp::write, 0, 512, 9);
    CHECK(go(sim, late) == -ENODEV);
    sim.reopen();
    CHECK(sim.content(0)[0] == std::byte{1});
    CHECK(sim.content(0)[512] == std::byte{2});
    const std::byte now = sim.content(0)[1024];
    CHECK((now == std::byte{3} || now == before));
    (now == std::byte{3} ? kept : lost)++;
  }
  CHECK(lost > 5);
  CHECK(kept > 5);
}

TEST_CASE("sim: a failed sync loses the data and the next one succeeds, as Linux does") {
  SimBackend sim(1, kSizes);
  Shot write(sim.files()[0], IoOp::write, 0, 512, 1);
  const std::byte before = sim.content(0)[0];
  CHECK(go(sim, write) == 0);
  sim.fault({.file = 0, .op = IoOp::sync, .error = EIO, .times = 1});
  Shot first(sim.files()[0], IoOp::sync);
  Shot second(sim.files()[0], IoOp::sync);
  CHECK(go(sim, first) == -EIO);
  CHECK(go(sim, second) == 0);
  CHECK(sim.durable(0)[0] == before);
}

TEST_CASE("sim: faults strike by file, operation and range, after `skip` and for `times`") {
  SimBackend sim(1, kSizes);
  sim.fault({.file = 1, .op = IoOp::read, .first = 1024, .end = 2048, .error = ENXIO, .skip = 1, .times = 2});
  const auto read = [&](std::uint32_t file, std::uint64_t at) {
    Shot shot(sim.files()[file], IoOp::read, at, 1024);
    return go(sim, shot);
  };
  CHECK(read(0, 1024) == 0);
  CHECK(read(1, 0) == 0);
  CHECK(read(1, 2048) == 0);
  CHECK(read(1, 512) == 0);  // skipped
  CHECK(read(1, 512) == -ENXIO);
  CHECK(read(1, 1536) == -ENXIO);
  CHECK(read(1, 1536) == 0);
}

TEST_CASE("sim: pieces from all over a component go to their places, and each of them may be what fails") {
  SimBackend sim(1, kSizes, {.scatters = true});
  const std::array<std::uint64_t, 3> offsets{9 * 512, 2 * 512, 3 * 512};
  const auto scattered = [&](IoOp op, int fill) {
    Shot shot(sim.files()[0], op, UINT64_MAX, 3 * 512, fill);
    std::array<iovec, 3> list;
    for (std::size_t i = 0; i < 3; i++) list[i] = {shot.buffer.data() + i * 512, 512};
    for (std::size_t i = 0; i < 3; i++) shot.buffer[i * 512] = static_cast<std::byte>(fill + 1 + static_cast<int>(i));
    shot.iov = list.data();
    shot.iovCount = 3;
    shot.offsets = offsets.data();
    const int result = go(sim, shot);
    return std::pair(result, shot.buffer);
  };
  const std::vector<std::byte> before(sim.content(0).begin(), sim.content(0).end());
  CHECK(scattered(IoOp::write, 40).first == 0);
  for (std::size_t s = 0; s < 64; s++) {
    const auto at = std::find(offsets.begin(), offsets.end(), s * 512);
    const auto expected = at == offsets.end() ? before[s * 512] : static_cast<std::byte>(41 + (at - offsets.begin()));
    CHECK(sim.content(0)[s * 512] == expected);
  }
  const auto [result, buffer] = scattered(IoOp::read, 0);
  CHECK(result == 0);
  for (std::size_t i = 0; i < 3; i++) CHECK(buffer[i * 512] == static_cast<std::byte>(41 + i));
  // Between the first and the last is not in it.
  sim.damage(0, 5 * 512, 6 * 512);
  CHECK(scattered(IoOp::read, 0).first == 0);
  sim.damage(0, 3 * 512, 4 * 512);
  CHECK(scattered(IoOp::read, 0).first == -ENODATA);
  CHECK(scattered(IoOp::write, 60).first == 0);
  CHECK(scattered(IoOp::read, 0).first == 0);
  sim.crash();
  sim.reopen();
  for (std::size_t i = 0; i < 3; i++) {
    const std::byte now = sim.content(0)[offsets[i]];
    CHECK(
        (now == before[offsets[i]] || now == static_cast<std::byte>(41 + i) || now == static_cast<std::byte>(61 + i)));
  }
}
