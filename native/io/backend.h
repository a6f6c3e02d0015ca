// Child I/O on components. Two implementations: uring.cc (Linux) and sim.cc (deterministic, faulty).
//
// Invariants: one Backend per I/O thread, used by that thread only. complete() is called exactly once
// per started Io, from poll() or from inside start() when the result is known at once. An Io is
// embedded in a pooled object of its owner and must stay put until complete(). A short transfer
// inside the component's capacity is reported as -EIO, never retried silently past end of file.
// A sync or fua write that fails so that data acknowledged before may be lost has set the component's
// syncFailed before complete(); one that succeeds was not told so by, or beside, another that failed.
#pragma once

#include <cstddef>
#include <cstdint>

#include <sys/uio.h>

#include "core/heldmemory.h"

namespace metadisk {

// cache: read into the page cache if that is possible; a hint, 0 when it is not.
// extents: what `offset` lies in, a hole or data, and how far that goes; changes nothing.
enum class IoOp : std::uint8_t { read, write, sync, discard, zero, cache, extents };

// One open component, shared read-only by all threads. `syncFailed` is the one exception: it is
// sticky, because after a failed fsync Linux may call lost pages clean (promise P1).
struct ComponentFile;

inline constexpr std::uint32_t kIovecsMax = 64;

struct Io {
  IoOp op = IoOp::read;
  bool fua = false;       // write: RWF_DSYNC
  bool noHole = false;    // zero: FALLOC_FL_ZERO_RANGE, never punch
  bool fastZero = false;  // zero: -ENOTSUP when it would have to write
  bool aside = false;     // read, write: by a thread of the kernel's, so that this one, and the other cores, go on
  bool uncached = false;  // read: from the storage, past what the page cache holds, where that can be done
  bool bulk = false;      // read, write: one of many that nobody waits for one by one; may be done beside this thread
  ComponentFile* file = nullptr;
  std::uint64_t offset = 0;  // bytes in the file or device
  std::uint64_t length = 0;
  std::byte* data = nullptr;
  // read, write: when not null, used instead of `data`; iovCount entries that add up to `length`,
  // at most kIovecsMax, unchanged until complete().
  const iovec* iov = nullptr;
  std::uint32_t iovCount = 0;
  // read, write, not fua: when not null, iov[i] lies at offsets[i] and not behind iov[i - 1], and `offset` says
  // nothing. Only where Backend::scatters(); unchanged until complete(). An error does not say which pieces are done.
  const std::uint64_t* offsets = nullptr;
  std::int32_t result = 0;  // 0 or -errno once complete
  // extents, once complete without an error: the first `run` bytes, whole blocks from `offset` on, are a hole, which
  // reads as zeroes, or data; what is not known is data.
  bool hole = false;
  std::uint64_t run = 0;
  // Set beside -ETIMEDOUT: the kernel may still read or write the memory, however late. It must not be used for
  // anything else, nor freed, but given to Backend::held().retire(). Whoever sees it clears it.
  bool held = false;
  void (*complete)(Io&) noexcept = nullptr;
  Io* next = nullptr;  // owner's use: free lists and queues
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual void start(Io& io) noexcept = 0;
  // Hands queued submissions to the kernel; called once per loop turn.
  virtual void submit() noexcept = 0;
  // Completes what is ready; returns how many. Never sleeps.
  virtual unsigned poll() noexcept = 0;
  // One Io for pieces all over this component is to be had, and costs less than one Io for each.
  virtual bool scatters(const ComponentFile&) const noexcept { return false; }
  // What the kernel holds of the memory of Ios that were given up.
  HeldMemory& held() noexcept { return held_; }

 private:
  HeldMemory held_;
};

}  // namespace metadisk
