// A request as the volume layer sees it, and the only two calls between it and its users.
//
// Invariants: a Request belongs to the thread that submits it; it is pooled by its owner (connection
// or resync job) and never allocated per I/O; done() is called exactly once, on the same thread,
// possibly before submit() returns.
#pragma once

#include <cstddef>
#include <cstdint>

namespace metadisk {

enum class Op : std::uint8_t { read, write, flush, trim, zero, cache, extents };

// A run of the metadevice that is a hole, which reads as zeroes, or data.
struct Extent {
  std::uint64_t length = 0;  // bytes
  bool hole = false;
};

struct Request {
  Op op = Op::read;
  bool fua = false;           // write, trim, zero: on stable storage of every component before done()
  bool noHole = false;        // zero: do not deallocate
  bool fastZero = false;      // zero: fail with ENOTSUP rather than write zeroes
  std::uint64_t offset = 0;   // bytes from the start of the metadevice
  std::uint64_t length = 0;   // bytes; reads and writes at most the engine's maximum
  std::byte* data = nullptr;  // read, write: `length` bytes, aligned to 4096
  // extents: in `data` room for how many of them, at least one; in done() how many there are, from `offset` on. They
  // end with the range or before, and no two neighbours are of one sort.
  std::uint32_t extents = 0;
  int error = 0;  // errno, 0 on success; valid in done()
  // In done() of a read: it was not carried out, because a component that hangs holds `data`; other sources are
  // left. To be submitted again with other memory; whoever sees it clears it.
  bool again = false;
  void (*done)(Request&) noexcept = nullptr;
  void* owner = nullptr;

  // The volume layer's, from submit() to done(): see md/hold.h.
  std::uint64_t order = 0;
  Request* next = nullptr;
  Request* previous = nullptr;
  bool failed = false;
  bool written = false;  // the data is in place, a flush is left to be done
};

}  // namespace metadisk
