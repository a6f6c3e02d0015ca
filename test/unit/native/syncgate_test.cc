// Promise P1 at its root: a sync or stable write is answered with success only when no data was lost.
#include <linux/magic.h>
#include <signal.h>
#include <sys/resource.h>

#include "io_rig.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

unsigned granted = 0;

SyncTurn turnOf() {
  SyncTurn turn;
  turn.granted = [](SyncTurn&) noexcept { ++granted; };
  return turn;
}

Flight stable(ComponentFile& file, IoOp op, std::byte* data) {
  Flight io;
  io.op = op;
  io.fua = op != IoOp::sync;
  io.file = &file;
  io.length = op == IoOp::sync ? 0 : 4096;
  io.data = data;
  return io;
}

// Files may end at `bytes` while it lives.
class SizeLimit {
 public:
  explicit SizeLimit(rlim_t bytes) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit now{bytes, before_.rlim_max};
    CHECK(::setrlimit(RLIMIT_FSIZE, &now) == 0);
  }
  ~SizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, SIG_DFL);
  }
  SizeLimit(const SizeLimit&) = delete;
  SizeLimit& operator=(const SizeLimit&) = delete;

 private:
  rlimit before_{};
};

}  // namespace

TEST_CASE("a turn ends when those it ran beside have ended, and waits for no later one") {
  SyncGate gate;
  granted = 0;
  SyncTurn alone = turnOf();
  gate.begin(alone);
  CHECK(gate.end(alone, false));

  SyncTurn a = turnOf();
  SyncTurn b = turnOf();
  SyncTurn c = turnOf();
  SyncTurn later = turnOf();
  gate.begin(a);
  gate.begin(b);
  CHECK_FALSE(gate.end(b, false));  // a may have been told what b was not
  gate.begin(c);
  CHECK_FALSE(gate.end(c, false));
  gate.begin(later);
  CHECK(granted == 0);
  CHECK(gate.end(a, true));  // a failure has nothing to wait for
  CHECK(granted == 2);
  CHECK(gate.end(later, false));
  CHECK(granted == 2);
}

TEST_CASE("a steady stream of syncs holds none of them up") {
  SyncGate gate;
  granted = 0;
  std::vector<SyncTurn> turns(64, turnOf());
  for (std::size_t i = 0; i < 4; ++i) gate.begin(turns[i]);
  for (std::size_t i = 0; i + 4 < turns.size(); ++i) {
    CHECK_FALSE(gate.end(turns[i], false));
    gate.begin(turns[i + 4]);
    CHECK(granted == (i < 3 ? 0 : i - 2));
  }
}

TEST_CASE("a sync that went well beside one that failed is not believed") {
  for (const bool workers : {false, true}) {
    for (const IoOp lucky : {IoOp::sync, IoOp::write, IoOp::zero}) {
      for (const IoOp unlucky : {IoOp::sync, IoOp::write}) {
        CAPTURE(workers);
        CAPTURE(static_cast<int>(lucky));
        CAPTURE(static_cast<int>(unlucky));
        Backed one(workers);
        Turner other(workers);
        Bytes data = pattern(4096, 1);
        // The first thread's call fails in the kernel, and the thread has not heard of it yet.
        Fd good = std::move(one.component.fd);
        one.component.fd = unlucky == IoOp::sync ? unsyncable() : Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        Flight failing = stable(one.component, unlucky, data.data());
        one.start(failing);
        ::usleep(20'000);  // a worker takes the descriptor with the call; the call itself may come later
        Fd bad = std::exchange(one.component.fd, std::move(good));
        Flight passing = stable(one.component, lucky, data.data());
        other.start(passing);
        for (int i = 0; i < 200 && !passing.done; ++i) {
          other.turn();
          ::usleep(500);
        }
        CHECK_FALSE(passing.done);
        CHECK(one.wait(failing) < 0);
        CHECK(other.wait(passing) == -EIO);
        CHECK(one.run(IoOp::sync, 0, 0) == -EIO);
      }
    }
  }
}

TEST_CASE("syncs that all go well are all answered so, on every thread") {
  for (const bool workers : {false, true}) {
    Backed one(workers);
    Turner other(workers);
    Bytes data = pattern(4096, 1);
    for (int round = 0; round < 20; ++round) {
      Flight a = stable(one.component, IoOp::sync, nullptr);
      Flight b = stable(one.component, IoOp::write, data.data());
      Flight c = stable(one.component, IoOp::sync, nullptr);
      one.start(a);
      other.start(b);
      other.start(c);
      for (int i = 0; i < 100'000 && !(a.done && b.done && c.done); ++i) {
        one.turn();
        other.turn();
        ::usleep(50);
      }
      REQUIRE((a.done && b.done && c.done));
      CHECK(a.result + b.result + c.result == 0);
    }
  }
}

TEST_CASE("a failed sync stays failed, also for writes that promise to be stable") {
  for (const bool workers : {false, true}) {
    CAPTURE(workers);
    Backed b(workers);
    Bytes data = pattern(4096, 1);
    CHECK(b.run(IoOp::sync, 0, 0) == 0);
    CHECK(b.run(IoOp::write, 0, 4096, data.data(), true) == 0);
    b.component.syncFailed = true;
    CHECK(b.run(IoOp::sync, 0, 0) == -EIO);
    CHECK(b.run(IoOp::write, 0, 4096, data.data(), true) == -EIO);
    CHECK(b.run(IoOp::zero, 0, 4096, nullptr, true) == -EIO);
    CHECK(b.run(IoOp::write, 4096, 4096, data.data()) == 0);
  }
}

TEST_CASE("the failure of a sync itself is what makes it stay") {
  for (const bool workers : {false, true}) {
    CAPTURE(workers);
    Backed b(workers);
    b.component.fd = unsyncable();
    CHECK(b.run(IoOp::sync, 0, 0) < 0);
    b.component.fd = Fd::duplicate(b.file.fd.get());
    CHECK(b.run(IoOp::sync, 0, 0) == -EIO);
  }
}

TEST_CASE("a stable write that fails makes it stay, whichever way it went") {
  for (const bool workers : {false, true}) {
    for (const char* directory : {"/var/tmp", "/dev/shm"}) {
      for (const std::uint64_t odd : {0, 100}) {
        CAPTURE(workers);
        CAPTURE(std::string(directory));
        CAPTURE(odd);
        Backed b(workers, 1 << 20, directory);
        b.component.direct = odd != 0;  // odd offsets then go through the bounce buffer
        b.component.align = odd != 0 ? 512 : 1;
        Bytes data = pattern(4096, 1);
        const std::string self = "/proc/self/fd/" + std::to_string(b.file.fd.get());
        b.component.fd = Fd(::open(self.c_str(), O_RDONLY | O_CLOEXEC));
        CHECK(b.run(IoOp::write, odd, 4096, data.data()) < 0);
        CHECK_FALSE(b.component.syncFailed.load());  // nobody was promised anything
        CHECK(b.run(IoOp::write, odd, 4096, data.data(), true) < 0);
        CHECK(b.component.syncFailed.load());
      }
    }
  }
}

TEST_CASE("no room for a stable write is forgotten only when the witness lost nothing") {
  for (const bool workers : {false, true}) {
    for (const std::string witness : {"content", "alarmed", "missing"}) {
      CAPTURE(workers);
      CAPTURE(witness);
      const bool witnessed = witness == "content";
      Backed b(workers);
      REQUIRE(b.component.witness);
      if (witness == "alarmed") b.component.witness = unsyncable();
      if (witness == "missing") b.component.witness = Fd();
      Bytes data = pattern(4096, 1);
      {
        const SizeLimit limit(65536);
        CHECK(b.run(IoOp::write, 131072, 4096, data.data(), true) == -EFBIG);
      }
      CHECK(b.run(IoOp::sync, 0, 0) == (witnessed ? 0 : -EIO));
      CHECK(b.run(IoOp::write, 131072, 4096, data.data(), true) == (witnessed ? 0 : -EIO));
    }
  }
}

TEST_CASE("only file systems known to be local are written inline or trusted with RWF_DSYNC") {
  CHECK(fileSystemOf(TMPFS_MAGIC) == FileSystem::memory);
  for (const unsigned long magic : {0xef53UL, 0x58465342UL, 0x9123683eUL}) {
    CHECK(fileSystemOf(magic) == FileSystem::local);
  }
  for (const unsigned long magic : {0x65735546UL /* fuse */, 0x6969UL /* nfs */, 0x01021997UL /* 9p */,
                                    0xff534d42UL /* cifs */, 0x794c7630UL /* overlay */, 0UL, ~0UL}) {
    CHECK(fileSystemOf(magic) == FileSystem::unknown);
  }
  ComponentFile file;
  file.fileSystem = FileSystem::unknown;
  CHECK_FALSE(file.writesInline());
  CHECK_FALSE(file.dsync());
  CHECK_FALSE(file.memory());
  file.blockDevice = true;
  CHECK_FALSE(file.writesInline());
  CHECK(file.dsync());
  file.blockDevice = false;
  file.fileSystem = FileSystem::local;
  CHECK(file.writesInline());
  file.direct = true;
  CHECK_FALSE(file.writesInline());
}

TEST_CASE("on an unknown file system a write leaves the thread at once, and a stable one is followed by a sync") {
  for (const bool workers : {false, true}) {
    CAPTURE(workers);
    Backed b(workers);
    b.component.fileSystem = FileSystem::unknown;
    b.component.workers = std::make_unique<Workers>(2);
    Bytes data = pattern(4096, 1);
    Flight plain = stable(b.component, IoOp::write, data.data());
    plain.fua = false;
    b.backend.start(plain);
    CHECK_FALSE(plain.done);
    CHECK(b.wait(plain) == 0);
    CHECK(b.file.read(0, 4096) == data);
    CHECK(b.run(IoOp::write, 0, 4096, data.data(), true) == 0);
    // Takes every write and refuses every sync: the failure shows that a sync was asked for.
    b.component.fd = Fd(::open("/dev/null", O_RDWR | O_CLOEXEC));
    CHECK(b.run(IoOp::write, 0, 4096, data.data()) == 0);
    CHECK(b.run(IoOp::write, 0, 4096, data.data(), true) < 0);
    CHECK(b.component.syncFailed.load());
  }
}
