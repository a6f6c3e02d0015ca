// Paces one job of a mirror, a copy or a comparison: which window is next, how many at once, when to
// make room for clients, when to sync, how it ends.
//
// Invariants: owner thread only; at most one job at a time. Windows are begun in rising order, at most
// kWindows in flight, only one while clients are active; each owns its range while it works. Everything
// below done() has been worked on, and a write since then went to all sides alike. The target is synced
// before a checkpoint is told and before the outcome `done`. ended() is called exactly once per start(),
// with no window and no sync in flight. The machine does no I/O itself: its port does, and answers by
// calling the on...() functions, possibly before the port's function returns.
#pragma once

#include <array>
#include <cstdint>

namespace metadisk {

// full: everything from `from` on, and below it what was dirty; optimized: the target's stale regions;
// component: what lies on one component of the target, with `from` as for full.
enum class ResyncKind : std::uint8_t { full, optimized, component };

struct ResyncJob {
  std::uint64_t job = 0;
  std::uint32_t target = 0;  // slot of the side that is written
  ResyncKind kind = ResyncKind::full;
  std::uint32_t component = 0;         // kind component: its number
  std::uint64_t from = 0;              // blocks of the mirror
  std::uint32_t bufferBlocks = 1024;   // 1 to 2048
  std::uint64_t bytesPerSecond = 0;    // 0: no limit
  std::uint32_t checkpointMillis = 0;  // 0: no checkpoints
};

// Compares all readable sides; `repair` copies from the first one to the others.
struct VerifyJob {
  std::uint64_t job = 0;
  std::uint64_t from = 0;  // blocks of the mirror
  bool repair = false;
  std::uint32_t bufferBlocks = 1024;  // 1 to 2048
  std::uint64_t bytesPerSecond = 0;   // 0: no limit
};

// Of a RAID5 device; `from` and all progress in blocks of a column's data. See src/dataplane/types.ts.
enum class Raid5Work : std::uint8_t { initialise, regenerate, copy, parity };

struct Raid5Job {
  std::uint64_t job = 0;
  Raid5Work kind = Raid5Work::regenerate;
  std::uint64_t columns = 0;  // one bit each; of parity none
  bool repair = false;
  std::uint64_t from = 0;
  std::uint32_t bufferBlocks = 1024;   // 1 to 2048, of each column
  std::uint64_t bytesPerSecond = 0;    // of each column; 0: no limit
  std::uint32_t checkpointMillis = 0;  // 0: no checkpoints
};

enum class ResyncOutcome : std::uint8_t { done, cancelled, failed };

struct ResyncEnd {
  static constexpr std::uint32_t kNoComponent = UINT32_MAX;
  std::uint64_t job = 0;
  ResyncOutcome outcome = ResyncOutcome::failed;
  int error = 0;                           // errno
  std::uint64_t done = 0;                  // blocks of the mirror: where `from` may begin
  std::uint32_t component = kNoComponent;  // failed: the one that could not be read or written
  std::uint64_t mismatches = 0;            // verify: blocks that differed
};

// A range of the mirror that is worked on as one.
struct ResyncWindow {
  std::uint64_t offset = 0;  // bytes
  std::uint64_t length = 0;  // bytes; 0: there is no work left
  std::uint64_t work = 0;    // bytes of it that have to be copied or compared
};

// What went wrong with a window or a sync.
struct ResyncFault {
  int error = 0;  // 0: nothing
  std::uint32_t component = ResyncEnd::kNoComponent;
};

// How a job is to be run, whatever it does.
struct ResyncPace {
  std::uint64_t job = 0;
  std::uint64_t from = 0;        // bytes; where done() begins
  std::uint64_t end = 0;         // bytes; where done() ends
  std::uint64_t workBefore = 0;  // bytes of work that count as done already
  std::uint64_t workTotal = 0;   // bytes of work
  std::uint64_t bytesPerSecond = 0;
  std::uint32_t checkpointMillis = 0;
};

// What the machine needs from the volume. `place`: below Resync::kWindows, of a window in flight.
class ResyncPort {
 public:
  virtual ~ResyncPort() = default;
  // The first window with work at or above `at` (bytes).
  virtual ResyncWindow windowAt(std::uint64_t at) noexcept = 0;
  // Own the range, work, let the range go; then onWindow(place).
  virtual void windowBegin(unsigned place, const ResyncWindow& window) noexcept = 0;
  // Gives a window up that does not own its range yet. False: it does, and onWindow() will come.
  virtual bool windowWithdraw(unsigned place) noexcept = 0;
  // Called in rising order, once for each window that went well.
  virtual void windowPassed(unsigned place, const ResyncWindow& window) noexcept = 0;
  virtual void targetSync() noexcept = 0;    // then onSynced()
  virtual std::uint64_t now() noexcept = 0;  // monotonic nanoseconds
  // Client requests submitted since the last call, or in flight.
  virtual bool clientsActive() noexcept = 0;
  // Of the work of the job.
  virtual void progress(std::uint64_t job, std::uint64_t doneBlocks, std::uint64_t totalBlocks) noexcept = 0;
  virtual void checkpoint(std::uint64_t job, std::uint64_t doneBlocks) noexcept = 0;
  virtual void ended(const ResyncEnd& end) noexcept = 0;
};

class Resync {
 public:
  // Reading the next window while one is written is what makes a copy as fast as cp.
  static constexpr unsigned kWindows = 4;
  static constexpr std::uint32_t kBufferBlocksMax = 2048;

  explicit Resync(ResyncPort& port) noexcept : port_(port) {}
  Resync(const Resync&) = delete;
  Resync& operator=(const Resync&) = delete;

  // No job may be running.
  void start(const ResyncPace& pace) noexcept;
  // Ends with `cancelled` as soon as nothing is in flight; windows that only wait for their range are withdrawn.
  void cancel() noexcept;
  bool running() const noexcept { return running_; }
  // In blocks of the mirror.
  std::uint64_t doneBlocks() const noexcept;
  // Call when now() >= wakeAt(), once per turn of the owner's loop; earlier calls do nothing.
  void tick() noexcept;
  // Nanoseconds on the port's clock; UINT64_MAX when nothing is to be done by time.
  std::uint64_t wakeAt() const noexcept { return wakeAt_; }

  void onWindow(unsigned place, const ResyncFault& fault) noexcept;
  void onSynced(const ResyncFault& fault) noexcept;

 private:
  struct Flight {
    ResyncWindow window;
    std::uint64_t begun = 0;
    bool over = false;
    bool good = true;  // not failed, not withdrawn
  };

  void launch(const ResyncWindow& window) noexcept;
  void pass() noexcept;
  void stop(ResyncOutcome outcome, const ResyncFault& fault) noexcept;
  void settle() noexcept;
  void sync(bool last) noexcept;
  void report(bool force) noexcept;
  std::uint64_t reached() const noexcept;
  bool quiet() const noexcept;
  unsigned flying() const noexcept { return static_cast<unsigned>(launched_ - passed_); }

  ResyncPort& port_;
  ResyncPace pace_;
  bool running_ = false;
  bool stopping_ = false;   // nothing new is begun
  bool exhausted_ = false;  // no work is left
  bool syncing_ = false;
  bool unsure_ = false;  // a sync failed: only what a checkpoint told is certain
  bool lastSync_ = false;
  bool inTick_ = false;
  ResyncOutcome outcome_ = ResyncOutcome::done;
  ResyncFault fault_;
  std::uint64_t at_ = 0;  // bytes; the next window is looked for from here
  std::uint64_t work_ = 0;
  std::uint64_t launched_ = 0;  // windows; place = number % kWindows
  std::uint64_t passed_ = 0;
  std::array<Flight, kWindows> flights_;
  std::uint64_t syncedTo_ = 0;  // what the sync in flight makes durable
  std::uint64_t checkpointed_ = 0;
  std::uint64_t checkpointAt_ = 0;
  std::uint64_t allowance_ = 0;   // before this the throttle forbids the next window
  std::uint64_t pauseUntil_ = 0;  // before this clients have the sides to themselves
  std::uint64_t reported_ = 0;
  std::uint64_t wakeAt_ = UINT64_MAX;
};

}  // namespace metadisk
