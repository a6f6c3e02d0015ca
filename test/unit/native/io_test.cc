// Component I/O below the volumes: claims on ranges, failed syncs, limits, zeroes.
#include "io_rig.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

unsigned granted = 0;

RangeClaim claimOf(std::uint64_t start, std::uint64_t end, bool exclusive) {
  RangeClaim claim;
  claim.start = start;
  claim.end = end;
  claim.exclusive = exclusive;
  claim.granted = [](RangeClaim&) noexcept { ++granted; };
  return claim;
}

}  // namespace

TEST_CASE("plain writers share, a read-modify-write has its range alone, and nobody overtakes it") {
  RangeLock lock;
  granted = 0;
  RangeClaim a = claimOf(0, 4096, false);
  RangeClaim b = claimOf(0, 4096, false);
  RangeClaim cycle = claimOf(2048, 8192, true);
  RangeClaim late = claimOf(0, 4096, false);
  RangeClaim apart = claimOf(8192, 12288, true);
  CHECK(lock.claim(a));
  CHECK(lock.claim(b));
  CHECK_FALSE(lock.claim(cycle));
  CHECK_FALSE(lock.claim(late));
  CHECK(lock.claim(apart));
  lock.release(a);
  CHECK(granted == 0);
  lock.release(b);
  CHECK(granted == 1);
  CHECK(cycle.held);
  CHECK_FALSE(late.held);
  lock.release(cycle);
  CHECK(granted == 2);
  CHECK(late.held);
  lock.release(late);
  lock.release(apart);
}

TEST_CASE("nothing happens outside the component, and a short file is an error") {
  for (const bool workers : {false, true}) {
    CAPTURE(workers);
    Backed b(workers);
    Bytes data = pattern(8192, 1);
    CHECK(b.run(IoOp::write, (1 << 20) - 4096, 8192, data.data()) == -EIO);
    CHECK(b.run(IoOp::read, UINT64_MAX - 100, 4096, data.data()) == -EIO);
    CHECK(::lseek(b.file.plain.get(), 0, SEEK_END) == 1 << 20);
    REQUIRE(::ftruncate(b.file.plain.get(), 5000) == 0);
    CHECK(b.run(IoOp::read, 4096, 4096, data.data()) == -EIO);
    CHECK(b.run(IoOp::read, 0, 4096, data.data()) == 0);
    // Inside the component the file may grow back.
    CHECK(b.run(IoOp::write, 65537, 777, data.data()) == 0);
    CHECK(b.run(IoOp::read, 65537, 777, data.data() + 1000) == 0);
    CHECK(std::memcmp(data.data(), data.data() + 1000, 777) == 0);
  }
}

TEST_CASE("zero and discard") {
  for (const bool workers : {false, true}) {
    CAPTURE(workers);
    Backed b(workers);
    Bytes data = pattern(65536, 3);
    CHECK(b.run(IoOp::write, 0, data.size(), data.data()) == 0);
    CHECK(b.run(IoOp::zero, 1000, 30000, nullptr, true) == 0);
    std::fill(data.begin() + 1000, data.begin() + 31000, std::byte{});
    CHECK(b.file.read(0, data.size()) == data);
    CHECK(b.run(IoOp::discard, 0, 4096) == 0);
    CHECK(b.file.read(4096, data.size() - 4096) == Bytes(data.begin() + 4096, data.end()));
    CHECK(b.run(IoOp::cache, 0, 1 << 20) == 0);
  }
}

TEST_CASE("the buffer pool keeps its limit and reuses what it has") {
  BufferPool pool(64 * 1024);
  std::byte* const a = pool.acquire(5000);
  REQUIRE(a != nullptr);
  CHECK(reinterpret_cast<std::uintptr_t>(a) % 4096 == 0);
  CHECK(pool.lent() == 8192);
  CHECK(pool.acquire(65536) == nullptr);
  pool.release(a, 5000);
  CHECK(pool.acquire(8192) == a);
  pool.release(a, 8192);
  CHECK(pool.kept() == 8192);
  std::byte* const all = pool.acquire(65536);  // the kept one makes room
  CHECK(all != nullptr);
  CHECK(pool.kept() == 0);
  CHECK(pool.acquire(1) == nullptr);
  pool.release(all, 65536);
  CHECK(pool.acquire(std::size_t{1} << 40U) == nullptr);
}

TEST_CASE("a list of buffers moves as its entries say, through the ring, the workers and the bounce buffer") {
  for (const bool workers : {false, true}) {
    for (const bool direct : {false, true}) {
      CAPTURE(workers);
      CAPTURE(direct);
      Backed backed(workers);
      // Pieces that are neither aligned nor in order in memory: a contiguous reading of any of them shows.
      std::vector<std::byte> memory(8192);
      for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<std::byte>(i * 7 + i / 256);
      const std::vector<iovec> list{
          {memory.data() + 4096, 700}, {memory.data() + 100, 1000}, {memory.data() + 6000, 348}};
      std::vector<std::byte> wanted;
      for (const iovec& v : list) {
        const auto* const from = static_cast<const std::byte*>(v.iov_base);
        wanted.insert(wanted.end(), from, from + v.iov_len);
      }
      backed.component.direct = direct;  // odd sizes then go through the bounce buffer
      const auto transfer = [&](IoOp op, const std::vector<iovec>& with) {
        Flight io;
        io.op = op;
        io.file = &backed.component;
        io.offset = 512;
        io.length = wanted.size();
        io.iov = with.data();
        io.iovCount = static_cast<std::uint32_t>(with.size());
        backed.start(io);
        return backed.wait(io);
      };
      CHECK(transfer(IoOp::write, list) == 0);
      std::vector<std::byte> flat(wanted.size());
      CHECK(::pread(backed.file.fd.get(), flat.data(), flat.size(), 512) == static_cast<ssize_t>(flat.size()));
      CHECK(flat == wanted);
      std::vector<std::byte> back(wanted.size());
      CHECK(transfer(IoOp::read, {{back.data() + 1500, 548}, {back.data(), 1500}}) == 0);
      std::vector<std::byte> turned(wanted.begin() + 548, wanted.end());
      turned.insert(turned.end(), wanted.begin(), wanted.begin() + 548);
      CHECK(back == turned);
    }
  }
}

TEST_CASE("more calls than a component has threads all come back, to the backend that made them") {
  Backed one(false);
  one.component.fileSystem = FileSystem::unknown;
  one.component.nowait = false;
  one.component.workers = std::make_unique<Workers>(3);
  Turner other(false);
  Bytes data = pattern(4096, 5);
  CHECK(one.run(IoOp::write, 0, data.size(), data.data()) == 0);
  std::vector<Flight> flights(200);
  std::vector<Bytes> into(flights.size(), Bytes(512));
  for (std::size_t i = 0; i < flights.size(); ++i) {
    flights[i].file = &one.component;
    flights[i].offset = i % 8 * 512;
    flights[i].length = 512;
    flights[i].data = into[i].data();
    (i % 2 == 0 ? one.backend : other.backend).start(flights[i]);
  }
  CHECK(one.backend.inFlight() == flights.size() / 2);
  for (std::size_t i = 0; i < flights.size(); ++i) {
    CHECK((i % 2 == 0 ? one : other).wait(flights[i]) == 0);
    const auto from = data.begin() + static_cast<std::ptrdiff_t>(flights[i].offset);
    CHECK(std::equal(into[i].begin(), into[i].end(), from));
  }
}

TEST_CASE("what goes aside is not done by the thread that starts it, and is done all the same") {
  for (const char* directory : {"/dev/shm", "/var/tmp"}) {
    CAPTURE(directory);
    Backed b(false, 1 << 20, directory);
    if (!b.backend.ringed()) return;
    Bytes out = pattern(65536, 3);
    Bytes in(65536);
    const auto aside = [&](IoOp op, std::byte* data) {
      Flight io;
      io.op = op;
      io.aside = true;
      io.file = &b.component;
      io.offset = 4096;
      io.length = 65536;
      io.data = data;
      b.start(io);
      CHECK_FALSE(io.done);
      CHECK(b.wait(io) == 0);
    };
    aside(IoOp::write, out.data());
    aside(IoOp::read, in.data());
    CHECK(in == out);
  }
}

TEST_CASE("what is one of many is done by helpers, or at once, and its owner is woken for all of it") {
  constexpr std::size_t kMany = 300;
  for (const char* directory : {"/dev/shm", "/var/tmp"}) {
    for (const unsigned helpers : {0U, 1U, 3U}) {
      CAPTURE(directory);
      CAPTURE(helpers);
      TempFile file(kMany * 8192, directory);
      ComponentFile component;
      ComponentSpec spec;
      spec.fd = file.fd.get();
      spec.size = kMany * 8192;
      REQUIRE(openComponent(spec, component) == "");
      Mailbox home;
      UringBackend backend(home, UringOptions{64, false, helpers});
      const Bytes out = pattern(kMany * 8192, 11);
      Bytes in(out.size());
      const auto all = [&](IoOp op, const std::byte* data) {
        std::vector<Flight> flights(kMany);
        std::vector<std::array<iovec, 2>> lists(kMany);
        for (std::size_t i = 0; i < kMany; ++i) {
          const std::size_t at = i * 7 % kMany * 8192;
          auto* const from = const_cast<std::byte*>(data) + at;
          lists[i] = {iovec{from, 4096}, iovec{from + 4096, 4096}};
          flights[i].op = op;
          flights[i].bulk = true;
          flights[i].file = &component;
          flights[i].offset = at;
          flights[i].length = 8192;
          flights[i].data = from;
          if (i % 2 != 0) flights[i].iov = lists[i].data();
          if (i % 2 != 0) flights[i].iovCount = 2;
          backend.start(flights[i]);
        }
        if (helpers == 0) CHECK(backend.inFlight() == 0);
        backend.submit();
        // As its thread does: asleep until it is woken.
        while (backend.inFlight() != 0) {
          pollfd woken{home.fd(), POLLIN, 0};
          const int n = ::poll(&woken, 1, component.memory() ? 60'000 : 1);  // elsewhere a read may be the ring's
          if (component.memory()) REQUIRE(n == 1);
          home.run();
          backend.poll();
        }
        for (const Flight& flight : flights) {
          CHECK(flight.done);
          CHECK(flight.result == 0);
        }
      };
      all(IoOp::write, out.data());
      CHECK(file.read(0, out.size()) == out);
      all(IoOp::read, in.data());
      CHECK(in == out);
    }
  }
}

TEST_CASE("pieces from all over a component go in one Io, by helpers or at once") {
  constexpr std::uint64_t kPages = 60;
  for (const unsigned helpers : {0U, 1U, 3U}) {
    for (const bool bulk : {false, true}) {
      CAPTURE(helpers);
      CAPTURE(bulk);
      TempFile file(kPages * 4096, "/dev/shm");
      ComponentFile component;
      ComponentSpec spec;
      spec.fd = file.fd.get();
      spec.size = kPages * 4096;
      REQUIRE(openComponent(spec, component) == "");
      Mailbox home;
      UringBackend backend(home, UringOptions{64, false, helpers});
      REQUIRE(backend.scatters(component));
      const auto go = [&](IoOp op, Bytes& data, std::uint64_t beyond = 0) {
        std::array<iovec, kPages> list;
        std::array<std::uint64_t, kPages> offsets;
        for (std::uint64_t i = 0; i < kPages; i++) {
          // Some are neighbours, rising or falling; some of half a page.
          const std::uint64_t page = i < 10 ? i : i < 20 ? 29 - i : 20 + (i - 20) * 7 % 40;
          offsets[i] = page * 4096 + (page == 33 ? 2048 : 0);
          list[i] = {data.data() + offsets[i], page == 33 ? 2048U : 4096U};
        }
        offsets[41] += beyond;
        Flight flight;
        flight.op = op;
        flight.file = &component;
        flight.bulk = bulk;
        flight.offset = UINT64_MAX;
        flight.iov = list.data();
        flight.iovCount = kPages;
        flight.offsets = offsets.data();
        flight.length = kPages * 4096 - 2048;
        backend.start(flight);
        if (!bulk || helpers == 0 || beyond != 0) CHECK(flight.done);
        backend.submit();
        while (backend.inFlight() != 0) {
          pollfd woken{home.fd(), POLLIN, 0};
          REQUIRE(::poll(&woken, 1, 60'000) == 1);
          home.run();
          backend.poll();
        }
        CHECK(flight.done);
        return flight.result;
      };
      const Bytes before = file.read(0, kPages * 4096);
      Bytes out = pattern(kPages * 4096, 12);
      CHECK(go(IoOp::write, out, kPages * 4096) == -EIO);
      CHECK(file.read(0, before.size()) == before);
      CHECK(go(IoOp::write, out) == 0);
      std::copy_n(before.begin() + 33 * 4096, 2048, out.begin() + 33 * 4096);
      CHECK(file.read(0, out.size()) == out);
      Bytes in(out.size());
      CHECK(go(IoOp::read, in) == 0);
      std::copy_n(out.begin() + 33 * 4096, 2048, in.begin() + 33 * 4096);
      CHECK(in == out);
      // What is short is an error, wherever it is.
      REQUIRE(::ftruncate(file.fd.get(), 59 * 4096) == 0);
      CHECK(go(IoOp::read, in) == -EIO);
    }
  }
}
