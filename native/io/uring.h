// Component I/O on Linux: inline where the page cache answers, io_uring where a device must.
//
// What is done inline: buffered reads that RWF_NOWAIT can answer, whole-page buffered writes to regular
// files of known local file systems, everything on tmpfs; but for what is to be done aside. Through the ring: O_DIRECT,
// buffered block devices, unknown file systems, cold reads, FUA writes, syncs, discards, advice. By helpers, threads of
// the backend's own, where there is more than one processor: what would be done inline and is one of many (Io::bulk)
// or many in one (Io::offsets).
// O_DIRECT requests that are not aligned go through a bounce buffer, a window at a time, under an exclusive claim on
// their blocks. Where io_uring is not to be had, worker threads take the ring's place; they look for holes everywhere,
// because the ring cannot. What syncs has a turn in the component's gate from before the first call to the answer. What
// was given up (io/limits.h) makes no further call and ends with the one it is in; the threads and bounce buffers it
// holds meanwhile are replaced, so that other components miss none.
#pragma once

#include <liburing.h>

#include <deque>
#include <memory>
#include <vector>

#include "core/mailbox.h"
#include "io/backend.h"
#include "io/file.h"
#include "io/limits.h"
#include "io/workers.h"

namespace metadisk {

struct UringOptions {
  unsigned entries = 1024;
  bool forceWorkers = false;
  unsigned helpers = kHelpers;  // at most, and one less than there are processors

  static constexpr unsigned kHelpers = 3;
};

class UringBackend final : public Backend {
 public:
  // On the thread that will use it; `home` is that thread's mailbox.
  explicit UringBackend(Mailbox& home, const UringOptions& options = {});
  ~UringBackend() override;
  UringBackend(const UringBackend&) = delete;
  UringBackend& operator=(const UringBackend&) = delete;

  void start(Io& io) noexcept override;
  void submit() noexcept override;
  unsigned poll() noexcept override;
  bool scatters(const ComponentFile& file) const noexcept override { return !file.direct && file.memory(); }

  // Becomes readable when poll() has something to do, but only between sleepBegins() and sleepEnds();
  // -1 with workers, which wake the mailbox instead.
  int eventFd() const noexcept { return event_.get(); }
  // False when there is something to do, so that the thread must not sleep.
  bool sleepBegins() noexcept;
  void sleepEnds() noexcept;
  bool ringed() const noexcept { return ringed_; }
  // Operations that the kernel has, or that wait for something it has.
  unsigned inFlight() const noexcept { return inFlight_; }
  // Those of them for which nobody waits any more.
  unsigned abandoned() const noexcept { return limits_.abandoned(); }

  // Monotonic nanoseconds: after every sleep, and once per turn.
  void setTime(std::uint64_t now) noexcept { limits_.setTime(now); }
  // When poll() wants to look for what is late; UINT64_MAX: not before something is started.
  std::uint64_t wakeAt() const noexcept { return limits_.wakeAt(); }
  // Answers everything in flight with -ETIMEDOUT, whatever its age.
  void giveUpAll() noexcept;

 private:
  // Calls of one ring that may block in the kernel at a time, so that a hung disk leaves some for the others.
  static constexpr unsigned kRingWorkers = 64;

  enum class Phase : std::uint8_t {
    transfer,     // data moves between the component and Io::data
    bounceRead,   // a window is read before it is cut or patched
    bounceWrite,  // the patched window is written
    zeroWrite,    // zeroes are written, a chunk at a time
    allocate,     // fallocate of the range
    advise,
    extents,
    forget,  // clean pages leave the cache before they are read
    sync,
    witness,  // a stable write failed: did the kernel's report of other data go with it?
  };
  struct RingOp {
    SysCall call;  // first: the ring's user data points here
    UringBackend* backend = nullptr;
    Outstanding outstanding;
    Io* io = &outstanding.io;
    Phase phase = Phase::transfer;
    std::uint64_t done = 0;    // bytes of the Io finished
    std::uint64_t window = 0;  // bytes of the Io in the window under way
    std::uint64_t windowStart = 0;
    std::byte* bounce = nullptr;
    unsigned attempt = 0;     // of fallocate modes
    std::int32_t result = 0;  // while the answer waits
    bool claimed = false;
    bool syncing = false;
    bool helped = false;
    RangeClaim claim;
    SyncTurn turn;
    RingOp* next = nullptr;
  };

  RingOp* take(Io& io) noexcept;
  void finish(RingOp& op, std::int32_t result) noexcept;
  void settle(RingOp& op, std::int32_t result) noexcept;
  void release(RingOp& op) noexcept;
  void issue(RingOp& op) noexcept;
  Workers* workersOf(const RingOp& op) const noexcept;
  void look() noexcept;
  bool withdraw(RingOp& op) noexcept;
  void abandoned(RingOp& op) noexcept;
  void replaceThreads() noexcept;
  void lateAnswer(RingOp& op, std::int32_t result) noexcept;
  void serveBounces() noexcept;
  void advance(RingOp& op, std::int32_t result) noexcept;

  void startRead(Io& io) noexcept;
  void startWrite(Io& io) noexcept;
  void startRange(Io& io) noexcept;
  void startExtents(Io& io) noexcept;
  void advise(Io& io, Phase phase, int advice, std::uint64_t from, std::uint64_t to) noexcept;
  void begin(RingOp& op) noexcept;
  bool help(Io& io) noexcept;
  void startScattered(Io& io) noexcept;
  void handOver() noexcept;
  void transfer(RingOp& op) noexcept;
  void nextWindow(RingOp& op) noexcept;
  void windowRead(RingOp& op, std::int32_t result) noexcept;
  void allocate(RingOp& op) noexcept;
  void allocated(RingOp& op, std::int32_t result) noexcept;
  void zeroChunk(RingOp& op) noexcept;
  void written(RingOp& op) noexcept;
  void takeTurn(RingOp& op) noexcept;
  void syncAfter(RingOp& op) noexcept;
  void stableWriteFailed(RingOp& op, std::int32_t result) noexcept;
  bool claimRange(RingOp& op, bool exclusive) noexcept;

  Mailbox& home_;
  io_uring ring_{};
  bool ringed_ = false;
  // Polling the ring's own descriptor misses deferred completions; a registered eventfd does not.
  Fd event_;
  std::unique_ptr<Workers> workers_;  // without a ring
  std::unique_ptr<Workers> seekers_;  // for extents, from the first one on
  std::unique_ptr<Workers> helpers_;  // from the first bulk Io on
  unsigned helpersMax_ = 0;
  // For the helpers, with the next submit().
  SysCall* handed_ = nullptr;
  SysCall* handedLast_ = nullptr;
  std::size_t handedCount_ = 0;
  Finished finished_;
  unsigned queued_ = 0;    // prepared, not yet given to the kernel
  unsigned inFlight_ = 0;  // RingOps in use
  Limits limits_{held()};
  unsigned replaced_ = 0;  // threads allowed beyond the usual number
  std::vector<std::unique_ptr<RingOp[]>> slabs_;
  RingOp* free_ = nullptr;
  std::vector<std::byte*> bounces_;
  unsigned bouncesMade_ = 0;
  std::deque<RingOp*> bounceWaiters_;
  std::byte* zeroes_ = nullptr;
};

}  // namespace metadisk
