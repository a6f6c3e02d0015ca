// What a RAID5 device does before it is served: the groups of its journal that may not be in place are carried out
// again, and synced. Only then may the epoch be raised.
//
// A column that is written but not read, because it is being regenerated, gets the same blocks, computed from the
// others: what its own ring holds may be older than its place in the device.
//
// A block of a ring that cannot be read holds nothing. While no column is missing, one whose part of a live group is
// there is taken like one in regeneration, and so is one whose part of a certain group is not what was written. Else
// what is left of the group is carried out if it is certain, and it counts as damaged.
//
// What a column is copied to gets all that the column gets: below its checkpoint it is the column's equal.
//
// Instead of writing it may leave all of it in a cache, for a device that can be read and not be written.
//
// raid5_replay.cc: the groups. raid5_replay_rings.cc: what is read of the rings.
// Invariants: reads nothing but the readable columns; a replay that ends early, for whatever reason, may be made again
// and gives the same; done() is called exactly once, when no Io is in flight.
#pragma once

#include <span>
#include <vector>

#include "io/backend.h"
#include "io/file.h"
#include "md/raid5.h"
#include "md/raid5_journal.h"
#include "md/raid5_state.h"
#include "md/volume.h"
#include "md/workbuffer.h"
#include "plan/plan.h"

namespace metadisk {

class Raid5Replay {
 public:
  // `plan`'s root is a RAID5 node. All outlive this. `picture`: prepared for the plan; it gets what would be written,
  // in pinned rows. It takes half of the cache at most: ENOMEM.
  Raid5Replay(const Plan& plan, std::span<ComponentFile* const> files, Backend& backend, VolumeHost& host,
              void (*done)(void* owner, const Raid5Replayed& result) noexcept, void* owner,
              Raid5State* picture = nullptr);
  ~Raid5Replay();
  Raid5Replay(const Raid5Replay&) = delete;
  Raid5Replay& operator=(const Raid5Replay&) = delete;

  void start() noexcept;
  unsigned inFlight() const noexcept { return flying_; }

 private:
  static constexpr std::uint32_t kChunk = 512;  // blocks
  // Blocks of one ring that may be unreadable: with more of them the column is.
  static constexpr std::size_t kBadMost = 1024;
  static constexpr std::uint64_t kProbe = 4096;  // bytes of memory for probes
  struct Child : Io {
    Raid5Replay* self = nullptr;
    std::uint32_t column = 0;
    bool copy = false;  // on its way to the column's copy, after the column itself
  };
  struct Column {
    Child io;
    WorkBuffer memory;
    std::uint64_t memoryBytes = 0;
    std::uint32_t position = 0;  // of the ring, while it is scanned
    std::uint32_t blocks = 0;    // of the chunk in memory
    // What is read of the ring into memory: from `base` on, up to `next` by now.
    std::uint32_t base = 0;
    std::uint32_t next = 0;
    std::uint32_t end = 0;
    std::uint32_t step = 0;          // blocks of the Io
    std::uint32_t most = kChunk;     // of the next one
    std::vector<std::uint32_t> bad;  // blocks of the ring that cannot be read, in rising order
    unsigned probes = 0;             // that failed
    bool probing = false;            // its Io is one
    bool alive = true;               // the last read went well
    journal::Header part;            // of the group
    bool ready = false;              // its Io went well
    std::uint32_t entry = 0;         // the next one to be written
    std::uint64_t at = 0;            // bytes in memory, where its data lies
  };
  // Blocks of the columns' data.
  struct Range {
    std::uint64_t block = 0;
    std::uint64_t blocks = 0;
  };
  enum class Stage : std::uint8_t { scanning, settling, reading, writing, gathering, deriving, syncing };

  journal::Place placeOf(std::uint32_t column) const noexcept;
  bool room(Column& column, std::uint64_t bytes) noexcept;
  void io(std::uint32_t column, IoOp op, std::uint64_t offset, std::uint64_t length, std::byte* data) noexcept;
  bool toCopy(Child& child) noexcept;
  void failed(const Child& child) noexcept;
  void tell(std::uint32_t column, ComponentOp op, std::uint64_t offset, int error, bool masked) noexcept;
  void nextGroup() noexcept;
  void judge() noexcept;
  void findRotten() noexcept;
  void writeEntry(std::uint32_t column) noexcept;
  bool show(std::uint32_t column, std::uint64_t block, std::span<const std::byte> data) noexcept;
  void derive() noexcept;
  void gather() noexcept;
  void writeDerived() noexcept;
  void sync() noexcept;
  void stageOver() noexcept;
  void run() noexcept;
  static void onIo(Io& io) noexcept;

  // raid5_replay_rings.cc
  void scan(std::uint32_t column) noexcept;
  void scanned(std::uint32_t column) noexcept;
  void want(std::uint32_t column, std::uint32_t block, std::uint32_t blocks) noexcept;
  bool readOn(std::uint32_t column) noexcept;
  void probe(std::uint32_t column) noexcept;
  void readWell(std::uint32_t column) noexcept;
  bool bears(const Child& child) noexcept;
  bool unreadable(std::uint32_t column, std::uint32_t block, std::uint32_t blocks) const noexcept;
  ColumnSet lacking(const journal::Group& group) const noexcept;
  const journal::Header* headerOf(const journal::Group& group, std::uint32_t column) const noexcept;
  bool hides() const noexcept;
  void scanOver() noexcept;
  void choose() noexcept;
  void settle() noexcept;

  const Plan& plan_;
  const Raid5Node& node_;
  std::vector<ComponentFile*> files_;
  ComponentFile* copy_ = nullptr;  // what the column node_.copied is copied to
  Backend& backend_;
  VolumeHost& host_;
  void (*done_)(void*, const Raid5Replayed&) noexcept;
  void* owner_;
  std::uint32_t ring_;
  ColumnSet usable_ = 0;
  ColumnSet derived_ = 0;      // the column in regeneration, or whose ring cannot be read where it is needed
  ColumnSet good_ = 0;         // whose part of the group is whole
  ColumnSet needed_ = 0;       // whose part of a live group is not to be had
  bool checking_ = false;      // the groups are read to find those, before anything is written
  bool doubted_ = false;       // derived_ is a column like any other
  bool unread_ = false;        // while gathering: a block of the others cannot be read
  std::vector<Range> ranges_;  // that it gets
  std::size_t range_ = 0;
  Range part_;                   // of it, in memory
  std::uint64_t most_ = kChunk;  // blocks of the next part
  std::vector<Column> columns_;
  std::vector<journal::Header> headers_;
  std::vector<journal::Group> groups_;
  std::size_t group_ = 0;
  Stage stage_ = Stage::scanning;
  unsigned flying_ = 0;
  bool running_ = false;  // run(): completions inside start() only leave their mark
  bool over_ = false;
  Raid5State* picture_;
  std::size_t pages_ = 0;  // of it
  Raid5Replayed result_;
};

}  // namespace metadisk
