// What a RAID5 device does before it is served: the groups of its journal that may not be in place are carried out
// again, and synced. Only then may the epoch be raised.
//
// Invariants: reads and writes nothing but the readable columns; a replay that ends early, for whatever reason, may be
// made again and gives the same; done() is called exactly once, when no Io is in flight.
#pragma once

#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "io/backend.h"
#include "io/file.h"
#include "md/raid5.h"
#include "md/raid5_journal.h"
#include "md/volume.h"
#include "plan/plan.h"

namespace metadisk {

class Raid5Replay {
 public:
  // `plan`'s root is a RAID5 node. All outlive this.
  Raid5Replay(const Plan& plan, std::span<ComponentFile* const> files, Backend& backend, VolumeHost& host,
              void (*done)(void* owner, const Raid5Replayed& result) noexcept, void* owner);
  ~Raid5Replay();
  Raid5Replay(const Raid5Replay&) = delete;
  Raid5Replay& operator=(const Raid5Replay&) = delete;

  void start() noexcept;
  unsigned inFlight() const noexcept { return flying_; }

 private:
  static constexpr std::uint32_t kChunk = 512;  // blocks
  struct FreeDeleter {
    void operator()(std::byte* p) const noexcept { std::free(p); }
  };
  using Memory = std::unique_ptr<std::byte, FreeDeleter>;
  struct Child : Io {
    Raid5Replay* self = nullptr;
    std::uint32_t column = 0;
  };
  struct Column {
    Child io;
    Memory memory;
    std::uint64_t memoryBytes = 0;
    std::uint32_t position = 0;  // of the ring, while it is scanned
    std::uint32_t blocks = 0;    // of the chunk or part in memory
    journal::Header part;        // of the group
    std::uint32_t entry = 0;     // the next one to be written
    std::uint64_t at = 0;        // bytes in memory, where its data lies
  };
  enum class Stage : std::uint8_t { scanning, reading, writing, syncing };

  journal::Place placeOf(std::uint32_t column) const noexcept;
  bool room(Column& column, std::uint64_t bytes) noexcept;
  void io(std::uint32_t column, IoOp op, std::uint64_t offset, std::uint64_t length, std::byte* data) noexcept;
  void scan(std::uint32_t column) noexcept;
  void scanned(std::uint32_t column) noexcept;
  void nextGroup() noexcept;
  void judge() noexcept;
  void writeEntry(std::uint32_t column) noexcept;
  void sync() noexcept;
  void stageOver() noexcept;
  static void onIo(Io& io) noexcept;

  const Plan& plan_;
  const Raid5Node& node_;
  std::vector<ComponentFile*> files_;
  Backend& backend_;
  VolumeHost& host_;
  void (*done_)(void*, const Raid5Replayed&) noexcept;
  void* owner_;
  std::uint32_t ring_;
  ColumnSet usable_ = 0;
  std::vector<Column> columns_;
  std::vector<journal::Header> headers_;
  std::vector<journal::Group> groups_;
  std::size_t group_ = 0;
  Stage stage_ = Stage::scanning;
  unsigned flying_ = 0;
  Raid5Replayed result_;
};

}  // namespace metadisk
