// The jobs of a RAID5 device: columns are zeroed, one column is computed from the others or copied, parity is compared.
//
// raid5_jobs.cc: what they have in common, regeneration and copy. raid5_parity.cc: comparison. raid5_zero.cc: zeroes.
// docs/raid5.md has why each is safe at any moment.
// Invariants: owner thread; one job at a time; all memory is had at the start of a job and given back at its end. A
// window owns its rows (Raid5Claim) from before its first read until after its last write, unless nobody uses its
// columns. Every Io of a column is in that column's part of a window; the last one to end moves the window on.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/resync.h"
#include "io/backend.h"
#include "md/mismatches.h"
#include "md/raid5_io.h"
#include "md/workbuffer.h"

namespace metadisk {

class Raid5Jobs final : public ResyncPort {
 public:
  // As for the Raid5Io; all outlive this.
  Raid5Jobs(const Plan& plan, std::span<ComponentFile* const> files, Backend& backend, VolumeHost& host, Raid5Io& io);
  ~Raid5Jobs() override;
  Raid5Jobs(const Raid5Jobs&) = delete;
  Raid5Jobs& operator=(const Raid5Jobs&) = delete;

  // 0 or an errno, see Volume::startRaid5.
  int start(const Raid5Job& job) noexcept;
  void cancel() noexcept { machine_.cancel(); }
  bool running() const noexcept { return machine_.running(); }
  void tick() noexcept { machine_.tick(); }
  std::uint64_t wakeAt() const noexcept { return machine_.wakeAt(); }

 private:
  static constexpr std::uint64_t kBlock = Raid5Shape::kSector;
  // Of all buffers of a job; windows are shorter on devices of many columns.
  static constexpr std::size_t kMemory = 64UL * 1024 * 1024;
  // Zeroes need no memory, and the less often the storage is asked for them the better.
  static constexpr std::uint64_t kZeroWindow = 8UL * 1024 * 1024;

  struct Window;
  // What a window does on one column, one Io after another.
  struct Part : Io {
    Raid5Jobs* self = nullptr;
    Window* window = nullptr;  // null: the sync of the whole job
    std::uint32_t column = 0;
    std::uint64_t at = 0;  // zeroes, repair of parity: how far it is; bytes as ResyncWindow::offset
  };
  // Initialisation: what is known of a column, as ResyncWindow::offset. A search for the end of data looks at all of
  // it, so it is asked for once and not in every window.
  struct Extent {
    std::uint64_t from = 0;
    std::uint64_t end = 0;
    bool hole = false;
  };
  struct Window : Raid5Claim {
    // locking: its rows are not claimed yet. others: what is copied could not be read. settling: claimed, and waiting
    // for the journal; nothing is written yet.
    enum class Stage : std::uint8_t { locking, reading, others, syncing, settling, writing };
    Raid5Jobs* self = nullptr;
    ResyncWindow range;
    Stage stage = Stage::locking;
    unsigned pending = 0;  // Ios of the stage, and one for whoever starts them
    ResyncFault fault;
    ColumnSet unread = 0;
    std::array<std::uint64_t, Resync::kBufferBlocksMax / 64> differs{};  // parity: blocks that are wrong
    bool wrong = false;                                                  // any of them
  };

  // ResyncPort
  ResyncWindow windowAt(std::uint64_t at) noexcept override;
  void windowBegin(unsigned place, const ResyncWindow& window) noexcept override;
  bool windowWithdraw(unsigned place) noexcept override;
  void windowPassed(unsigned place, const ResyncWindow& window) noexcept override;
  void targetSync() noexcept override;
  std::uint64_t now() noexcept override { return host_.now(); }
  bool clientsActive() noexcept override { return io_.clientsActive(); }
  void progress(std::uint64_t job, std::uint64_t done, std::uint64_t total) noexcept override;
  void checkpoint(std::uint64_t job, std::uint64_t done) noexcept override;
  void ended(const ResyncEnd& end) noexcept override;

  int check(const Raid5Job& job) const noexcept;
  bool makeMemory(std::uint32_t bufferBlocks) noexcept;
  void dropMemory() noexcept;
  unsigned placeOf(const Window& window) const noexcept { return static_cast<unsigned>(&window - windows_.data()); }
  std::span<Part> partsOf(const Window& window) noexcept {
    return std::span(parts_).subspan(placeOf(window) * columns_, columns_);
  }
  std::byte* buffer(const Window& window, std::uint32_t column) const noexcept {
    return buffers_[placeOf(window) * columns_ + column].get();
  }
  std::uint64_t rowAt(std::uint64_t at) const noexcept {
    return shape_.rowOf({at / shape_.segment(), 0, at % shape_.segment()});
  }
  void owned(Window& window) noexcept;
  void issue(Part& part, IoOp op, std::uint64_t offset, std::uint64_t length, std::byte* data) noexcept;
  static void onIo(Io& io) noexcept;
  void partDone(Part& part) noexcept;
  void report(const Part& part) noexcept;
  void stageOver(Window& window) noexcept;
  void finish(Window& window) noexcept;
  void startSyncs(Window* window) noexcept;
  ResyncFault lostSync() const noexcept;
  std::uint32_t componentOf(std::uint32_t column) const noexcept {
    return plan_.components[node_.columns[column].file];
  }
  static bool in(ColumnSet set, std::uint32_t column) noexcept { return (set >> column & 1U) != 0; }

  void startReads(Window& window, ColumnSet columns) noexcept;
  bool othersReadable() const noexcept;
  void compute(Window& window, std::uint32_t column) noexcept;
  void write(Window& window, std::uint32_t from) noexcept;
  // raid5_parity.cc
  void compare(Window& window) noexcept;
  void repairNext(Part& part) noexcept;
  // raid5_zero.cc
  void zeroNext(Part& part) noexcept;

  const Plan& plan_;
  const Raid5Node& node_;
  Backend& backend_;
  VolumeHost& host_;
  Raid5Io& io_;
  Raid5Shape shape_;
  std::vector<ComponentFile*> files_;  // by column; null when it is not open
  std::uint32_t columns_;              // in the plan, joining ones too
  Resync machine_{*this};
  Raid5Job job_;
  // Where a column's data begins for the machine: behind the prewrite area while that is zeroed as well.
  std::uint64_t base_ = 0;
  std::uint64_t end_ = 0;
  std::uint64_t window_ = 0;  // bytes, at most
  std::uint64_t tail_ = 0;    // groups that must be forgotten before the first window
  ColumnSet serving_ = 0;
  ColumnSet sources_ = 0;     // what is read
  ColumnSet targets_ = 0;     // what is written, and synced
  std::uint32_t target_ = 0;  // regeneration, copy
  unsigned syncs_ = 0;        // of the job, in flight
  ResyncFault syncFault_;
  std::array<Window, Resync::kWindows> windows_;
  std::vector<Part> parts_;      // by window and column
  std::vector<Part> syncParts_;  // by column
  std::vector<Extent> extents_;  // by column
  std::unique_ptr<WorkBuffer[]> buffers_;
  Mismatches mismatches_;
};

}  // namespace metadisk
