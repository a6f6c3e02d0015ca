// Bad blocks of a RAID5 column, rewritten from the others while clients go on.
//
// A place is looked at row by row: one that can be read now is left alone; of any other the rows are claimed, all other
// columns are read and synced, and what they say is written to the column alone, synced, read back past the cache
// and compared.
// Invariants: owner thread; one row at a time; nothing is written but the sum of the others, in rows of which nothing
// is on its way, so an end at any point leaves each block bad as before or right. Never rewritten: what hangs, what may
// not be written, and anything while another column is missing. What cannot be put right is reported once, and the
// column's other places are forgotten: it is to be taken out.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "md/raid5_io.h"
#include "md/repairqueue.h"
#include "md/workbuffer.h"

namespace metadisk {

class Raid5Repairs {
 public:
  // As for the Raid5Io; a place's slot is its column, its bytes are of the column's data. All outlive this.
  Raid5Repairs(const Plan& plan, std::span<ComponentFile* const> files, Backend& backend, VolumeHost& host, Raid5Io& io,
               RepairQueue& queue);
  ~Raid5Repairs();
  Raid5Repairs(const Raid5Repairs&) = delete;
  Raid5Repairs& operator=(const Raid5Repairs&) = delete;

  // Begins with what is queued, unless it runs or is to stop. Call between turns.
  void tick() noexcept;
  bool due() const noexcept { return !running() && !stopping_ && !queue_.empty(); }
  bool running() const noexcept { return stage_ != Stage::idle; }
  // Ends after the row in hand; the rest of the queue is for the next plan.
  void stop() noexcept;

 private:
  enum class Stage : std::uint8_t { idle, next, probe, claim, others, settle, write, sync, verify };
  struct Part : Io {
    Raid5Repairs* self = nullptr;
  };
  struct Claim : Raid5Claim {
    Raid5Repairs* self = nullptr;
  };
  void go() noexcept;
  bool step() noexcept;
  bool begin() noexcept;
  void nextRow() noexcept;
  void rowDone() noexcept;
  void failed(int error) noexcept;
  void start(Stage stage, std::uint32_t column, IoOp op, std::byte* data) noexcept;
  void startOthers(Stage stage, IoOp op) noexcept;
  void compute() noexcept;
  static void onIo(Io& io) noexcept;
  std::byte* slot(std::uint32_t column) const noexcept {
    return memory_.get() + std::size_t{column} * Raid5Shape::kPage;
  }
  std::uint64_t block() const noexcept { return (node_.columns[column_].start + at_) / Raid5Shape::kSector; }

  const Plan& plan_;
  const Raid5Node& node_;
  Backend& backend_;
  VolumeHost& host_;
  Raid5Io& io_;
  RepairQueue& queue_;
  Raid5Shape shape_;
  std::vector<ComponentFile*> files_;
  bool whole_ = true;  // all columns are read and written
  Stage stage_ = Stage::idle;
  bool stopping_ = false;
  bool waiting_ = false;  // for the claim
  bool going_ = false;    // step() is being called: answers that come inline only leave their result
  unsigned flying_ = 0;
  int error_ = 0;  // of what was in flight last
  std::uint32_t column_ = 0;
  std::uint64_t at_ = 0;  // bytes of the column's data: the row in hand
  std::uint64_t length_ = 0;
  std::uint64_t end_ = 0;  // of the place
  Claim claim_;
  std::vector<Part> parts_;
  WorkBuffer memory_;  // a page of each column, and one more to compare with
};

}  // namespace metadisk
