// One open component, and the order that O_DIRECT needs among its writers.
//
// Invariants: shared by all threads, and kept open by every Io that was given up (io/limits.h); everything but
// the atomics, the range lock and the sync gate is fixed after open. `syncFailed` is sticky: after a failed fsync
// Linux may call lost pages clean, so no later sync of this open file may succeed (promise P1).
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "core/fd.h"
#include "io/backend.h"
#include "io/syncgate.h"
#include "io/workers.h"

namespace metadisk {

// A writer's claim on a byte range; embedded in the writer's pooled operation.
struct RangeClaim {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  bool exclusive = false;  // read-modify-write: nobody else may write these bytes meanwhile
  bool held = false;
  RangeClaim* prev = nullptr;
  RangeClaim* next = nullptr;
  // Called by whichever thread released the range that stood in the way.
  void (*granted)(RangeClaim&) noexcept = nullptr;
};

// Orders read-modify-write cycles against overlapping writes; plain writes never wait for each other.
// First come, first served, so a stream of plain writes cannot starve a cycle.
class RangeLock {
 public:
  // True: held now. False: granted() will be called.
  bool claim(RangeClaim& claim) noexcept;
  void release(RangeClaim& claim) noexcept;

 private:
  struct List {
    RangeClaim* head = nullptr;
    RangeClaim* tail = nullptr;
    void append(RangeClaim& c) noexcept;
    void remove(RangeClaim& c) noexcept;
  };
  bool blocked(const RangeClaim& claim, const RangeClaim* waitingUpTo) const noexcept;

  std::mutex mutex_;
  List plain_;
  List exclusive_;
  List waiting_;
};

// What the kernel's file system promises beyond POSIX.
enum class FileSystem : std::uint8_t {
  memory,   // tmpfs: reads and writes never wait for a device
  local,    // known: a write into the page cache does not wait for another process or host; RWF_DSYNC syncs
  unknown,  // FUSE, NFS, 9p, CIFS, overlays, ...: any call may hang, RWF_DSYNC may be forgotten
};

// `magic` as statfs(2) gives it.
FileSystem fileSystemOf(unsigned long magic) noexcept;

struct ComponentFile : std::enable_shared_from_this<ComponentFile> {
  Fd fd;
  // A second open file of the same storage, never used for I/O: it has its own record of which write-back
  // errors it was told. Invalid where it could not be had.
  Fd witness;
  std::uint32_t component = 0;  // the control plane's number
  int given = -1;               // and its descriptor, of the same open file
  bool direct = false;
  bool blockDevice = false;
  FileSystem fileSystem = FileSystem::local;  // of a regular file
  std::uint32_t align = 1;                    // direct: buffers, offsets and lengths are multiples of this
  dev_t device = 0;                           // identity of the storage
  ino_t inode = 0;
  std::atomic<std::uint64_t> size{0};  // bytes; may grow at a new installation
  std::atomic<bool> syncFailed{false};
  std::atomic<bool> nowait{true};  // RWF_NOWAIT reads work here
  // Could not be put right where it was rewritten: what it holds may be wrong, so it is the last to be read.
  std::atomic<bool> suspect{false};
  std::atomic<std::uint64_t> limitNanos{0};  // of one call to the kernel; 0: none
  // Ios of all threads that were given up and not returned yet: while there are any, no other is started.
  std::atomic<std::uint32_t> abandoned{0};
  RangeLock ranges;
  SyncGate syncs;
  // Clients that may not have taken pages of it yet, although the device gave it up or their connection has ended.
  // Shared with those who wait for them, longer than the file is open (engine/lent.h).
  std::shared_ptr<std::atomic<std::uint32_t>> lent = std::make_shared<std::atomic<std::uint32_t>>(0);
  // Null when the ring serves it. Shared by all threads, so that a hang takes only these.
  std::unique_ptr<Workers> workers;

  bool memory() const noexcept { return !blockDevice && fileSystem == FileSystem::memory; }
  // A buffered write of whole pages returns without waiting for anybody.
  bool writesInline() const noexcept { return !direct && !blockDevice && fileSystem != FileSystem::unknown; }
  // Its page cache may be handed to a socket: reading what is cached asks nobody else.
  bool lendsPages() const noexcept { return !direct && (blockDevice || fileSystem != FileSystem::unknown); }
  // A write with RWF_DSYNC is on stable storage when it returns.
  bool dsync() const noexcept { return blockDevice || fileSystem != FileSystem::unknown; }
};

// Whether a write that failed so (a positive errno) left everything written before as it was.
bool harmlessWriteError(int error) noexcept;

struct ComponentSpec {
  std::uint32_t component = 0;
  int fd = -1;
  bool direct = false;
  std::uint32_t align = 512;
  bool blockDevice = false;
  std::uint64_t size = 0;           // bytes
  std::uint32_t timeoutMillis = 0;  // 0: no limit
};

// Duplicates spec.fd and looks at what it is. Empty on success, else the reason.
std::string openComponent(const ComponentSpec& spec, ComponentFile& out);

}  // namespace metadisk
