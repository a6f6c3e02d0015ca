// One RAID5 device under one plan: requests, reads that fill rows, groups of writes through the journal.
//
// raid5_io.cc: requests and who waits for what. raid5_read.cc: reads. raid5_fill.cc: what is read into rows and
// computed from it. raid5_apart.cc: the same past the cache. raid5_stage.cc: which dirty rows go together, and their
// parts. raid5_group.cc: the journal, its syncs, in place. docs/raid5.md: why it is safe.
//
// Invariants:
// - One thread; nothing is allocated per request once the pools have grown.
// - A busy row belongs to one batch; whoever else wants to change it waits. Valid sectors may always be read.
// - In-place writes begin when all parts of their group are on stable storage; until they have ended, the row's valid
//   sectors stay in the cache and no other group takes it. So a row that is neither busy nor pinned has parity in
//   place.
// - A change is answered from memory; FLUSH and FUA when every change before them is in the journal and synced.
// - A column that fails is told of, and nothing more is written until a plan or a retry follows.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/filerange.h"
#include "io/backend.h"
#include "io/file.h"
#include "md/hold.h"
#include "md/pool.h"
#include "md/raid5.h"
#include "md/raid5_claims.h"
#include "md/raid5_state.h"
#include "md/repairqueue.h"
#include "md/request.h"
#include "md/volume.h"
#include "md/workbuffer.h"
#include "plan/plan.h"

namespace metadisk {

class Raid5Io {
 public:
  // Makes the state fit the plan's node; before the first Io of a plan. EBUSY: another epoch while something is not in
  // place. EINVAL: another shape in the same epoch, but for columns that joined. ENOMEM. Whatever fails changes
  // nothing.
  static int prepare(const Raid5Node& node, Raid5State& state) noexcept;
  // `plan`'s root is a RAID5 node without `replay`; `files` as for a Volume. All outlive this.
  Raid5Io(const Plan& plan, std::span<ComponentFile* const> files, Backend& backend, VolumeHost& host, Hold& hold,
          Raid5State& state);
  ~Raid5Io();
  Raid5Io(const Raid5Io&) = delete;
  Raid5Io& operator=(const Raid5Io&) = delete;

  void submit(Request& r) noexcept;
  // As Volume::ranges(): only where the columns themselves hold what the device does, and may be read; of the one that
  // may not, if it is the only one, what all others sum up to.
  std::size_t ranges(std::uint64_t offset, std::uint64_t length, std::span<FileRange> out) noexcept;
  unsigned requests() const noexcept { return requests_; }
  unsigned inFlight() const noexcept { return requests_ + flying_; }
  // Another plan is to follow: nothing new is begun but what requests in flight need to end.
  void retire() noexcept { retired_ = true; }
  void tick() noexcept;
  std::uint64_t wakeAt() const noexcept;
  // Nothing is dirty and every group is in place.
  bool atRest() const noexcept { return settled() && flying_ == 0; }
  // ---- for jobs: see md/raid5_claims.h

  // granted() is called once, possibly before this returns, unless unclaim() comes first.
  void claim(Raid5Claim& claim) noexcept;
  // Of a claim that is granted and has a new `tail`: it keeps its rows, and granted() is called again.
  void claimAgain(Raid5Claim& claim) noexcept;
  void unclaim(Raid5Claim& claim) noexcept;
  // The newest group of the journal.
  std::uint64_t lastGroup() const noexcept { return state_.journal.last(); }
  // The journal can forget all of its groups, if it has any: a claim with a `tail` is granted one day.
  bool forgets() const noexcept {
    return !broken_ || state_.journal.durableTail() > lastGroup() || (!stopped_ && placedAll());
  }
  // Parity in place was changed there, by whoever claimed the rows; bytes of the column's data.
  void parityChanged(std::uint32_t column, std::uint64_t offset, std::uint64_t length) noexcept;
  // Where places that could not be read and might be rewritten are named; slot: the column.
  void repairInto(RepairQueue& queue) noexcept { repairs_ = &queue; }
  // Bytes of the column's data; an errno that says why.
  void wantRepair(std::uint32_t column, std::uint64_t offset, std::uint64_t length, int error) noexcept;
  // The column can be read there again.
  void mended(std::uint64_t row, std::uint32_t column) noexcept;
  // Requests submitted since the last call, or in flight.
  bool clientsActive() noexcept { return std::exchange(submits_, 0) != 0 || requests_ != 0; }

  // Not one change would be lost if power failed now.
  bool committed() const noexcept { return oldestUncommitted(true) == UINT64_MAX; }

 private:
  static constexpr std::uint32_t kBatchRows = 256;
  // The same where a sync costs nothing: what a batch reads is still in the processor's cache when it is written.
  static constexpr std::uint32_t kMemoryRows = 128;
  // So many full rows are staged at once: few enough that they are still in the processor's cache.
  static constexpr std::uint32_t kStreamRows = 64;
  // Dirty rows that are put in order at once.
  static constexpr std::size_t kSweepRows = 4096;
  // Ios of so many rows are many: others than this thread may do them.
  static constexpr std::size_t kBulkRows = 32;
  // What a read past the cache takes at once.
  static constexpr std::uint32_t kApartPages = 64;
  static constexpr std::uint32_t kApartRows = 8;
  struct Op;
  struct Batch;
  struct Apart;

  // One Io on one column, with room for its memory.
  struct Child : Io {
    enum class Kind : std::uint8_t { single, read, fill, write, sync, place };
    Kind kind = Kind::read;
    Raid5Io* self = nullptr;
    std::uint32_t column = 0;
    bool copy = false;          // on its way to the column's copy, after the column itself
    Request* client = nullptr;  // single: the request that it answers alone
    Op* request = nullptr;
    Batch* batch = nullptr;
    Raid5Group* group = nullptr;
    std::uint32_t rest = 0;  // pieces of a failed one that are still to go by themselves
    std::array<iovec, kIovecsMax> pieces;
    std::array<std::uint64_t, kIovecsMax> places;  // of the pieces, where these are Io::offsets
    Child* poolNext = nullptr;
  };
  // A client's request on its way.
  struct Op {
    enum class Wait : std::uint8_t { none, row, space, flush };
    Request* request = nullptr;
    std::uint64_t at = 0;  // bytes of it that are done
    Wait wait = Wait::none;
    Raid5Row* row = nullptr;
    std::uint64_t stamp = 0;             // flush: all changes up to this one
    unsigned pending = 0;                // Ios, and one for whoever starts them
    bool again = false;                  // a hanging column holds the client's memory
    bool filling = false;                // what is left comes by way of rows
    bool hung = false;                   // a column that was asked for it
    bool starved = false;                // it found no space when nobody else had any
    ColumnSet avoided = 0;               // columns that failed a direct read of it, somewhere
    std::uint64_t retried = UINT64_MAX;  // the row whose bad columns were given another chance
    int error = 0;
    Op* next = nullptr;
    Op* poolNext = nullptr;
  };
  // Rows that are filled together, for a request or to be staged.
  struct Batch {
    enum class Stage : std::uint8_t { idle, reading, ready };
    Op* op = nullptr;        // null: to be staged
    Apart* apart = nullptr;  // the rows are its own
    std::vector<Raid5Row*> rows;
    unsigned pending = 0;
    Stage stage = Stage::idle;   // of what is to be staged
    std::uint64_t parities = 0;  // what parities_ was when its reads began
    Batch* poolNext = nullptr;
  };
  enum class Planned : std::uint8_t { ready, reads, blocked, full, lost };
  // A part of a request that lies in one row of one column.
  struct Chunk {
    std::uint64_t row = 0;
    std::uint32_t column = 0;
    std::uint32_t at = 0;  // bytes inside the row
    std::uint32_t length = 0;
    std::uint8_t sectors = 0;
  };
  // Rows that are a request's own: they are in no cache.
  struct Apart {
    struct Part {
      Chunk chunk;
      std::uint64_t at = 0;     // bytes of the request
      std::uint8_t sector = 0;  // the one that is asked for, as a set; 0: all of them
      bool done = false;
      Raid5Row row;
      std::array<Raid5Cell, 64> cells;
    };
    std::array<Part, kApartRows> parts;
    WorkBuffer pages;
    std::uint32_t most = 0;   // parts
    std::uint32_t count = 0;  // parts in use
    std::uint64_t end = 0;    // bytes of the request, with these
    Raid5Row* owned = nullptr;
    bool loaded = false;
    bool driven = false;
    bool again = false;
    Apart* poolNext = nullptr;
  };
  // Direct reads of one request that are not started yet.
  struct Open {
    Io* head = nullptr;
    Io* tail = nullptr;
    std::array<Child*, 64> last{};  // by column
  };
  struct Swept {
    std::uint64_t key = 0;
    Raid5Row* row = nullptr;
  };
  struct Queue {
    Op* head = nullptr;
    Op* tail = nullptr;
    void add(Op& op) noexcept;
    Op* take() noexcept;
  };

  // raid5_io.cc
  void finish(Op& op, int error) noexcept;
  void park(Op& op, bool failed) noexcept;
  Chunk chunkAt(std::uint64_t offset, std::uint64_t most) const noexcept;
  // No change is on its way: what is in place is what the device holds.
  bool settled() const noexcept {
    return !state_.picture && cache_.oldestDirty() == nullptr &&
           std::all_of(state_.groups.begin(), state_.groups.end(),
                       [](const Raid5Group& group) { return group.phase == Raid5Group::Phase::idle; });
  }
  bool inPlace(std::uint64_t offset, std::uint64_t length) noexcept;
  std::size_t rangesOf(std::uint32_t column, std::uint64_t offset, std::uint64_t length,
                       std::span<FileRange> out) const noexcept;
  bool readSingle(Request& r) noexcept;
  void singleDone(Child& child) noexcept;
  void goRead(Op& op) noexcept;
  void readDirect(Op& op, Open& open, std::uint32_t column, std::uint64_t offset, std::byte* data,
                  std::uint64_t length) noexcept;
  void readChunk(Op& op, Open& open, const Chunk& chunk, const Raid5Row& row, std::byte* data) noexcept;
  void copyOut(Op& op) noexcept;
  bool byRows(const Op& op, std::uint32_t column) const noexcept {
    return ((~readable_ | op.avoided) >> column & 1U) != 0;
  }
  void goFill(Op& op) noexcept;
  void goWrite(Op& op) noexcept;
  void goFlush(Op& op) noexcept;
  void resume(Op& op) noexcept;
  void drop(Op& op) noexcept;
  void waitFor(Op& op, Op::Wait what, Raid5Row* row) noexcept;
  void urge(Raid5Row& row) noexcept;
  void release(Raid5Row& row) noexcept;
  void wakeRow(Raid5Row& row) noexcept;
  void wakeSpace() noexcept;
  void failStarved() noexcept;
  void forgive() noexcept;
  void checkFlushes() noexcept;
  std::uint64_t oldestUncommitted(bool lostToo) const noexcept;
  void closeGate() noexcept;
  void failWaiting(int error) noexcept;
  bool crowded() const noexcept { return cache_.dirtyPages() >= cache_.pages() / 2; }

  // raid5_fill.cc
  Planned planFill(Raid5Row& row, std::uint32_t column, std::uint8_t sectors, ColumnSet avoided) noexcept;
  bool anotherChance(Op& op, Raid5Row& row) noexcept;
  Planned planStage(Raid5Row& row) noexcept;
  std::uint8_t dirtySectors(const Raid5Row& row, std::uint32_t besides) const noexcept;
  void startFill(Batch& batch) noexcept;
  void startReads(Batch& batch) noexcept;
  void addRead(Batch& batch, Child*& open, Raid5Row& row, std::uint32_t column, std::byte* page,
               std::uint8_t sectors) noexcept;
  void fillFailed(const Child& child) noexcept;
  void readsDone(Batch& batch) noexcept;
  void endFill(Batch& batch) noexcept;
  void regenerate(Raid5Row& row) noexcept;
  void computeParity(Raid5Row& row) noexcept;
  void takeRow(Raid5Row& row, Batch& batch) noexcept;
  void untake(Raid5Row& row) noexcept;
  bool readable(const Raid5Row& row, std::uint32_t column) const noexcept {
    return ((readable_ & ~row.bad) >> column & 1U) != 0;
  }
  bool isData(const Raid5Row& row, std::uint32_t column) const noexcept {
    return column != shape_.parityColumn(shape_.lineOf(row.key));
  }

  // raid5_apart.cc
  void goApart(Op& op, Raid5Row* owned) noexcept;
  void driveApart(Batch& batch) noexcept;
  bool stepApart(Batch& batch) noexcept;
  bool endApart(Batch& batch, int error) noexcept;
  void apartRead(Batch& batch) noexcept;
  bool openApart(Batch& batch) noexcept;
  bool loadApart(Batch& batch) noexcept;
  Planned planApart(const Op& op, Apart::Part& part) noexcept;

  // raid5_stage.cc
  bool due() const noexcept;
  bool wantsStaging() const noexcept { return cache_.fullRows() >= kStreamRows || due(); }
  bool pick(Batch& batch) noexcept;
  bool pickAhead() noexcept;
  void sweep(Batch& batch) noexcept;
  void planSweep() noexcept;
  bool pickRow(Batch& batch, Raid5Row& row) noexcept;
  Batch* stagingIn(Batch::Stage stage) noexcept {
    for (Batch& batch : staging_) {
      if (batch.stage == stage) return &batch;
    }
    return nullptr;
  }
  bool staging() const noexcept {
    return staging_[0].stage != Batch::Stage::idle || staging_[1].stage != Batch::Stage::idle;
  }
  bool stageable(const Raid5Row& row) const noexcept {
    return !row.busy && row.pins == 0 && !row.lost && !claims_.holds(row.key);
  }
  bool measure(const Raid5Row& row) noexcept;
  void stage(Batch& batch) noexcept;
  void collect(Raid5Group& group, const Raid5Row& row) noexcept;
  void addRun(Raid5Group& group, std::uint32_t column, std::uint64_t block, std::span<const std::byte> data) noexcept;
  void publishTail() noexcept;
  Raid5Group* idleGroup() noexcept;
  std::uint32_t spanMax() const noexcept;
  void open(Raid5Group& group, std::uint32_t span, ColumnSet mask) noexcept;

  // raid5_group.cc
  void pump() noexcept;
  bool pumpOnce() noexcept;
  bool pumpTail() noexcept;
  bool forget() noexcept;
  bool placedAll() const noexcept;
  bool advance(Raid5Group& group) noexcept;
  void issue(Raid5Group& group) noexcept;
  void issueWrites(Raid5Group& group, std::uint32_t column) noexcept;
  void commit(Raid5Group& group) noexcept;
  void placed(Raid5Group& group) noexcept;
  void stabilise() noexcept;
  bool toCopy(Child& child) noexcept;
  void nextPiece(Child& child) noexcept;
  void groupIoDone(Child& child) noexcept;
  void columnFailed(std::uint32_t column, const Child& child) noexcept;

  // raid5_claims.cc
  void grantClaims() noexcept;

  std::uint32_t componentOf(const Child& child) const noexcept {
    const Raid5Column& column = child.copy ? node_.columns.back() : node_.columns[child.column];
    return plan_.components[column.file];
  }
  Child* newChild(Child::Kind kind, IoOp op, std::uint32_t column) noexcept;
  void start(Child& child) noexcept;
  bool scatters(std::uint32_t column) const noexcept {
    // The same goes to a column's copy, somewhere else.
    return column != node_.copied && backend_.scatters(*files_[column]);
  }
  bool takesMore(const Child& child, std::uint64_t offset) const noexcept {
    return child.iovCount < kIovecsMax && (child.offsets != nullptr || child.offset + child.length == offset);
  }
  static void addPiece(Child& child, std::uint64_t offset, std::byte* data, std::size_t length) noexcept {
    child.places[child.iovCount] = offset;
    child.pieces[child.iovCount++] = {data, length};
    child.length += length;
  }
  static void onChild(Io& io) noexcept;
  void report(const Child& child, bool masked) noexcept;

  const Plan& plan_;
  const Raid5Node& node_;
  std::vector<ComponentFile*> files_;  // by column; null when it is not open
  Backend& backend_;
  VolumeHost& host_;
  Hold& hold_;
  Raid5State& state_;
  Raid5Shape shape_;
  Raid5Cache& cache_;
  ColumnSet readable_ = 0;
  ColumnSet writable_ = 0;
  ColumnSet lastErred_ = 0;
  std::uint32_t batchRows_ = kBatchRows;
  bool broken_ = false;   // more is missing than parity makes up for: nothing is written
  bool stopped_ = false;  // a column failed: nothing is written until a plan or a retry
  bool retired_ = false;
  bool pumping_ = false;
  bool again_ = false;
  std::uint64_t retryAt_ = UINT64_MAX;
  unsigned requests_ = 0;
  unsigned flying_ = 0;  // Ios of batches and groups
  std::uint64_t flushTarget_ = 0;
  unsigned urgent_ = 0;   // rows whose staging somebody waits for
  bool starved_ = false;  // somebody waits for space
  bool kick_ = true;      // the first tick has something to go on with
  RepairQueue* repairs_ = nullptr;
  Raid5Claims claims_;
  bool granting_ = false;
  std::uint64_t parities_ = 0;  // times that parity was changed by others than groups
  unsigned submits_ = 0;        // since clientsActive()
  Queue waiting_;               // for rows and space, in order
  Queue flushes_;
  std::array<Batch, 2> staging_;  // batches that are to be staged
  std::uint64_t aheadAt_ = 0;     // changes; see pickAhead()
  std::vector<Swept> sweep_;      // rows that were dirty when it was planned; what has become of them is found out
  std::size_t swept_ = 0;         // of them: done
  unsigned syncsFlying_ = 0;
  // Of the batch that is being picked: blocks and entries by column.
  std::array<std::uint32_t, 64> blocks_{};
  std::array<std::uint32_t, 64> entries_{};
  Pool<Child> children_;
  Pool<Op> ops_;
  Pool<Batch, 4> batches_;
  Pool<Apart, 1> aparts_;
};

}  // namespace metadisk
