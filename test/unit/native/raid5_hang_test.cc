// RAID5 columns that hang: the simulation aborts when memory changes that the kernel may still write out, and writes
// late into what it may still read into.
#include <doctest/doctest.h>

#include "property/native/raid5_rig.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

constexpr std::uint64_t kLimit = 200'000;

struct Hanging : Rig5 {
  explicit Hanging(std::uint64_t seed)
      : Rig5({.originals = 4, .columns = 4, .interlace = 16, .lines = 20, .prewrite = 200}, seed, {.latencyMax = 4},
             {.cacheBytes = 64 * 4096}) {
    disk.limit(kLimit);
  }
  void run(Call& call) {
    submit(call);
    for (unsigned turns = 0; call.doneCount == 0; turns++) {
      REQUIRE(turns < 100'000);
      turn();
      if (disk.idle()) disk.advance(100'000);
    }
  }
  void write(std::uint64_t offset, std::uint64_t length, std::uint8_t fill) {
    Call call(Op::write, offset, length, fill);
    call.fua = true;
    run(call);
    REQUIRE(call.error == 0);
  }
  bool holds(std::uint64_t offset, std::uint64_t length, std::uint8_t fill) {
    Call call(Op::read, offset, length);
    run(call);
    REQUIRE(!call.again);
    return call.error == 0 && std::all_of(call.buffer.begin(), call.buffer.end(),
                                          [&](std::byte b) { return b == static_cast<std::byte>(fill); });
  }
  void letAllGo(std::uint32_t column) {
    disk.clearFaults();
    disk.letGo(column);
    for (int turns = 0; turns < 200; turns++) turn();
    CHECK(!disk.held().any());
    CHECK(disk.held().retiredBytes() == 0);
  }
};

}  // namespace

TEST_CASE("raid5 hang: what a column did not take is left as it is until it comes back") {
  for (std::uint32_t gone = 0; gone < 4; gone++) {
    for (const unsigned skip : {0U, 1U, 2U}) {
      Hanging rig(gone + 1);
      rig.disk.fault({.file = gone, .op = IoOp::write, .skip = skip, .hangs = true});
      for (std::uint8_t round = 1; round < 20; round++) {
        rig.write(round % 5 * 2048, 40 * 512, round);
        rig.write(100 * 512, 512, round);
      }
      CHECK(rig.missing() == std::optional<std::uint32_t>(gone));
      CHECK(rig.disk.held().any());
      rig.letAllGo(gone);
      rig.rest();
      CHECK(rig.holds(100 * 512, 512, 19));
    }
  }
}

TEST_CASE("raid5 hang: a client's memory that is held is not used, and another answers") {
  Hanging rig(7);
  rig.write(0, 64 * 512, 9);
  rig.rest();
  rig.state->cache->forgetClean();
  const Raid5Place place = Raid5Shape(rig.node()).placeOf(0);
  rig.disk.fault({.file = place.column, .op = IoOp::read, .hangs = true});
  Call lent(Op::read, 0, 4096);
  rig.run(lent);
  CHECK(lent.again);
  CHECK(lent.error == 0);
  CHECK(rig.holds(0, 4096, 9));
  rig.letAllGo(place.column);
  CHECK(rig.holds(0, 4096, 9));
}

TEST_CASE("raid5 hang: what is read late goes into no page that is used") {
  for (std::uint32_t column = 0; column < 4; column++) {
    Hanging rig(column + 11);
    rig.write(0, 60 * 512, 5);
    rig.rest();
    rig.state->cache->forgetClean();
    rig.disk.fault({.file = column, .op = IoOp::read, .hangs = true});
    for (std::uint64_t i = 0; i < 40; i++) rig.write(i * 3 * 512, 512, 6);
    rig.letAllGo(column);
    rig.rest();
    if (!rig.missing()) CHECK(rig.wrongParity() == 0);
    for (std::uint64_t i = 0; i < 40; i++) CHECK(rig.holds(i * 3 * 512, 512, 6));
    CHECK(rig.holds(512, 1024, 5));
  }
}
