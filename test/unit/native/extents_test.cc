// Holes: what components say of themselves, and what a metadevice makes of it.
#include <linux/falloc.h>
#include <sys/mman.h>

#include <algorithm>

#include "io_rig.h"
#include "property/native/harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

struct Asked {
  bool hole = false;
  std::uint64_t run = 0;
};

Asked ask(Turner& turner, ComponentFile& file, std::uint64_t offset, std::uint64_t length) {
  Flight io;
  io.op = IoOp::extents;
  io.file = &file;
  io.offset = offset;
  io.length = length;
  turner.start(io);
  CHECK(turner.wait(io) == 0);
  return {io.hole, io.run};
}

constexpr std::uint64_t kMiB = 1 << 20;

// A file that begins with a hole of 1 MiB, then 1 MiB of data, then a hole to its end.
std::string component(const Fd& fd, ComponentFile& out) {
  const Bytes data = pattern(kMiB, 1);
  REQUIRE(::pwrite(fd.get(), data.data(), data.size(), kMiB) == static_cast<ssize_t>(kMiB));
  ComponentSpec spec;
  spec.fd = fd.get();
  spec.size = 4 * kMiB;
  return openComponent(spec, out);
}

void checkHoles(Turner& turner, ComponentFile& file) {
  Asked got = ask(turner, file, 0, 4 * kMiB);
  CHECK(got.hole);
  CHECK(got.run == kMiB);
  got = ask(turner, file, 5 * kBlock + 3, 7 * kBlock);  // inside, and no further than asked
  CHECK(got.hole);
  CHECK(got.run == 7 * kBlock - 3);
  got = ask(turner, file, kMiB + 4096, 3 * kMiB - 4096);
  CHECK(!got.hole);
  CHECK(got.run == kMiB - 4096);
  got = ask(turner, file, 2 * kMiB, 2 * kMiB);
  CHECK(got.hole);
  CHECK(got.run == 2 * kMiB);

  CHECK(turner.run(file, IoOp::discard, kMiB + 65536, 65536) == 0);
  got = ask(turner, file, kMiB, kMiB);
  CHECK(!got.hole);
  CHECK(got.run == 65536);
  got = ask(turner, file, kMiB + 65536, kMiB - 65536);
  CHECK(got.hole);
  CHECK(got.run == 65536);
  // What was written last is data, wherever it still is.
  Bytes one = pattern(1, 1);
  CHECK(turner.run(file, IoOp::write, kMiB + 65536 + 9000, 1, one.data()) == 0);
  CHECK(!ask(turner, file, kMiB + 65536 + 8192, 4096).hole);
}

Call extents(std::uint64_t offset, std::uint64_t length, std::uint32_t room) {
  Call call(Op::extents, offset, length);
  call.buffer.resize(room * sizeof(Extent));
  call.data = call.buffer.data();
  call.extents = room;
  return call;
}

// Of what was filled in and is durable: what is only seen is no hole of a simulated disk.
std::vector<Extent> found(Bench& bench, std::uint64_t offset, std::uint64_t length, std::uint32_t room = 256) {
  for (std::uint32_t file = 0; file < bench.sim.files().size(); file++) bench.sim.makeDurable(file);
  Call call = extents(offset, length, room);
  CHECK(bench.run(call) == 0);
  std::vector<Extent> out(call.extents);
  std::memcpy(out.data(), call.buffer.data(), out.size() * sizeof(Extent));
  return out;
}

void fill(std::span<std::byte> bytes, std::uint64_t firstBlock, std::uint64_t blocks, int value) {
  std::memset(bytes.data() + firstBlock * kBlock, value, blocks * kBlock);
}

}  // namespace

TEST_CASE("extents: holes of a file, with a ring and with workers") {
  for (const bool workers : {false, true}) {
    CAPTURE(workers);
    Turner turner(workers);
    const Fd memory(::memfd_create("extents", MFD_CLOEXEC));
    REQUIRE(::ftruncate(memory.get(), 4 * kMiB) == 0);
    ComponentFile inMemory;
    REQUIRE(component(memory, inMemory) == "");
    checkHoles(turner, inMemory);

    const TempFile file(4 * kMiB, "/var/tmp");
    if (::lseek(file.fd.get(), 0, SEEK_HOLE) != 0) {
      MESSAGE("skipped: the file system of /var/tmp does not tell its holes");
      continue;
    }
    ComponentFile onDisk;
    REQUIRE(component(file.fd, onDisk) == "");
    checkHoles(turner, onDisk);
  }
}

TEST_CASE("extents: past the end of a file that became shorter all is data, never zeroes") {
  Turner turner(false);
  const Fd memory(::memfd_create("extents", MFD_CLOEXEC));
  REQUIRE(::ftruncate(memory.get(), 4 * kMiB) == 0);
  ComponentFile file;
  REQUIRE(component(memory, file) == "");
  REQUIRE(::ftruncate(memory.get(), 3 * kMiB + 100) == 0);
  CHECK(ask(turner, file, 2 * kMiB, 2 * kMiB).run == kMiB);
  CHECK(!ask(turner, file, 3 * kMiB, kMiB).hole);
  CHECK(!ask(turner, file, 3 * kMiB + kBlock, kMiB - kBlock).hole);
}

TEST_CASE("extents: a stripe's holes are put together, and neighbours of one sort are one") {
  PlanMaker m;
  m.stripe({{32, 256, {0, 3}}, {16, 64, {5}}});
  Bench bench(m, 1);
  CHECK(found(bench, 0, 576 * kBlock).size() == 1);
  CHECK_FALSE(found(bench, 0, 576 * kBlock)[0].hole);
  fill(bench.sim.content(0), 32, 32, 0);      // the row's third interlace
  fill(bench.sim.content(1), 3 + 32, 16, 0);  // and half of the fourth
  fill(bench.sim.content(2), 5, 64, 0);
  const auto all = found(bench, 0, 576 * kBlock);
  REQUIRE(all.size() == 4);
  CHECK(all[0].length == 64 * kBlock);
  CHECK(all[1].length == 48 * kBlock);
  CHECK(all[1].hole);
  CHECK(all[2].length == 400 * kBlock);
  CHECK(all[3].length == 64 * kBlock);
  CHECK(all[3].hole);
  CHECK(found(bench, 0, 576 * kBlock, 1).size() == 1);
  // Few questions: a component says how far it is so, and is not asked again there.
  CHECK(bench.sim.started(IoOp::extents) < 30);
}

TEST_CASE("extents: a mirror has a hole where every side that may be read has one") {
  PlanMaker m;
  const NodeIndex one = m.component(0, 100);
  const NodeIndex two = m.component(4, 100);
  const NodeIndex target = m.component(0, 100);
  m.mirror({{one, true}, {two, true}, {target, false}});
  Bench bench(m, 1);
  fill(bench.sim.content(0), 10, 30, 0);
  fill(bench.sim.content(1), 4 + 20, 50, 0);
  auto all = found(bench, 0, 100 * kBlock);
  REQUIRE(all.size() == 3);
  CHECK(all[0].length == 20 * kBlock);
  CHECK(all[1].length == 20 * kBlock);
  CHECK(all[1].hole);
  CHECK_FALSE(all[2].hole);
  // A component that is never read again has no say.
  std::get<ComponentNode>(m.plan->nodes[one]).service.readable = false;
  Bench without(m, 1);
  fill(without.sim.content(1), 4 + 20, 50, 0);
  all = found(without, 0, 100 * kBlock);
  REQUIRE(all.size() == 3);
  CHECK(all[1].length == 50 * kBlock);
}

TEST_CASE("extents: no answer, no hole") {
  PlanMaker m;
  const NodeIndex one = m.component(0, 100);
  const NodeIndex two = m.component(0, 100);
  m.mirror({{one, true}, {two, true}});
  Bench bench(m, 1);
  fill(bench.sim.content(0), 0, 100, 0);
  fill(bench.sim.content(1), 0, 100, 0);
  bench.sim.fault({.file = 1, .op = IoOp::extents, .times = 1});
  auto all = found(bench, 0, 100 * kBlock);
  REQUIRE(all.size() == 1);
  CHECK_FALSE(all[0].hole);
  CHECK(bench.events.empty());
  all = found(bench, 0, 100 * kBlock);
  REQUIRE(all.size() == 1);
  CHECK(all[0].hole);
}

TEST_CASE("property: extents say of every block what all readable sides hold, and nothing twice") {
  eachSeed(80, [](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    PlanMaker m;
    const auto count = static_cast<unsigned>(random() % 5);
    std::vector<MirrorSide> sides;
    for (unsigned i = 0; i < count; i++) sides.push_back({m.randomStripe(random, 100), i == 0 || random() % 4 != 0});
    if (count == 0) m.randomStripe(random, 30);
    if (count != 0) m.mirror(sides);
    Bench bench(m, random(), {.latencyMax = 3, .inlinePercent = random() % 2 == 0 ? 50U : 0U});
    // Often the same blocks of every side.
    const std::uint64_t size = bench.volume->size();
    const auto* mirror = std::get_if<MirrorNode>(&m.plan->root());
    const std::size_t views = mirror != nullptr ? mirror->sides.size() : 1;
    const auto node = [&](std::size_t side) -> NodeIndex {
      return mirror != nullptr ? mirror->sides[side].child : m.last();
    };
    for (int i = 0; i < 12; i++) {
      const std::uint64_t first = random() % (size / kBlock);
      const std::uint64_t blocks = 1 + random() % std::min<std::uint64_t>(size / kBlock - first, 60);
      const std::size_t only = random() % (views + 2);
      for (std::size_t side = 0; side < views; side++) {
        if (only < views && side != only) continue;
        for (std::uint64_t b = first; b < first + blocks; b++) {
          Fragment f;
          std::uint64_t covered = 0;
          mapNode(m.plan->nodes[node(side)], b * kBlock, kBlock, {&f, 1}, covered);
          fill(bench.sim.content(f.file), f.offset / kBlock, 1, 0);
        }
      }
    }
    const auto content = bench.sides();
    const auto empty = [&](std::uint64_t block) {
      for (std::size_t side = 0; side < views; side++) {
        if (mirror != nullptr && !mirror->sides[side].readable) continue;
        const auto from = content[side].begin() + static_cast<std::ptrdiff_t>(block * kBlock);
        if (!std::all_of(from, from + kBlock, [](std::byte b) { return b == std::byte{0}; })) return false;
      }
      return true;
    };
    for (int i = 0; i < 6; i++) {
      const std::uint64_t start = random() % size;
      const std::uint64_t end = start + 1 + random() % (size - start);
      for (std::uint64_t at = start; at < end;) {
        const auto got = found(bench, at, end - at, 1 + static_cast<std::uint32_t>(random() % 5));
        REQUIRE(!got.empty());
        for (std::size_t k = 0; k < got.size(); k++) {
          REQUIRE(got[k].length > 0);
          REQUIRE((k == 0 || got[k].hole != got[k - 1].hole));
          for (std::uint64_t b = at / kBlock; b * kBlock < at + got[k].length; b++) REQUIRE(got[k].hole == empty(b));
          at += got[k].length;
        }
        REQUIRE(at <= end);
      }
    }
    CHECK(bench.events.empty());
  });
}
