// Time limits of a real backend: a pipe that nobody writes to is a disk that hangs.
#include <algorithm>
#include <memory>
#include <vector>

#include "io_rig.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

struct Hanging {
  explicit Hanging(bool direct) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    writer = Fd(ends[1]);
    file->fd = Fd(ends[0]);
    file->size = 1 << 20;
    file->nowait = false;
    file->direct = direct;
    file->align = direct ? 512 : 1;
    file->limitNanos = kSecond;
  }
  std::shared_ptr<ComponentFile> file = std::make_shared<ComponentFile>();
  Fd writer;
};

struct Read : Flight {
  Read(ComponentFile& from, std::uint64_t at, std::uint64_t bytes) {
    op = IoOp::read;
    file = &from;
    offset = at;
    length = bytes;
    data = static_cast<std::byte*>(std::aligned_alloc(4096, 8192));
    std::memset(data, 0x11, 8192);
  }
};

// Until everything has come back.
void settle(Turner& t) {
  for (int i = 0; t.backend.inFlight() != 0 && i < 100'000; ++i) {
    t.turn();
    ::usleep(100);
  }
  REQUIRE(t.backend.inFlight() == 0);
}

}  // namespace

TEST_CASE("limits: what the ring does not answer is given up, kept until it comes back, and its file with it") {
  Turner t(false);
  if (!t.backend.ringed()) return;
  Hanging pipe(false);
  t.backend.setTime(kSecond);
  CHECK(t.backend.wakeAt() == UINT64_MAX);
  Read first(*pipe.file, 0, 4096);
  t.start(first);
  t.backend.setTime(kSecond + kSecond / 2);
  Read second(*pipe.file, 4096, 6144);
  const iovec list[] = {{second.data + 6144, 2048}, {second.data, 4096}};
  second.iov = list;
  second.iovCount = 2;
  t.start(second);
  CHECK(t.backend.wakeAt() < 2 * kSecond);
  t.turn();
  CHECK(!first.done);
  t.backend.setTime(2 * kSecond + kSecond / 4);
  t.backend.poll();
  for (const Read* read : {&first, &second}) {
    CHECK(read->done);
    CHECK(read->result == -ETIMEDOUT);
    CHECK(read->held);
    CHECK(t.backend.held().holds(read->data, 1));
  }
  // What lies between its pieces is somebody else's.
  CHECK(t.backend.held().holds(second.data + 6144, 2048));
  CHECK(!t.backend.held().holds(second.data + 4096, 2048));
  CHECK(t.backend.abandoned() == 2);
  CHECK(pipe.file->abandoned == 2);
  CHECK(t.run(*pipe.file, IoOp::sync, 0, 0) == -ETIMEDOUT);
  for (const Read* read : {&first, &second}) t.backend.held().retire(read->data, 8192);
  CHECK(t.backend.held().retiredBytes() == 2 * 8192);
  const std::weak_ptr<ComponentFile> alive = pipe.file;
  pipe.file.reset();
  CHECK(!alive.expired());
  settle(t);
  CHECK(alive.expired());
  CHECK(t.backend.abandoned() == 0);
  CHECK(t.backend.held().retiredBytes() == 0);
}

TEST_CASE("limits: bounce buffers that a component holds are replaced, and those who waited for one are not late") {
  Turner t(false);
  if (!t.backend.ringed()) return;
  const TempFile healthy(1 << 20, "/var/tmp", O_DIRECT);
  if (!healthy.fd) return;
  ComponentSpec spec;
  spec.fd = healthy.fd.get();
  spec.direct = true;
  spec.size = 1 << 20;
  spec.timeoutMillis = 1000;
  ComponentFile good;
  REQUIRE(openComponent(spec, good) == "");
  REQUIRE(::pwrite(healthy.plain.get(), pattern(4096, 3).data(), 4096, 0) == 4096);
  Hanging pipe(true);
  t.backend.setTime(kSecond);
  std::vector<std::unique_ptr<Read>> hung;
  for (unsigned i = 0; i < 24; ++i) {
    hung.push_back(std::make_unique<Read>(*pipe.file, i * 4096 + 1, 100));
    t.start(*hung.back());
  }
  Read waits(good, 1, 1000);
  t.start(waits);
  t.turn();
  CHECK(!waits.done);
  t.backend.setTime(2 * kSecond + kSecond / 4);
  CHECK(t.wait(waits) == 0);
  CHECK(std::memcmp(waits.data, pattern(4096, 3).data() + 1, 1000) == 0);
  for (const auto& read : hung) {
    CHECK(read->done);
    CHECK(read->result == -ETIMEDOUT);
    t.backend.held().retire(read->data, 8192);
  }
  std::free(waits.data);
  settle(t);
  CHECK(t.backend.held().retiredBytes() == 0);
  // As many as before.
  CHECK(t.run(good, IoOp::read, 1, 100, pattern(100, 1).data()) == 0);
}

TEST_CASE("limits: at the end everything in flight is given up, whatever its age") {
  Turner t(false);
  if (!t.backend.ringed()) return;
  Hanging pipe(false);
  pipe.file->limitNanos = 0;
  t.backend.setTime(kSecond);
  Read read(*pipe.file, 0, 4096);
  t.start(read);
  t.backend.setTime(1000 * kSecond);
  t.turn();
  CHECK(!read.done);
  CHECK(t.backend.wakeAt() == UINT64_MAX);
  t.backend.giveUpAll();
  CHECK(read.done);
  CHECK(read.result == -ETIMEDOUT);
  t.backend.held().retire(read.data, 8192);
  settle(t);
}

TEST_CASE("workers: a call is withdrawn before a thread has it or comes back, never both") {
  const TempFile file(1 << 20, "/var/tmp");
  Mailbox home;
  Finished finished(home);
  std::vector<SysCall> calls(300);
  std::vector<bool> withdrawn(calls.size());
  unsigned back = 0;
  unsigned taken = 0;
  {
    Workers workers(2);
    for (std::size_t i = 0; i < calls.size(); ++i) {
      calls[i].kind = SysKind::sync;
      calls[i].fd = file.fd.get();
      calls[i].finished = &finished;
      calls[i].result = 77;
      workers.enqueue(calls[i]);
      if (i == 100) workers.allowMore(3);
      if (i % 3 == 2) withdrawn[i - 1] = workers.withdraw(calls[i - 1]);
    }
    for (std::size_t i = 0; i < calls.size(); i += 5) withdrawn[i] = withdrawn[i] || workers.withdraw(calls[i]);
    workers.allowMore(-3);
    taken = static_cast<unsigned>(std::count(withdrawn.begin(), withdrawn.end(), true));
    for (int i = 0; back + taken < calls.size() && i < 100'000; ++i) {
      for (SysCall* call = finished.take(); call != nullptr; call = call->next) {
        ++back;
        CHECK(!withdrawn[static_cast<std::size_t>(call - calls.data())]);
        CHECK(call->result == 0);
      }
      ::usleep(100);
    }
  }
  CHECK(back + taken == calls.size());
  CHECK(taken > 0);
}
