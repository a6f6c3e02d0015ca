// The jobs of a mirror as its volume carries them out: resyncs of three kinds, and verify.
//
// A window owns its range in the overlap list from before its first read until after its last write, so
// no client's write can come between the two. Reads follow the rules of reads; what is written goes to
// the target alone, or, repairing, to the sides that differ from the first one once that is known to be on storage.
// Invariants: owner thread; one job at a time; all memory is had at the start of a job and given back at
// its end. A window's Ios are pooled tasks like anybody's; the last one to end moves the window on.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/resync.h"
#include "md/footprint.h"
#include "md/mismatches.h"
#include "md/stale.h"
#include "md/volume_impl.h"
#include "md/workbuffer.h"

namespace metadisk {

class Volume::Impl::Jobs final : public ResyncPort {
 public:
  explicit Jobs(Impl& volume) noexcept : volume_(volume) {}

  // 0 or an errno, see Volume.
  int resync(const ResyncJob& job) noexcept;
  int verify(const VerifyJob& job) noexcept;
  void cancel() noexcept { machine_.cancel(); }
  bool running() const noexcept { return machine_.running(); }
  void tick() noexcept { machine_.tick(); }
  std::uint64_t wakeAt() const noexcept { return machine_.wakeAt(); }

  // The window owns its range.
  void onOwned(Task& lock) noexcept;
  // A task of kind `job` has ended; it is given back here.
  void onTask(Task& task) noexcept;

 private:
  static constexpr unsigned kSides = 4;
  // One window in flight; its parts that do not outlive a stage are in its tasks.
  struct Window {
    enum class Stage : std::uint8_t { locking, reading, syncing, writing };
    ResyncWindow range;
    Stage stage = Stage::locking;
    Task lock;
    unsigned pending = 0;  // tasks of the stage, and one for whoever starts them
    ResyncFault fault;
    bool retried = false;  // not every piece came from its best source
    bool again = false;    // a read is to be done again, with other memory
    // Verify: the sides that could be read, and the blocks that differ from the first of them.
    std::uint32_t read = 0;
    std::uint32_t differing = 0;  // sides
    std::array<std::uint64_t, Resync::kBufferBlocksMax / 64> differs{};
  };

  // ResyncPort
  ResyncWindow windowAt(std::uint64_t at) noexcept override;
  void windowBegin(unsigned place, const ResyncWindow& window) noexcept override;
  bool windowWithdraw(unsigned place) noexcept override;
  void windowPassed(unsigned place, const ResyncWindow& window) noexcept override;
  void targetSync() noexcept override;
  std::uint64_t now() noexcept override { return volume_.host_.now(); }
  bool clientsActive() noexcept override;
  void progress(std::uint64_t job, std::uint64_t done, std::uint64_t total) noexcept override;
  void checkpoint(std::uint64_t job, std::uint64_t done) noexcept override;
  void ended(const ResyncEnd& end) noexcept override;

  // A part of the mirror that has to be worked on; length 0: there is none.
  struct Run {
    std::uint64_t offset = 0;  // bytes
    std::uint64_t length = 0;
  };
  Run runAt(std::uint64_t at) const noexcept;
  const Bitmap* behind() const noexcept;
  std::uint64_t workOf(const Run& run) const noexcept;
  ResyncPace paceOf(const ResyncJob& job) const noexcept;
  int begin(std::uint32_t bufferBlocks, unsigned copies) noexcept;
  void filesOf(std::uint32_t side) noexcept;
  std::uint64_t firstByte() const noexcept;
  std::byte* buffer(const Window& window, unsigned copy) const noexcept;
  bool freshBuffers(const Window& window) noexcept;
  void startReads(Window& window) noexcept;
  Task* newTask(Window* window, IoOp op, std::uint64_t offset, std::uint64_t length, std::byte* data) noexcept;
  void stageOver(Window& window) noexcept;
  void finish(Window& window) noexcept;
  void read(Window& window) noexcept;
  void write(Window& window) noexcept;
  void writeEverywhere(Window& window) noexcept;
  void writeComponent(Window& window) noexcept;
  void passed(const ResyncWindow& range) noexcept;
  template <typename Visit>
  void eachPiece(const Window& window, Visit visit) const noexcept;
  void sync(Window* window) noexcept;
  // Verify: verify.cc
  void readSides(Window& window) noexcept;
  void compare(Window& window) noexcept;
  void repair(Window& window) noexcept;

  Impl& volume_;
  Resync machine_{*this};
  bool verifying_ = false;
  bool repairing_ = false;
  ResyncKind kind_ = ResyncKind::full;
  std::uint64_t from_ = 0;    // bytes
  std::uint64_t window_ = 0;  // bytes of work in one window, at most
  std::uint32_t target_ = 0;  // side
  std::uint32_t slot_ = 0;    // its
  // What was passed last without a gap, from a region's beginning or inside the first region.
  std::uint64_t passedFrom_ = 0;
  std::uint64_t passedTo_ = 0;
  Footprint footprint_;               // kind component
  std::vector<std::uint32_t> files_;  // that are synced
  std::array<Window, Resync::kWindows> windows_;
  std::array<WorkBuffer, Resync::kWindows * kSides> buffers_;
  unsigned copies_ = 0;    // buffers of a window
  Mismatches mismatches_;  // verify
};

}  // namespace metadisk
