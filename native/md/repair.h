// Bad blocks of a component, rewritten from another side while clients go on.
//
// A place is looked at in pieces of a page: one that can be read now is left alone; any other is read
// from a side that is in step, and once that side has synced what it holds, written to the component
// alone, synced, read back past the cache and compared. Only this last part owns the piece's range, so
// clients wait for no more than one page.
// Invariants: owner thread; one piece at a time; nothing is written but what a side in step holds there,
// under the range's lock, so an end at any point leaves each block bad as before or equal to the others.
// Never rewritten: what hangs, what may not be written, what is stale. What cannot be put right is
// reported once; the component becomes the last source of its mirror, and its side's other places are
// forgotten: it is to be taken out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "md/volume_impl.h"
#include "md/workbuffer.h"

namespace metadisk {

class Volume::Impl::Repairs {
 public:
  explicit Repairs(Impl& volume) noexcept : volume_(volume) {}

  // Begins with what is queued, unless it runs or is to stop. Call between turns.
  void tick() noexcept;
  bool due() const noexcept { return !running() && !stopping_ && !volume_.state_.repairs.empty(); }
  bool running() const noexcept { return stage_ != Stage::idle; }
  // Ends after the piece in hand; the rest of the queue is for the next volume.
  void stop() noexcept;
  // Whether all of the place is being looked at.
  bool at(const RepairQueue::Place& place) const noexcept;

  void onOwned() noexcept;
  // A task of kind `repair` has ended; it is given back here.
  void onTask(Task& task) noexcept;

 private:
  enum class Stage : std::uint8_t { idle, next, window, probe, lock, source, settle, write, sync, verify };
  void go() noexcept;
  bool step() noexcept;
  bool begin() noexcept;
  void nextWindow() noexcept;
  void nextPiece() noexcept;
  void lock() noexcept;
  void look(std::uint64_t offset, std::uint64_t length, std::byte* into) noexcept;
  void readElsewhere() noexcept;
  void settle() noexcept;
  void write() noexcept;
  void sync() noexcept;
  void pieceDone() noexcept;
  void repaired() noexcept;
  void failed(int error) noexcept;
  // The label of a side is its own.
  std::uint64_t first() const noexcept { return volume_.plan_->labelled ? kBlockBytes : 0; }
  Fragment fragmentAt(std::uint64_t offset, std::uint64_t length) const noexcept;
  Task* newTask(IoOp op, std::uint64_t offset, std::uint64_t length, std::byte* data) noexcept;

  Impl& volume_;
  Stage stage_ = Stage::idle;
  bool stopping_ = false;
  bool pending_ = false;  // something is in flight, onTask() or onOwned() comes
  bool going_ = false;    // step() is being called: answers that come inline only leave their result
  bool locked_ = false;
  int error_ = 0;           // of what was in flight last
  std::uint32_t side_ = 0;  // of the place
  std::uint64_t at_ = 0;    // bytes of the mirror: what is left of the place
  std::uint64_t end_ = 0;
  std::uint64_t windowEnd_ = 0;  // of the window that is looked at piece by piece
  std::uint64_t piece_ = 0;
  std::uint64_t length_ = 0;  // of the piece
  Task lock_;
  WorkBuffer memory_;
};

}  // namespace metadisk
