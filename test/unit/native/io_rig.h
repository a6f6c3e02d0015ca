// One component on a temporary file behind a real backend, driven by hand.
#pragma once

#include <unistd.h>

#include "engine_rig.h"
#include "io/uring.h"

namespace metadisk::test {

// An Io that says when it is done.
struct Flight : Io {
  Flight() {
    complete = [](Io& io) noexcept { static_cast<Flight&>(io).done = true; };
  }
  bool done = false;
};

struct Turner {
  explicit Turner(bool workers) : backend(home, UringOptions{64, workers}) {}
  void start(Flight& io) {
    backend.start(io);
    backend.submit();
  }
  void turn() {
    backend.submit();
    backend.poll();
    home.run();
  }
  // The result, or 1 when it does not end.
  int wait(Flight& io) {
    for (int i = 0; !io.done && i < 100'000; ++i) {
      turn();
      if (!io.done) ::usleep(100);
    }
    return io.done ? io.result : 1;
  }
  // The result of one operation on `file`.
  int run(ComponentFile& file, IoOp op, std::uint64_t offset, std::uint64_t length, std::byte* data = nullptr,
          bool fua = false) {
    Flight io;
    io.op = op;
    io.fua = fua;
    io.file = &file;
    io.offset = offset;
    io.length = length;
    io.data = data;
    start(io);
    return wait(io);
  }

  Mailbox home;
  UringBackend backend;
};

struct Backed : Turner {
  explicit Backed(bool workers, std::uint64_t bytes = 1 << 20, const char* directory = "/var/tmp")
      : Turner(workers), file(bytes, directory) {
    ComponentSpec spec;
    spec.fd = file.fd.get();
    spec.size = bytes;
    CHECK(openComponent(spec, component) == "");
  }
  int run(IoOp op, std::uint64_t offset, std::uint64_t length, std::byte* data = nullptr, bool fua = false) {
    return Turner::run(component, op, offset, length, data, fua);
  }

  TempFile file;
  ComponentFile component;
};

// A descriptor that opens and reads but cannot be synced.
inline Fd unsyncable() {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const Fd other(ends[1]);
  return Fd(ends[0]);
}

}  // namespace metadisk::test
