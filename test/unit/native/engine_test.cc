// The engine from the socket to the file: threads, plans, connections and their ends.
#include "engine_rig.h"

#include <algorithm>
#include <thread>

using namespace metadisk;
using namespace metadisk::test;
using namespace metadisk::nbd;

namespace {

constexpr std::uint64_t kBlocks = 8192;  // 4 MiB
constexpr std::size_t kSize = kBlocks * 512;

PlanBytes single(std::uint64_t generation = 1) {
  PlanBytes plan;
  plan.generation = generation;
  plan.blocks = kBlocks;
  return plan;
}

EngineOptions threads(unsigned n) {
  EngineOptions options;
  options.threads = n;
  return options;
}

}  // namespace

TEST_CASE("what one connection writes, another reads, and the file holds it") {
  for (const bool workers : {false, true}) {
    for (const char* directory : {"/tmp", "/dev/shm"}) {
      CAPTURE(workers);
      CAPTURE(std::string(directory));
      TempFile file(kSize, directory);
      EngineOptions options = threads(2);
      options.forceWorkers = workers;
      Rig rig(options);
      REQUIRE(rig.install(0, single(), {&file}) == "");
      const Fd a = rig.connect(0);
      const Fd b = rig.connect(0);
      for (const auto& [offset, length] : std::vector<std::pair<std::uint64_t, std::size_t>>{
               {0, 4096}, {4096, 1U << 20U}, {513, 7}, {kSize - 1, 1}, {kSize - 5000, 5000}}) {
        const Bytes data = pattern(length, static_cast<unsigned>(length));
        CHECK(call(a, request(kWrite, offset, length, 1) + data) == 0);
        Bytes got;
        CHECK(call(b, request(kRead, offset, length, 2), length, &got) == 0);
        CHECK(got == data);
        CHECK(file.read(offset, length) == data);
      }
      CHECK(call(a, request(kFlush, 0, 0, 3)) == 0);
      CHECK(call(a, request(kWrite, 8192, 4096, 4, kFua) + pattern(4096, 9)) == 0);
      CHECK(file.read(8192, 4096) == pattern(4096, 9));
      CHECK(call(a, request(kCache, 0, kSize, 5)) == 0);
      CHECK(call(a, request(kTrim, 0, 65536, 6)) == 0);
      CHECK(call(a, request(kWriteZeroes, 100, 70000, 7)) == 0);
      CHECK(file.read(100, 70000) == Bytes(70000));
      CHECK(call(a, request(kWrite, 0, 4096, 8) + pattern(4096, 4)) == 0);
      CHECK(call(a, request(kWriteZeroes, 10, 100, 9, kNoHole | kFua)) == 0);
      CHECK(file.read(10, 100) == Bytes(100));
      Bytes kept = pattern(4096, 4);
      kept.resize(10);
      CHECK(file.read(0, 10) == kept);
    }
  }
}

TEST_CASE("an O_DIRECT component takes any offset, and neighbours of odd writes survive each other") {
  for (const bool workers : {false, true}) {
    CAPTURE(workers);
    TempFile file(kSize, "/var/tmp", O_DIRECT);
    if (!file.fd) {
      MESSAGE("no O_DIRECT in /var/tmp");
      return;
    }
    EngineOptions options = threads(2);
    options.forceWorkers = workers;
    Rig rig(options);
    REQUIRE(rig.install(0, single(), {&file}, true) == "");
    const Fd a = rig.connect(0);
    const Fd b = rig.connect(0);
    const Bytes big = pattern(700'001, 5);
    CHECK(call(a, request(kWrite, 1, big.size(), 1) + big) == 0);
    Bytes got;
    CHECK(call(b, request(kRead, 1, big.size(), 2), big.size(), &got) == 0);
    CHECK(got == big);
    // 64 writers of 100 bytes share blocks, from two connections on two threads.
    Bytes expected(6400);
    Bytes batch[2];
    for (unsigned i = 0; i < 64; ++i) {
      const Bytes part = pattern(100, i + 100);
      std::copy(part.begin(), part.end(), expected.begin() + i * 100);
      batch[i % 2] = batch[i % 2] + request(kWrite, 1'000'000 + i * 100, 100, i) + part;
    }
    REQUIRE(sendAll(a, batch[0]));
    REQUIRE(sendAll(b, batch[1]));
    for (unsigned i = 0; i < 32; ++i) {
      CHECK(simpleReply(a).error == 0);
      CHECK(simpleReply(b).error == 0);
    }
    CHECK(call(a, request(kFlush, 0, 0, 3)) == 0);
    CHECK(call(b, request(kRead, 1'000'000, 6400, 4), 6400, &got) == 0);
    CHECK(got == expected);
    CHECK(call(a, request(kWriteZeroes, 1'000'150, 3000, 5, kNoHole)) == 0);
    std::fill(expected.begin() + 150, expected.begin() + 3150, std::byte{});
    CHECK(call(a, request(kRead, 1'000'000, 6400, 6), 6400, &got) == 0);
    CHECK(got == expected);
  }
}

TEST_CASE("refused requests are answered and their payload is skipped") {
  TempFile file(kSize);
  EngineOptions options = threads(1);
  options.maxRequestBytes = 65536;
  Rig rig(options);
  REQUIRE(rig.install(0, single(), {&file}) == "");
  const Fd a = rig.connect(0);
  CHECK(call(a, request(kWrite, kSize, 4096, 1) + pattern(4096, 1)) == kEnospc);
  CHECK(call(a, request(kWrite, 0, 65537, 2) + pattern(65537, 1)) == kEinval);
  CHECK(call(a, request(kRead, 0, 65537, 3)) == kEinval);
  CHECK(call(a, request(kRead, 0, 0, 4)) == kEinval);
  CHECK(call(a, request(99, 0, 1, 5)) == kEinval);
  CHECK(call(a, request(kRead, 0, 512, 6), 512) == 0);
  CHECK(file.read(0, 4096) == Bytes(4096));
  const auto sums = rig.engine->counters(0);
  CHECK(sums[static_cast<std::size_t>(Counter::reads)] == 3);
  CHECK(sums[static_cast<std::size_t>(Counter::readErrors)] == 2);
  CHECK(sums[static_cast<std::size_t>(Counter::readBytes)] == 512);
  CHECK(sums[static_cast<std::size_t>(Counter::writeErrors)] == 2);
  CHECK(sums[static_cast<std::size_t>(Counter::badRequests)] == 1);

  SUBCASE("a wrong magic ends the connection, and only it") {
    const std::uint32_t id = rig.lastConnection;
    const Fd b = rig.connect(0);
    REQUIRE(sendAll(a, Bytes(28, std::byte{1})));
    CHECK(receive(a, 1).empty());
    CHECK(rig.sawClosed(id));
    CHECK(call(b, request(kRead, 0, 512, 6), 512) == 0);
  }
  SUBCASE("a payload longer than any request ends the connection") {
    REQUIRE(sendAll(a, request(kWrite, 0, 0xffffffff, 7)));
    CHECK(receive(a, 1).empty());
  }
  SUBCASE("DISC is obeyed after the requests before it") {
    REQUIRE(sendAll(a, request(kRead, 0, 512, 8) + request(kDisconnect, 0, 0, 9) + request(kRead, 0, 512, 10)));
    CHECK(simpleReply(a).cookie == 8);
    CHECK(receive(a, 1000).size() == 512);
    CHECK(rig.sawClosed(rig.lastConnection));
  }
}

TEST_CASE("headers in pieces, many in one packet, and bytes the handshake read too far") {
  TempFile file(kSize);
  Rig rig(threads(1));
  REQUIRE(rig.install(0, single(), {&file}) == "");
  const Bytes first = request(kWrite, 0, 4096, 1) + pattern(4096, 1) + request(kRead, 0, 4096, 2);
  const Fd a = rig.connect(0, {}, Bytes(first.begin(), first.begin() + 100));
  for (std::size_t at = 100; at < first.size(); at += 997) {
    const std::size_t end = std::min(at + 997, first.size());
    REQUIRE(sendAll(
        a, Bytes(first.begin() + static_cast<std::ptrdiff_t>(at), first.begin() + static_cast<std::ptrdiff_t>(end))));
  }
  CHECK(simpleReply(a).cookie == 1);
  CHECK(simpleReply(a).cookie == 2);
  CHECK(receive(a, 4096) == pattern(4096, 1));
  Bytes many;
  for (unsigned i = 0; i < 2000; ++i) many = many + request(kWrite, i * 512, 512, i) + pattern(512, i);
  std::thread sender([&] { sendAll(a, many); });
  for (unsigned i = 0; i < 2000; ++i) CHECK(simpleReply(a).error == 0);
  sender.join();
  for (unsigned i = 0; i < 2000; ++i) CHECK(file.read(i * 512, 512) == pattern(512, i));
}

TEST_CASE("structured and extended replies") {
  TempFile file(kSize);
  Rig rig(threads(1));
  REQUIRE(rig.install(0, single(), {&file}) == "");
  Terms terms;
  terms.structured = true;
  terms.contexts = {{3, ContextKind::allocation}, {4, ContextKind::state}};
  const Fd a = rig.connect(0, terms);
  REQUIRE(sendAll(a, request(kRead, 512, 1024, 5, kDontFragment)));
  Bytes reply = receive(a, 28 + 1024);
  REQUIRE(reply.size() == 1052);
  CHECK(loadBig<std::uint32_t>(reply.data() + 16) == 1032);
  CHECK(loadBig<std::uint64_t>(reply.data() + 20) == 512);
  REQUIRE(sendAll(a, request(kBlockStatus, 0, kSize, 6, kReqOne)));
  reply = receive(a, 64);
  REQUIRE(reply.size() == 64);
  CHECK(loadBig<std::uint32_t>(reply.data() + 20) == 4);
  CHECK(loadBig<std::uint32_t>(reply.data() + 24) == kSize);
  CHECK(loadBig<std::uint32_t>(reply.data() + 52) == 3);
  CHECK(loadBig<std::uint32_t>(reply.data() + 56) <= kSize);

  terms.extended = true;
  const Fd b = rig.connect(0, terms);
  REQUIRE(sendAll(b, request(kWrite, 0, 512, 7, kPayloadLength, true) + pattern(512, 2)));
  reply = receive(b, 32);
  REQUIRE(reply.size() == 32);
  CHECK(loadBig<std::uint32_t>(reply.data()) == kExtendedReplyMagic);
  CHECK(file.read(0, 512) == pattern(512, 2));
  REQUIRE(sendAll(b, request(kTrim, 0, 1ULL << 40U, 8, 0, true)));
  reply = receive(b, 32 + 6);
  REQUIRE(reply.size() == 38);
  CHECK(loadBig<std::uint16_t>(reply.data() + 6) == kError);
}

TEST_CASE("a client that does not read stops only itself") {
  TempFile file(kSize);
  Rig rig(threads(1));
  REQUIRE(rig.install(0, single(), {&file}) == "");
  const Fd lazy = rig.connect(0);
  const Fd busy = rig.connect(0);
  std::thread flood([&] {
    for (unsigned i = 0; i < 500; ++i) {
      if (!sendAll(lazy, request(kRead, 0, 1U << 20U, i))) break;
    }
  });
  for (unsigned i = 0; i < 200; ++i) CHECK(call(busy, request(kRead, 0, 4096, i), 4096) == 0);
  for (unsigned i = 0; i < 500; ++i) {
    CHECK(simpleReply(lazy).error == 0);
    CHECK(receive(lazy, 1U << 20U).size() == 1U << 20U);
  }
  flood.join();
}

TEST_CASE("clients that vanish leave nothing behind") {
  TempFile file(kSize);
  Rig rig(threads(2));
  REQUIRE(rig.install(0, single(), {&file}) == "");
  for (unsigned i = 0; i < 100; ++i) {
    const Fd client = rig.connect(0);
    Bytes many;
    for (unsigned k = 0; k < 50; ++k) many = many + request(kRead, 0, 65536, k);
    if (i % 3 == 0) many = many + request(kWrite, 0, 4096, 1);  // payload never comes
    const ssize_t n = ::send(client.get(), many.data(), many.size(), MSG_NOSIGNAL);
    CHECK(n > 0);
  }
  const auto connections = [&] { return rig.engine->counters(0)[static_cast<std::size_t>(Counter::connections)]; };
  CHECK(rig.wait([&] { return connections() == 0; }));
  const Fd after = rig.connect(0);
  CHECK(call(after, request(kRead, 0, 4096, 1), 4096) == 0);
}

TEST_CASE("plans are swapped under load without an error or a lost write") {
  for (const bool mirror : {false, true}) {
    CAPTURE(mirror);
    TempFile one(kSize);
    TempFile two(kSize);
    Rig rig(threads(2));
    PlanBytes plan = single();
    std::vector<const TempFile*> files{&one};
    if (mirror) {
      plan.mirror = true;
      plan.children = 2;
      files.push_back(&two);
    }
    REQUIRE(rig.install(3, plan, files) == "");
    const Fd a = rig.connect(3);
    std::atomic<bool> stop{false};
    std::atomic<unsigned> done{0};
    std::atomic<std::uint32_t> failed{0};
    std::thread load([&] {
      for (unsigned i = 0; !stop; ++i) {
        Bytes batch;
        for (unsigned k = 0; k < 16; ++k)
          batch = batch + request(kWrite, ((i * 16 + k) % 1024) * 4096, 4096, k) + pattern(4096, i * 16 + k);
        sendAll(a, batch);
        for (unsigned k = 0; k < 16; ++k) {
          const std::uint32_t error = simpleReply(a).error;
          if (error != 0) failed = error;
          if (error != 0) return;
        }
        done = (i + 1) * 16;
      }
    });
    while (done == 0 && failed == 0) std::this_thread::yield();
    for (std::uint64_t g = 2; g < 60; ++g) {
      plan.generation = g;
      CHECK(rig.install(3, plan, files) == "");
    }
    stop = true;
    load.join();
    CHECK(failed.load() == 0);
    CHECK(done.load() > 0);
    for (unsigned i = 0; i < std::min(done.load(), 1024U); ++i) {
      unsigned last = i;
      while (last + 1024 < done.load()) last += 1024;
      CHECK(one.read((i % 1024) * 4096, 4096) == pattern(4096, last));
      if (mirror) CHECK(two.read((i % 1024) * 4096, 4096) == pattern(4096, last));
    }
  }
}

TEST_CASE("refused plans change nothing") {
  TempFile file(kSize);
  Rig rig(threads(2));
  CHECK(rig.run([&](Engine::Done done) { rig.engine->install(0, Bytes(10), {}, {}, std::move(done)); }) != "");
  PlanBytes plan = single();
  CHECK(rig.install(0, plan, {}) == "component 0 is not among those given");
  plan.blocks = kBlocks;
  REQUIRE(rig.install(0, plan, {&file}) == "");
  const Fd a = rig.connect(0);
  plan.children = 2;
  CHECK(rig.install(0, plan, {&file}) != "");
  CHECK(call(a, request(kRead, 0, 4096, 1), 4096) == 0);
  CHECK(call(a, request(kRead, kSize, 512, 1)) == kEinval);
}

TEST_CASE("a plan may grow under its clients, and read-only plans refuse writes") {
  TempFile one(kSize);
  TempFile two(kSize);
  Rig rig(threads(2));
  PlanBytes plan = single();
  REQUIRE(rig.install(0, plan, {&one}) == "");
  const Fd a = rig.connect(0);
  CHECK(call(a, request(kWrite, kSize, 4096, 1) + pattern(4096, 1)) == kEnospc);
  plan.children = 2;
  plan.generation = 2;
  REQUIRE(rig.install(0, plan, {&one, &two}) == "");
  CHECK(call(a, request(kWrite, kSize, 4096, 1) + pattern(4096, 1)) == 0);
  CHECK(two.read(0, 4096) == pattern(4096, 1));
  plan.readOnly = true;
  REQUIRE(rig.install(0, plan, {&one, &two}) == "");
  CHECK(call(a, request(kWrite, 0, 4096, 1) + pattern(4096, 1)) == kEperm);
  CHECK(call(a, request(kRead, 0, 4096, 1), 4096) == 0);
}

TEST_CASE("removal answers what was accepted, closes the connections and the files") {
  TempFile file(kSize);
  Rig rig(threads(2));
  REQUIRE(rig.install(0, single(), {&file}) == "");
  const Fd a = rig.connect(0);
  const std::uint32_t id = rig.lastConnection;
  const Fd lazy = rig.connect(0);
  CHECK(call(a, request(kRead, 0, 4096, 1), 4096) == 0);
  for (unsigned i = 0; i < 16; ++i) sendAll(lazy, request(kRead, 0, 1U << 20U, i));
  CHECK(rig.run([&](Engine::Done done) { rig.engine->remove(0, std::move(done)); }) == "");
  CHECK(receive(a, 1).empty());
  CHECK(rig.sawClosed(id));
  std::string error;
  CHECK(rig.engine->adopt(a.get(), 0, {}, {}, error) == 0);
  CHECK(rig.run([&](Engine::Done done) { rig.engine->remove(0, std::move(done)); }) == "");
  REQUIRE(rig.install(0, single(), {&file}) == "");
  const Fd b = rig.connect(0);
  CHECK(call(b, request(kRead, 0, 4096, 1), 4096) == 0);
}

TEST_CASE("disconnect now and by draining; flush; stop twice") {
  TempFile file(kSize);
  Rig rig(threads(2));
  REQUIRE(rig.install(0, single(), {&file}) == "");
  for (const bool now : {true, false}) {
    const Fd a = rig.connect(0);
    CHECK(call(a, request(kRead, 0, 4096, 1), 4096) == 0);
    rig.engine->disconnect(rig.lastConnection, now);
    CHECK(receive(a, 1).empty());
    CHECK(rig.sawClosed(rig.lastConnection));
  }
  CHECK(rig.run([&](Engine::Done done) { rig.engine->flush(0, std::move(done)); }) == "");
  CHECK(rig.run([&](Engine::Done done) { rig.engine->flush(9, std::move(done)); }) != "");
  const Fd open = rig.connect(0);
  sendAll(open, request(kRead, 0, 4096, 1) + request(kWrite, 0, 4096, 2));
  CHECK(rig.run([&](Engine::Done done) { rig.engine->stop(std::move(done)); }) == "");
  CHECK(rig.run([&](Engine::Done done) { rig.engine->stop(std::move(done)); }) == "");
  CHECK(rig.install(0, single(), {&file}) == "the engine is stopped");
}

TEST_CASE("a file that lost its end is an I/O error and an event, not zeroes") {
  TempFile file(kSize);
  Rig rig(threads(1));
  REQUIRE(rig.install(0, single(), {&file}) == "");
  const Fd a = rig.connect(0);
  REQUIRE(::ftruncate(file.plain.get(), 8192) == 0);
  CHECK(call(a, request(kRead, 4096, 4096, 1), 4096) == 0);
  CHECK(call(a, request(kRead, 16384, 4096, 2)) == kEio);
  CHECK(call(a, request(kRead, 20480, 4096, 3)) == kEio);
  CHECK(rig.wait([&] { return !rig.events.empty(); }));
  CHECK(rig.events[0].kind == EngineEvent::Kind::componentError);
  CHECK(rig.events[0].op == ComponentOp::read);
  CHECK(rig.events[0].error == EIO);
}

TEST_CASE("a mirror is copied onto a new side while clients write") {
  TempFile one(kSize);
  TempFile two(kSize);
  const Bytes before = pattern(kSize, 77);
  REQUIRE(::pwrite(one.plain.get(), before.data(), kSize, 0) == static_cast<ssize_t>(kSize));
  Rig rig(threads(2));
  PlanBytes plan = single();
  plan.mirror = true;
  plan.children = 2;
  REQUIRE(rig.install(1, plan, {&one, &two}) == "");
  const Fd a = rig.connect(1);
  ResyncJob job;
  job.job = 42;
  job.target = 1;
  job.bufferBlocks = 128;
  rig.engine->resync(1, job);
  for (unsigned i = 0; i < 200; ++i) {
    CHECK(call(a, request(kWrite, (i * 37 % 1000) * 4096, 4096, i) + pattern(4096, i)) == 0);
  }
  CHECK(rig.wait([&] {
    for (const auto& e : rig.events) {
      if (e.kind == EngineEvent::Kind::resyncEnded) return e.job == 42 && e.outcome == ResyncOutcome::done;
    }
    return false;
  }));
  CHECK(one.read(0, kSize) == two.read(0, kSize));
  rig.engine->resync(9, job);
  rig.events.clear();
  CHECK(rig.wait([&] { return !rig.events.empty(); }));
  CHECK(rig.events[0].outcome == ResyncOutcome::failed);
}

TEST_CASE("RAID5: many clients write, the columns add up, and a replay comes before the next client") {
  constexpr std::uint64_t size = (kBlocks - 400) / 64 * 64 * 3 * 512;
  std::vector<std::unique_ptr<TempFile>> files;
  std::vector<const TempFile*> given;
  for (int i = 0; i < 4; i++) given.push_back(files.emplace_back(std::make_unique<TempFile>(kSize)).get());
  Rig rig(threads(2));
  PlanBytes plan = single();
  plan.children = 4;
  plan.raid5 = true;
  REQUIRE(rig.install(0, plan, given) == "");
  const Fd a = rig.connect(0);
  const Fd b = rig.connect(0);
  const Bytes big = pattern(1U << 20U, 1);
  const Bytes odd = pattern(70001, 2);
  CHECK(call(a, request(kWrite, 0, big.size(), 1) + big) == 0);
  CHECK(call(b, request(kWrite, size - odd.size(), odd.size(), 2, kFua) + odd) == 0);
  CHECK(call(a, request(kWriteZeroes, 5000, 100000, 3)) == 0);
  CHECK(call(a, request(kFlush, 0, 0, 4)) == 0);
  const auto holds = [&](const Fd& client) {
    Bytes wanted = big;
    std::fill_n(wanted.begin() + 5000, 100000, std::byte{0});
    Bytes got;
    CHECK(call(client, request(kRead, 0, big.size(), 5), big.size(), &got) == 0);
    CHECK(got == wanted);
    CHECK(call(client, request(kRead, size - odd.size(), odd.size(), 6), odd.size(), &got) == 0);
    CHECK(got == odd);
  };
  holds(b);
  CHECK(call(b, request(kRead, size, 1, 7)) == kEinval);
  REQUIRE(rig.run([&](Engine::Done done) { rig.engine->remove(0, std::move(done)); }) == "");
  Bytes sum(kSize - 400 * 512);
  for (const TempFile* file : given) {
    const Bytes data = file->read(400 * 512, sum.size());
    for (std::size_t i = 0; i < sum.size(); i++) sum[i] ^= data[i];
  }
  CHECK(sum == Bytes(sum.size()));

  // Served only under the next epoch.
  plan.replay = true;
  plan.generation++;
  REQUIRE(rig.install(0, plan, given) == "");
  const Fd c = rig.connect(0);
  const auto told = [&] {
    return std::count_if(rig.events.begin(), rig.events.end(), [](const EngineEvent& event) {
      return event.kind == EngineEvent::Kind::replayed && event.error == 0 && event.generation == 2;
    });
  };
  CHECK(rig.wait([&] { return told() == 1; }));
  CHECK(sendAll(c, request(kRead, 0, 512, 8)));
  plan.replay = false;
  plan.generation++;
  plan.epoch++;
  REQUIRE(rig.install(0, plan, given) == "");
  CHECK(simpleReply(c).error == 0);
  CHECK(receive(c, 512) == Bytes(big.begin(), big.begin() + 512));
  holds(c);
}
