// One open metadevice on one thread: takes requests, maps them, starts child I/O, answers or parks.
//
// Invariants: used by one thread only. When stateful(), exactly one Volume of the device exists at a
// time, on its owner thread, and the one of an older plan is drained (inFlight() == 0) before the
// next takes requests: overlapping writes are ordered only inside one Volume. Otherwise every thread
// may have its own Volume over the same plan and files. Every request ends in done(), once, or in
// state.hold: then it is no more in flight here and waits for submit() to this or a later Volume.
// The volume outlives every request and window: destroy it when inFlight() == 0.
// After its pools have grown to the depth in use, submit() allocates nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "core/filerange.h"
#include "core/resync.h"
#include "io/backend.h"
#include "md/request.h"
#include "md/state.h"
#include "plan/plan.h"

namespace metadisk {

enum class ComponentOp : std::uint8_t { read, write, flush };

struct ComponentFault {
  std::uint32_t component = 0;
  ComponentOp op = ComponentOp::read;
  std::uint64_t block = 0;    // on the component's storage
  int error = 0;              // errno
  bool masked = false;        // no client has seen it
  bool repairFailed = false;  // read: the block could not be rewritten
};

// What the volume tells its surroundings; called on the volume's thread, from inside poll() or submit().
// How the replay of a RAID5 journal ended.
struct Raid5Replayed {
  int error = 0;              // errno; a column that failed was told of by componentError
  std::uint64_t groups = 0;   // carried out again
  std::uint64_t blocks = 0;   // written by that
  std::uint64_t torn = 0;     // the last group, not whole: nothing of it was written in place
  std::uint64_t epoch = 0;    // of the groups: the plan's, or a later one when its record is out of date
  std::uint64_t damaged = 0;  // parts of groups that were once whole: parity there may be wrong
};

class VolumeHost {
 public:
  virtual ~VolumeHost() = default;
  // May come once per failing Io.
  virtual void componentError(const ComponentFault& fault) noexcept = 0;
  // Could not be read, was rewritten and reads back right. Blocks on the component's storage.
  virtual void componentRepaired(std::uint32_t component, std::uint64_t block, std::uint64_t blocks) noexcept = 0;
  virtual void resyncProgress(std::uint64_t job, std::uint64_t done, std::uint64_t total) noexcept = 0;
  virtual void resyncCheckpoint(std::uint64_t job, std::uint64_t done) noexcept = 0;
  virtual void verifyMismatch(std::uint64_t job, std::uint64_t block, std::uint64_t blocks) noexcept = 0;
  virtual void resyncEnded(const ResyncEnd& end) noexcept = 0;
  // The plan says `replay`, and that is over: nothing is in flight.
  virtual void replayed(const Raid5Replayed& result) noexcept = 0;
  // Look at the state (a hold has begun, nothing may be submitted until it is released) and at wakeAt().
  virtual void attend() noexcept = 0;
  // Monotonic nanoseconds.
  virtual std::uint64_t now() noexcept = 0;
};

class Volume {
 public:
  // `files` in the order of plan->components, sizes already checked (checkSizes); all outlive the volume.
  Volume(std::shared_ptr<const Plan> plan, std::span<ComponentFile* const> files, Backend& backend, VolumeHost& host,
         MirrorState& state);
  ~Volume();
  Volume(const Volume&) = delete;
  Volume& operator=(const Volume&) = delete;

  // Takes over: nothing of an older plan is in flight. Before the first submit(); a replay begins here.
  void begin() noexcept;

  // read, write: `data` valid until done(). state.hold.order() must have been called for it once.
  // Errors: EINVAL outside the volume or on the label, EROFS on a read-only plan, ENOMEM, EIO where a
  // mirror has no source, else the component's.
  void submit(Request& request) noexcept;

  // The files' bytes that are [offset, offset + length) of the volume now, in order, or whose sum is, if they are read
  // at once; 0 when there are more than `out` holds or a read may not be answered from the files behind the volume's
  // back: O_DIRECT, and whatever is not simply what one source in step, or the columns of RAID5, hold
  // (docs/native-boundary.md, "Lent pages"). A read that follows takes the same source.
  std::size_t ranges(std::uint64_t offset, std::uint64_t length, std::span<FileRange> out) noexcept;

  // Whether the plan needs an owner thread: RAID5, and a mirror unless it is one side with nothing wrong.
  bool stateful() const noexcept;
  // Client requests not finished and not parked.
  unsigned requests() const noexcept;
  // Those and jobs, repairs, groups under way; 0 means the volume may be destroyed.
  unsigned inFlight() const noexcept;
  std::uint64_t size() const noexcept;
  const Plan& plan() const noexcept;

  // 0 or an errno (EINVAL: no such side or not a mirror or nothing readable besides; EBUSY: a job runs).
  // Ends in resyncEnded. A mirror root only.
  int startResync(const ResyncJob& job) noexcept;
  // The same; EROFS: a repair of a read-only plan.
  int startVerify(const VerifyJob& job) noexcept;
  // The same, of a RAID5 root that is served. EINVAL also: no such columns, or not in a state for it.
  int startRaid5(const Raid5Job& job) noexcept;
  void cancelResync() noexcept;
  // Another plan is to take over: jobs end as cancelled, repairs go on with the next volume, and RAID5 begins nothing
  // but what requests need to end.
  void quiesce() noexcept;
  bool resyncing() const noexcept;
  // Jobs or repairs run or are about to: tick() and wakeAt() matter.
  bool working() const noexcept;

  // Call tick() once per loop turn when now() >= wakeAt(); UINT64_MAX: no timer wanted.
  void tick() noexcept;
  std::uint64_t wakeAt() const noexcept;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace metadisk
