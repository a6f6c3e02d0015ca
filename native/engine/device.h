// One device on one I/O thread: the volume in use, older ones that still have requests, the plan that
// waits for them, and what a mirror remembers across its plans.
//
// Invariants: used by its thread only. A plan that keeps state across requests (a mirror) takes over
// only when its predecessor has nothing in flight; until then held() keeps requests out. Otherwise the
// new volume serves at once and the old one finishes what it has. While a hold is out nothing is in
// flight but a resync, so a plan is mounted at once; the hold is released into the plan mounted last.
#pragma once

#include <cerrno>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "core/clock.h"
#include "engine/counters.h"
#include "engine/events.h"
#include "engine/regionlog.h"
#include "io/file.h"
#include "md/volume.h"
#include "nbd/connection.h"

namespace metadisk {

// A decoded plan with its files, shared by the threads that serve it.
struct OpenPlan {
  std::shared_ptr<const Plan> plan;
  std::vector<std::shared_ptr<ComponentFile>> files;
  std::vector<std::byte> dirty;  // regions, as the database holds them; for a device that is new
};

struct DeviceSinks {
  std::function<void(EngineEvent)> event;
};

class ThreadDevice final : public nbd::Export {
 public:
  // `attend`: advance() must be called before the thread sleeps. `sweepNanos`: between looks at dirty regions.
  // `cacheBytes`: of a RAID5 device's stripes.
  ThreadDevice(std::uint32_t number, Backend& backend, const DeviceSinks& sinks, std::shared_ptr<Counters> counters,
               std::uint64_t sweepNanos, const Raid5Options& raid5, std::function<void()> attend);

  // `installed` runs when no request uses an older plan any more.
  void install(std::shared_ptr<const OpenPlan> plan, std::function<void()> installed);
  void flush(std::function<void(int)> done);
  void resync(const ResyncJob& job);
  void verify(const VerifyJob& job);
  void raid5Job(const Raid5Job& job);
  // See src/dataplane/types.ts.
  void settle(std::uint64_t hold, bool resume);
  void marked(std::uint64_t ticket, bool ok);
  void cancelResync();
  // Ends jobs, and answers what is parked, or would be from now on, with ESHUTDOWN; the owner waits for idle().
  void close();
  // Nobody will answer tickets any more: the writes that wait for one get ESHUTDOWN.
  void giveUp() noexcept { log_.refuse(ESHUTDOWN); }
  // Whether there are clients now.
  void clients(bool any) noexcept { log_.clients(any, monotonicNanos()); }
  bool holding() const noexcept { return state_.hold.closed(); }

  // What the plans that are in use or wait have open.
  std::vector<std::shared_ptr<ComponentFile>> files() const;

  // Between turns. Returns whether the gate opened, so that held connections go on.
  bool advance();
  void tick(std::uint64_t now) noexcept;
  std::uint64_t wakeAt() const noexcept;
  bool idle() const noexcept;
  // Nothing waits for a turn of the loop: advance() and tick() would do nothing.
  bool settled() const noexcept;

  std::uint32_t number() const noexcept { return number_; }
  Counters& counters() noexcept { return *counters_; }

  std::uint64_t size() const noexcept override;
  bool held() const noexcept override {
    return !waiting_.empty() || current_ == nullptr || replaying_ || state_.hold.closed();
  }
  void submit(Request& request) noexcept override;
  std::size_t ranges(std::uint64_t offset, std::uint64_t length, std::span<FileRange> out) noexcept override;
  std::uint32_t stateFlags() const noexcept override { return stateFlags_; }
  void flying(int change) noexcept override { counters_->add(Counter::inFlight, static_cast<std::uint64_t>(change)); }
  void account(std::uint16_t command, std::uint64_t bytes, bool failed) noexcept override;

 private:
  struct Mounted final : VolumeHost {
    Mounted(ThreadDevice& owner, std::shared_ptr<const OpenPlan> opened, std::function<void()> whenInstalled);
    void componentError(const ComponentFault& fault) noexcept override;
    void resyncProgress(std::uint64_t job, std::uint64_t done, std::uint64_t total) noexcept override;
    void resyncCheckpoint(std::uint64_t job, std::uint64_t done) noexcept override;
    void verifyMismatch(std::uint64_t job, std::uint64_t block, std::uint64_t blocks) noexcept override;
    void resyncEnded(const ResyncEnd& end) noexcept override;
    void componentRepaired(std::uint32_t component, std::uint64_t block, std::uint64_t blocks) noexcept override;
    void replayed(const Raid5Replayed& result) noexcept override;
    void attend() noexcept override { device.attend_(); }
    std::uint64_t now() noexcept override { return monotonicNanos(); }

    ThreadDevice& device;
    std::shared_ptr<const OpenPlan> open;
    std::function<void()> installed;
    std::unique_ptr<Volume> volume;
  };
  struct FlushJob {
    Request request;
    std::function<void(int)> done;
    bool submitted = false;
    bool finished = false;
  };

  void mount(std::unique_ptr<Mounted> next);
  void startFlushes();
  void startJob();
  void jobFailed(std::uint64_t job, ResyncOutcome outcome, int error, std::uint64_t done);

  void announceHold();
  bool releaseHold();

  std::uint32_t number_;
  Backend& backend_;
  const DeviceSinks& sinks_;
  std::shared_ptr<Counters> counters_;
  std::function<void()> attend_;
  MirrorState state_;
  RegionLog log_;
  std::unique_ptr<Mounted> current_;
  std::list<std::unique_ptr<Mounted>> older_;    // still have requests
  std::list<std::unique_ptr<Mounted>> waiting_;  // wait for older ones, oldest first
  std::list<FlushJob> flushes_;
  std::optional<std::variant<ResyncJob, VerifyJob, Raid5Job>> jobWanted_;
  std::uint32_t stateFlags_ = 0;
  bool closed_ = false;
  bool replaying_ = false;  // the plan is for that alone: requests wait for the next one
};

}  // namespace metadisk
