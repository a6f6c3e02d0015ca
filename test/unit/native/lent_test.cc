// Lent pages of mirrors and RAID5: the right bytes whatever is dirty or failing, and storage that is busy until the
// last client has taken what it was lent.
#include "engine/lent.h"
#include "core/pages.h"
#include "engine_rig.h"
#include "tcp_pair.h"

#include <algorithm>
#include <array>
#include <random>

using namespace metadisk;
using namespace metadisk::test;
using namespace metadisk::nbd;

namespace {

constexpr std::uint64_t kBlocks = 8192;
constexpr std::size_t kSize = kBlocks * 512;
constexpr std::size_t kMiB = 1U << 20U;
constexpr std::size_t kPrewrite = 400UL * 512;
constexpr std::size_t kRaidSize = (kBlocks - 400) / 64 * 64 * 512 * 2;

PlanBytes plan(unsigned children, bool raid5) {
  PlanBytes made;
  made.blocks = kBlocks;
  made.children = children;
  made.mirror = !raid5;
  made.raid5 = raid5;
  return made;
}

void fill(const TempFile& file, const Bytes& data, std::uint64_t at = 0) {
  REQUIRE(::pwrite(file.plain.get(), data.data(), data.size(), static_cast<off_t>(at)) ==
          static_cast<ssize_t>(data.size()));
}

// All that has storage is in the page cache from then on.
bool lends(const TempFile& file) { return cached({file.plain.get(), 0, 4096}); }

Bytes part(const Bytes& data, std::size_t at, std::size_t length) {
  return {data.begin() + static_cast<std::ptrdiff_t>(at), data.begin() + static_cast<std::ptrdiff_t>(at + length)};
}

void put(const Fd& client, Bytes& model, std::size_t at, const Bytes& data) {
  REQUIRE(call(client, request(kWrite, at, data.size(), 1) + data) == 0);
  std::copy(data.begin(), data.end(), model.begin() + static_cast<std::ptrdiff_t>(at));
}

bool reads(const Fd& client, const Bytes& model, std::size_t at, std::size_t length) {
  Bytes got;
  return call(client, request(kRead, at, length, 2), length, &got) == 0 && got == part(model, at, length);
}

// Asks, and waits until the reply has begun.
void ask(const Fd& client, std::size_t at, std::size_t length) {
  REQUIRE(sendAll(client, request(kRead, at, length, 3)));
  pollfd p{client.get(), POLLIN, 0};
  REQUIRE(::poll(&p, 1, 10'000) == 1);
}

bool becomesFree(Rig& rig, std::uint32_t component) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (rig.engine->busy(component)) {
    if (std::chrono::steady_clock::now() > end) return false;
    ::usleep(1000);
  }
  return true;
}

struct Raid {
  Raid() : files{TempFile(kSize), TempFile(kSize), TempFile(kSize)}, model(kRaidSize) {
    for (const TempFile& file : files) fill(file, Bytes(kSize));
    REQUIRE(rig.install(0, plan(3, true), {&files[0], &files[1], &files[2]}) == "");
    client = rig.connect(0);
    for (std::size_t at = 0; at < kRaidSize; at += kMiB / 2)
      put(client, model, at, pattern(std::min(kMiB / 2, kRaidSize - at), static_cast<unsigned>(at)));
    REQUIRE(call(client, request(kFlush, 0, 0, 1)) == 0);
  }
  std::array<TempFile, 3> files;
  Rig rig;
  Fd client;
  Bytes model;
};

}  // namespace

TEST_CASE("lent: a RAID5 device lends what is in place, and nothing of what a write has changed since") {
  Raid raid;
  if (!lends(raid.files[0])) return;
  // In place soon after the flush; then a reply is what the files hold when it is read.
  bool lent = false;
  for (unsigned tries = 0; tries < 200 && !lent; tries++) {
    const Bytes before = raid.files[1].read(kPrewrite, kSize - kPrewrite);
    ask(raid.client, 0, kMiB);
    fill(raid.files[1], Bytes(before.size()), kPrewrite);
    CHECK(simpleReply(raid.client).error == 0);
    lent = receive(raid.client, kMiB) != part(raid.model, 0, kMiB);
    fill(raid.files[1], before, kPrewrite);
  }
  CHECK(lent);

  std::minstd_rand random(5);
  const auto below = [&random](std::size_t limit) { return random() % limit; };
  for (unsigned round = 0; round < 300; round++) {
    CAPTURE(round);
    const std::size_t length = 32 * 1024 + below(kMiB - 32 * 1024);
    const std::size_t at = below(kRaidSize - length);
    // One sector or a few pages that are dirty inside the range, and not in place for another second.
    for (unsigned n = 0; n <= below(3); n++) {
      const std::size_t bytes = below(2) == 0 ? 512 : 512 + below(20'000);
      put(raid.client, raid.model, at + below(length - bytes), pattern(bytes, round));
    }
    CHECK(reads(raid.client, raid.model, at, length));
    if (below(4) == 0) CHECK(call(raid.client, request(kFlush, 0, 0, 1)) == 0);
    CHECK(reads(raid.client, raid.model, at, length));
  }
}

TEST_CASE("lent: a column that cannot be read any more costs nobody an answer") {
  Raid raid;
  REQUIRE(::ftruncate(raid.files[1].plain.get(), static_cast<off_t>(kPrewrite)) == 0);
  for (std::size_t at = 0; at + kMiB <= kRaidSize; at += kMiB) {
    CAPTURE(at);
    CHECK(reads(raid.client, raid.model, at, kMiB));
  }
  CHECK(raid.rig.wait([&] {
    return std::any_of(raid.rig.events.begin(), raid.rig.events.end(), [](const EngineEvent& event) {
      return event.kind == EngineEvent::Kind::componentError && event.masked;
    });
  }));
}

TEST_CASE("lent: a side that left is busy until clients have taken its pages, and nobody waits for that") {
  TempFile one(kSize), two(kSize);
  const Bytes data = pattern(kSize, 1);
  fill(one, data);
  fill(two, data);
  if (!lends(one)) return;
  Rig rig;
  REQUIRE(rig.install(0, plan(2, false), {&one, &two}) == "");
  const Fd slow = rig.connect(0);
  const Fd prompt = rig.connect(0);
  // Of one of them each: readers of a stream stay on their side.
  ask(slow, 0, kMiB);
  ask(prompt, 2 * kMiB, kMiB);
  CHECK(simpleReply(prompt).error == 0);
  CHECK(receive(prompt, kMiB) == part(data, 2 * kMiB, kMiB));
  CHECK_FALSE(rig.engine->busy(0));
  CHECK_FALSE(rig.engine->busy(1));

  PlanBytes alone = plan(1, false);
  alone.generation = 2;
  REQUIRE(rig.install(0, alone, {&one}) == "");
  CHECK_FALSE(rig.engine->busy(0));
  CHECK(rig.engine->busy(1));
  CHECK(reads(prompt, data, kMiB, kMiB));  // lent under the new plan: of no interest to the old one's
  CHECK(rig.engine->busy(1));
  CHECK(simpleReply(slow).error == 0);
  CHECK(receive(slow, kMiB) == part(data, 0, kMiB));
  CHECK(becomesFree(rig, 1));
}

TEST_CASE(
    "lent: a device is removed although a client hangs, and its storage is busy until that client reads or goes") {
  for (const bool raid5 : {false, true}) {
    for (const bool goes : {false, true}) {
      CAPTURE(raid5);
      CAPTURE(goes);
      std::array<TempFile, 3> files{TempFile(kSize), TempFile(kSize), TempFile(kSize)};
      for (const TempFile& file : files) fill(file, Bytes(kSize));
      if (!lends(files[0])) return;
      Rig rig;
      REQUIRE(rig.install(0, plan(3, raid5), {&files[0], &files[1], &files[2]}) == "");
      Fd slow = rig.connect(0);
      const std::uint32_t cut = rig.lastConnection;
      ask(slow, 0, kMiB);
      // More than the socket takes: these never leave.
      for (std::size_t n = 0; n < 6; n++) REQUIRE(sendAll(slow, request(kRead, n * kMiB / 2, kMiB, n)));
      CHECK(rig.run([&](Engine::Done done) { rig.engine->remove(0, std::move(done)); }) == "");
      CHECK(rig.sawClosed(cut));
      for (std::uint32_t c = 0; c < 3; c++) CHECK(rig.engine->busy(c));
      if (goes) {
        slow.reset();
      } else {
        // What is left in the socket, and then its end.
        Bytes left(64 * 1024);
        std::size_t total = 0;
        for (ssize_t n = 1; n > 0; total += n > 0 ? static_cast<std::size_t>(n) : 0) {
          if (total == 0) CHECK(rig.engine->busy(0));
          n = ::recv(slow.get(), left.data(), left.size(), 0);
        }
        CHECK(total >= 16 + kMiB);
      }
      for (std::uint32_t c = 0; c < 3; c++) CHECK(becomesFree(rig, c));
    }
  }
}

TEST_CASE("lent: clients that left pages in their sockets are counted, and from some number on the rest gets copies") {
  TempFile file(kSize);
  const Bytes before = pattern(kMiB, 1);
  fill(file, before);
  if (!lends(file)) return;
  EngineOptions options;
  options.threads = 1;
  Rig rig(options);
  REQUIRE(rig.install(0, plan(1, false), {&file}) == "");
  const auto isLent = [&] {
    const Fd client = rig.connect(0);
    ask(client, 0, kMiB);
    fill(file, pattern(kMiB, 2));
    CHECK(simpleReply(client).error == 0);
    const bool changed = receive(client, kMiB) != before;
    fill(file, before);
    return changed;
  };
  std::vector<Fd> gone;
  for (std::size_t i = 0; i < LentPages::kEndedMax; i++) {
    gone.push_back(rig.connect(0));
    ask(gone.back(), 0, 64 * 1024);
    rig.engine->disconnect(rig.lastConnection, true);
    REQUIRE(rig.sawClosed(rig.lastConnection));
    if (i == 0) CHECK(isLent());
  }
  CHECK(rig.engine->busy(0));
  CHECK_FALSE(isLent());
  gone.clear();
  CHECK(becomesFree(rig, 0));
  CHECK(isLent());
}

TEST_CASE("lent: nothing goes to TCP clients, of which nobody knows what they have taken") {
  TempFile file(kSize);
  const Bytes before = pattern(kMiB, 1);
  fill(file, before);
  Rig rig;
  REQUIRE(rig.install(0, plan(1, false), {&file}) == "");
  const TcpPair tcp;
  std::string error;
  REQUIRE(rig.engine->adopt(tcp.server.get(), 0, {}, {}, error) != 0);
  ask(tcp.client, 0, kMiB);
  fill(file, pattern(kMiB, 2));
  CHECK(simpleReply(tcp.client).error == 0);
  CHECK((receive(tcp.client, kMiB) == before));
}
