// Copies [from, end) of a mirror onto one side, window by window, while clients go on.
//
// Invariants: owner thread only; at most one job per volume; everything below done() is copied and
// was never changed on one side only since; the target is synced before the outcome `done`; ended()
// is called exactly once per start(). The machine does no I/O itself: its port does, and answers by
// calling the on...() functions, possibly before the port's function returns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace metadisk {

// full: everything from `from` on, and below it what was dirty; optimized: the target's stale regions;
// component: what lies on one component of the target.
enum class ResyncKind : std::uint8_t { full, optimized, component };

struct ResyncJob {
  std::uint64_t job = 0;
  std::uint32_t target = 0;  // slot of the side that is written
  ResyncKind kind = ResyncKind::full;
  std::uint32_t component = 0;         // kind component: its number
  std::uint64_t from = 0;              // blocks
  std::uint32_t bufferBlocks = 1024;   // 1 to 2048
  std::uint64_t bytesPerSecond = 0;    // 0: no limit
  std::uint32_t checkpointMillis = 0;  // 0: no checkpoints
};

// Compares all readable sides; `repair` copies from the first one to the others.
struct VerifyJob {
  std::uint64_t job = 0;
  std::uint64_t from = 0;  // blocks
  bool repair = false;
  std::uint32_t bufferBlocks = 1024;  // 1 to 2048
  std::uint64_t bytesPerSecond = 0;   // 0: no limit
};

enum class ResyncOutcome : std::uint8_t { done, cancelled, failed };

struct ResyncEnd {
  static constexpr std::uint32_t kNoComponent = UINT32_MAX;
  std::uint64_t job = 0;
  ResyncOutcome outcome = ResyncOutcome::failed;
  int error = 0;                           // errno
  std::uint64_t done = 0;                  // blocks
  std::uint32_t component = kNoComponent;  // failed: the one that could not be read or written
  std::uint64_t mismatches = 0;            // verify: blocks that differed
};

// What the machine needs from the volume.
class ResyncPort {
 public:
  virtual ~ResyncPort() = default;
  virtual void windowLock(std::uint64_t offset, std::uint64_t length) noexcept = 0;  // then onLocked()
  virtual void windowUnlock() noexcept = 0;
  virtual void windowRead(std::uint64_t offset, std::span<std::byte> into) noexcept = 0;   // then onRead()
  virtual void windowWrite(std::uint64_t offset, std::span<std::byte> from) noexcept = 0;  // then onWritten()
  virtual void targetSync() noexcept = 0;                                                  // then onSynced()
  virtual std::uint64_t now() noexcept = 0;                                                // monotonic nanoseconds
  // Client requests submitted since the last call.
  virtual bool clientsActive() noexcept = 0;
  virtual void progress(std::uint64_t job, std::uint64_t doneBlocks, std::uint64_t totalBlocks) noexcept = 0;
  virtual void ended(std::uint64_t job, ResyncOutcome outcome, int error, std::uint64_t doneBlocks) noexcept = 0;
};

class Resync {
 public:
  explicit Resync(ResyncPort& port) noexcept : port_(port) {}
  Resync(const Resync&) = delete;
  Resync& operator=(const Resync&) = delete;

  // False when a job is running or the buffer cannot be had. `total`: bytes of the mirror.
  bool start(const ResyncJob& job, std::uint64_t total) noexcept;
  // Ends with `cancelled` as soon as the window in flight is complete.
  void cancel() noexcept;
  bool running() const noexcept { return state_ != State::idle; }
  std::uint64_t doneBlocks() const noexcept;
  // Call when now() >= wakeAt(); earlier calls do nothing.
  void tick() noexcept;
  // Nanoseconds on the port's clock; UINT64_MAX when nothing is to be done by time.
  std::uint64_t wakeAt() const noexcept { return wakeAt_; }

  void onLocked() noexcept;
  void onRead(int error) noexcept;
  void onWritten(int error) noexcept;
  void onSynced(int error) noexcept;

 private:
  enum class State : std::uint8_t { idle, pausing, locking, reading, writing, syncing };
  struct FreeDeleter {
    void operator()(std::byte* p) const noexcept;
  };

  void nextWindow() noexcept;
  void finish(ResyncOutcome outcome, int error) noexcept;
  void report(bool force) noexcept;

  ResyncPort& port_;
  ResyncJob job_;
  State state_ = State::idle;
  bool cancelled_ = false;
  std::uint64_t total_ = 0;   // bytes
  std::uint64_t at_ = 0;      // bytes copied up to here
  std::uint64_t window_ = 0;  // bytes of the window in flight
  std::uint64_t windowStart_ = 0;
  std::uint64_t allowance_ = 0;  // time before which the throttle forbids the next window
  std::uint64_t reported_ = 0;
  std::uint64_t wakeAt_ = UINT64_MAX;
  std::unique_ptr<std::byte, FreeDeleter> buffer_;
  std::size_t capacity_ = 0;
};

}  // namespace metadisk
