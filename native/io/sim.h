// Components in memory behind the Backend interface: seeded, deterministic, faulty.
//
// Permitted faults: completions in any order; completion inside start(); errors by component,
// operation and range, for a number of times, with a failed read or write done in part; after a
// failed sync the unsynced data is lost although later syncs succeed (what Linux does); sectors that
// cannot be read until they are rewritten, or ever, or that take a write and hold something else; at a crash
// every unsynced 512-byte sector keeps any version it had since the last sync, and Ios in flight
// happen in part or not at all; Ios that hang until they are let go, and then happen however long nobody has been
// waiting for them (io/limits.h). Never: changes of data that was not being written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <span>
#include <vector>

#include "io/backend.h"
#include "io/file.h"
#include "io/limits.h"

namespace metadisk {

struct SimFault {
  std::uint32_t file = 0;
  IoOp op = IoOp::read;
  std::uint64_t first = 0;  // bytes
  std::uint64_t end = UINT64_MAX;
  int error = 5;      // EIO
  unsigned skip = 0;  // matching Ios that go well before it strikes
  unsigned times = UINT32_MAX;
  bool hangs = false;  // instead of failing
};

struct SimOptions {
  unsigned latencyMax = 8;         // turns of poll() an Io may take
  unsigned inlinePercent = 0;      // of Ios complete inside start()
  std::uint64_t turnNanos = 1000;  // how far a poll() moves the clock
  bool scatters = false;           // takes Io::offsets
};

class SimBackend final : public Backend {
 public:
  SimBackend(std::uint64_t seed, std::span<const std::uint64_t> sizes, SimOptions options = {});

  void start(Io& io) noexcept override;
  void submit() noexcept override {}
  unsigned poll() noexcept override;
  bool scatters(const ComponentFile&) const noexcept override { return options_.scatters; }

  // Component files in the order of `sizes`; replaced by reopen().
  std::vector<ComponentFile*> files() const;
  // What a process sees that opens the components again after an orderly end or a crash().
  void reopen();

  void fault(const SimFault& fault) { faults_.push_back(fault); }
  // Bad sectors are good again, and hold what they held.
  void clearFaults() {
    faults_.clear();
    for (Disk& disk : disks_) {
      disk.bad.clear();
      disk.lying.clear();
    }
  }
  // The same for one component.
  void mend(std::uint32_t file) {
    std::erase_if(faults_, [&](const SimFault& fault) { return fault.file == file; });
    disks_[file].bad.clear();
    disks_[file].lying.clear();
  }
  // Sectors of [first, end) cannot be read (ENODATA, as a disk says it) until they are written; worn ones
  // take every write and still cannot be read.
  void damage(std::uint32_t file, std::uint64_t first, std::uint64_t end, bool worn = false);
  // Those of a component, by number, and whether they are worn.
  const std::map<std::uint64_t, bool>& badSectors(std::uint32_t file) const { return disks_[file].bad; }
  // Writes to [first, end) go well and leave something else there.
  void corrupt(std::uint32_t file, std::uint64_t first, std::uint64_t end);
  // What hangs on this component goes on, in any order, during the next turns.
  void letGo(std::uint32_t file);
  // Of every component, from now on; 0: none.
  void limit(std::uint64_t nanos);
  // Given up and not let go.
  unsigned abandoned() const { return limits_.abandoned(); }
  bool hangs(std::uint32_t file) const { return Limits::refuses(*files_[file]); }
  // Power is lost: everything in flight and every later Io fails with ENODEV until reopen().
  void crash();

  // Nothing will happen by itself; what hangs may still be given up.
  bool idle() const { return pending_.empty(); }
  std::uint64_t now() const { return clock_; }
  void advance(std::uint64_t nanos) { clock_ += nanos; }
  std::span<const std::byte> content(std::uint32_t file) const { return disks_[file].seen; }
  std::span<std::byte> content(std::uint32_t file) { return disks_[file].seen; }
  // Sets the scene: what is seen now is what a crash would leave.
  void makeDurable(std::uint32_t file) {
    disks_[file].durable = disks_[file].seen;
    disks_[file].unsynced.clear();
  }
  std::span<const std::byte> durable(std::uint32_t file) const { return disks_[file].durable; }

  // What was asked of the components, by operation.
  std::uint64_t started(IoOp op) const { return started_[static_cast<std::size_t>(op)]; }
  std::uint64_t startedOn(std::uint32_t file, IoOp op) const;
  std::uint64_t bytesOf(std::uint32_t file, IoOp op) const;
  // Writes started while another write to some of the same bytes of the component was in flight.
  std::uint64_t overlappingWrites() const { return overlapping_; }

 private:
  struct Version {
    std::uint64_t sequence;
    std::vector<std::byte> data;
  };
  struct Disk {
    std::vector<std::byte> seen;
    std::vector<std::byte> durable;
    std::map<std::uint64_t, std::vector<Version>> unsynced;  // by sector
    std::map<IoOp, std::uint64_t> started;
    std::map<std::uint64_t, bool> bad;  // sectors: whether worn
    std::set<std::uint64_t> lying;
    std::map<IoOp, std::uint64_t> bytes;
  };
  struct Pending {
    Outstanding outstanding;
    std::uint64_t due = 0;
    std::uint64_t sequence = 0;      // of the disk's last change when it was started
    std::vector<std::byte> written;  // a write that hangs: what its memory held at the start
  };
  using Operation = std::unique_ptr<Pending>;

  std::uint32_t indexOf(const Io& io) const;
  std::uint64_t random(std::uint64_t below) { return below == 0 ? 0 : random_() % below; }
  SimFault* strikes(const Io& io, bool hangs);
  static bool unreadable(const Disk& disk, const Io& io);
  void perform(Operation operation) noexcept;
  void look() noexcept;
  static std::vector<std::byte> memoryOf(const Io& io);
  void change(Disk& disk, const Io& io, std::uint64_t length, bool durable);
  void changeSectors(Disk& disk, std::uint64_t from, std::uint64_t end, bool durable);
  static void findExtent(const Disk& disk, Io& io);
  static void copyOut(const Disk& disk, const Io& io, std::uint64_t length);
  void settle(Disk& disk, std::uint64_t upTo);

  std::mt19937_64 random_;
  SimOptions options_;
  std::vector<Disk> disks_;
  std::vector<std::unique_ptr<ComponentFile>> files_;
  std::vector<std::unique_ptr<ComponentFile>> closed_;
  std::vector<Operation> pending_;
  std::vector<Operation> hanging_;
  Limits limits_{held()};
  std::uint64_t limit_ = 0;
  std::vector<SimFault> faults_;
  std::uint64_t clock_ = 0;
  std::uint64_t turn_ = 0;
  std::uint64_t sequence_ = 0;
  std::uint64_t overlapping_ = 0;
  std::uint64_t started_[8] = {};
  bool crashed_ = false;
};

}  // namespace metadisk
