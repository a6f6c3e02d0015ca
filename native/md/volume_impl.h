// The inside of a Volume, shared by volume.cc (requests and their Ios), mirror_io.cc (reads with several
// sources, writes to several sides), failures.cc, flush.cc, extents.cc, jobs.h (resync, verify) and repair.h.
//
// A request that maps to one fragment uses one pooled Child and nothing else. Anything larger has a
// Task that counts its children. Writes to a mirror, and the window of a resync, own their range in
// the overlap list from before the first child until after the last; so two sides can only differ
// where a write is in flight or has failed. All children of a write are made before the first is
// started: it reaches every side or, without memory, none. A read where sides may differ since a crash is
// a write of what it read before it is answered.
#pragma once

#include <array>
#include <cerrno>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "io/file.h"
#include "md/mirror.h"
#include "md/overlap.h"
#include "md/pool.h"
#include "md/raid5_io.h"
#include "md/raid5_jobs.h"
#include "md/raid5_repair.h"
#include "md/raid5_replay.h"
#include "md/stripe.h"
#include "md/volume.h"

namespace metadisk {

inline constexpr std::uint64_t kBlockBytes = 512;

inline bool changesData(Op op) noexcept { return op == Op::write || op == Op::trim || op == Op::zero; }
inline bool changesData(IoOp op) noexcept { return op == IoOp::write || op == IoOp::discard || op == IoOp::zero; }

// Which sides have been asked for a range, as ReadSources takes it, and in between which one is asked now.
inline std::uint32_t asked(std::uint32_t tried, std::uint32_t side) noexcept {
  return (tried & (0xfU | ReadSources::kInStep)) | 1U << side | side << 8U;
}
inline std::uint32_t sideAsked(std::uint32_t tried) noexcept { return tried >> 8U & 3U; }

struct IovecSlab {
  std::array<iovec, kIovecsMax> entries;
  IovecSlab* poolNext = nullptr;
};

class Volume::Impl final {
 public:
  Impl(std::shared_ptr<const Plan> plan, std::span<ComponentFile* const> files, Backend& backend, VolumeHost& host,
       MirrorState& state);
  ~Impl();

  void submit(Request& r) noexcept;
  std::size_t ranges(std::uint64_t offset, std::uint64_t length, std::span<FileRange> out) noexcept;
  void begin() noexcept;
  void beginReplay() noexcept;
  void newRaid5State() noexcept;
  bool stateful() const noexcept { return mirror_ != nullptr || raid5Node_ != nullptr; }
  unsigned requests() const noexcept { return requests_ + (raid5_ != nullptr ? raid5_->requests() : 0U); }
  unsigned inFlight() const noexcept;
  const Plan& plan() const noexcept { return *plan_; }
  std::uint64_t size() const noexcept { return size_; }
  int startResync(const ResyncJob& job) noexcept;
  int startVerify(const VerifyJob& job) noexcept;
  int startRaid5(const Raid5Job& job) noexcept;
  void cancelResync() noexcept;
  void quiesce() noexcept;
  bool resyncing() const noexcept;
  bool working() const noexcept;  // jobs and repairs
  void tick() noexcept;
  std::uint64_t wakeAt() const noexcept;

 private:
  class Jobs;
  class Repairs;
  struct Task;
  struct Walk;
  // One Io on one component.
  struct Child : Io {
    Impl* impl = nullptr;
    Request* request = nullptr;  // without a task: the request this Io answers alone
    Task* task = nullptr;
    IovecSlab* slab = nullptr;
    std::uint32_t index = 0;  // of the file
    std::uint32_t tried = 0;  // mirror: see asked()
    std::uint32_t lastErred = 0;
    Child* chain = nullptr;
    Child* poolNext = nullptr;
  };
  // Children that are made but not started, in order.
  struct Chain {
    Child* head = nullptr;
    Child* tail = nullptr;
  };
  // Several Ios that end together.
  struct Task : OverlapEntry, RegionWaiter {
    enum class Kind : std::uint8_t { plain, mirrorWrite, unsureRead, flush, window, job, repair };
    Kind kind = Kind::plain;
    Impl* impl = nullptr;
    Request* request = nullptr;  // null for the engine's own work
    IoOp op = IoOp::read;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::byte* data = nullptr;
    bool fua = false;
    bool noHole = false;
    bool fastZero = false;
    bool parks = false;     // a component failed that is not Last Erred
    bool retried = false;   // reads: not every piece came from its best source
    bool okayOnly = false;  // write: not to Last Erred components
    bool quiet = false;     // repair: failures are looked for
    bool uncached = false;  // repair: read from the storage, not from the page cache
    bool again = false;     // read: to be done again, with memory that no hanging component holds
    std::uint32_t pending = 0;
    std::uint32_t nextSide = 0;  // verify: the side that is read
    int error = 0;
    std::uint32_t erred = 0;  // job: the component that `error` came from
    void* window = nullptr;   // job; window: null of a repair
    Chain unstarted;          // mirror write, unsure read
    Task* queued = nullptr;
    Task* poolNext = nullptr;

    // One from the pool. `pending` is 1, the caller's, given back by drop().
    void begin(Impl& in, Kind what, IoOp how, std::uint64_t at, std::uint64_t size, std::byte* memory) noexcept {
      impl = &in;
      kind = what;
      op = how;
      offset = at;
      length = size;
      data = memory;
      request = nullptr;
      fua = noHole = fastZero = parks = retried = okayOnly = quiet = uncached = again = false;
      pending = 1;
      error = 0;
      unstarted = {};
    }
  };

  void finish(Request& r, int error) noexcept;
  void submitTask(Request& r) noexcept;
  bool submitSingle(Request& r, const Node& node, std::uint32_t tried) noexcept;
  Task* newTask(Request& r, Task::Kind kind) noexcept;
  // Makes the Ios of one range of one node: neighbours on a component go into one Io, and components
  // that are not written get no write. False: out of memory, and the chain is as it was.
  bool prepare(Task& task, Chain& chain, const Node& node, std::uint64_t offset, std::uint64_t length, std::byte* data,
               std::uint32_t tried) noexcept;
  Child* newChild(Task& task, const Fragment& fragment, std::byte* data, std::uint32_t tried) noexcept;
  bool append(Child& child, const Fragment& fragment, std::byte* data) noexcept;
  // Starts all of them, or those of the first side alone.
  void start(Task& task, Chain& chain, bool oneSide = false) noexcept;
  void start(Task& task, Child& child) noexcept;
  void discard(Chain& chain, Child* after) noexcept;
  // prepare() and start(); on failure the task has the error.
  void issue(Task& task, const Node& node, std::uint64_t offset, std::uint64_t length, std::byte* data,
             std::uint32_t tried) noexcept;
  void giveChild(Child& child) noexcept;
  void drop(Task& task) noexcept;
  void taskDone(Task& task) noexcept;
  void endOfData(Request& r, int error) noexcept;
  void childFailed(Child& child, Task& task) noexcept;
  void report(const Child& child, bool masked) noexcept;
  bool anySyncFailed() const noexcept;

  // mirror_io.cc
  const Node* sideToLend(std::uint64_t offset, std::uint64_t length) noexcept;
  void submitRead(Request& r) noexcept;
  void readPieces(Task& task, std::uint64_t offset, std::uint64_t length, std::byte* data,
                  std::uint32_t tried) noexcept;
  bool anotherSource(const Child& child, std::uint64_t offset, const std::byte* data) const noexcept;
  void retryRead(const Child& child, Task& task) noexcept;
  bool wantRepair(const Child& child, std::uint64_t offset, const std::byte* data) noexcept;
  void own(Task& task) noexcept;
  void submitUnsureRead(Request& r) noexcept;
  bool prepareSides(Task& task) noexcept;
  void endUnsureRead(Task& task) noexcept;
  void submitWrite(Request& r) noexcept;
  void writeSides(Task& task) noexcept;
  void endWrite(Task& task) noexcept;
  void park(Request& r, bool failed) noexcept;
  void closeGate() noexcept;
  const Node& sideNode(std::uint32_t side) const noexcept { return plan_->nodes[mirror_->sides[side].child]; }
  // Of a slot; sides.size() when there is none.
  std::uint32_t sideOf(std::uint32_t slot) const noexcept;

  // extents.cc
  void submitExtents(Request& r) noexcept;
  void goOn(Walk& walk) noexcept;
  bool ask(Walk& walk, const Fragment& fragment) noexcept;
  void endWalk(Walk& walk) noexcept;
  static void onAsked(Io& io) noexcept;

  // flush.cc
  void findWritten();
  void submitFlush(Request& r) noexcept;
  void startFlushes() noexcept;
  void endFlushes(const Task& task) noexcept;
  void issueSync(Task& task, std::span<const std::uint32_t> files) noexcept;
  void lostSyncs(Task& task) noexcept;

  static void onSingle(Io& io) noexcept;
  static void onChild(Io& io) noexcept;
  static void onOwned(OverlapEntry& entry) noexcept;
  static void onMarked(RegionWaiter& waiter, int error) noexcept;

  std::shared_ptr<const Plan> plan_;
  std::vector<ComponentFile*> files_;
  Backend& backend_;
  VolumeHost& host_;
  MirrorState& state_;
  std::uint64_t size_;
  const Node* direct_ = nullptr;        // stripe or component all requests go to; null for a mirror
  const MirrorNode* mirror_ = nullptr;  // unless it is one side with nothing wrong
  const Raid5Node* raid5Node_ = nullptr;
  std::unique_ptr<Raid5Io> raid5_;        // from begin() on
  std::unique_ptr<Raid5Jobs> raid5Jobs_;  // with it
  std::unique_ptr<Raid5Repairs> raid5Repairs_;
  std::unique_ptr<Raid5Replay> replay_;
  int raid5Error_ = EIO;  // what requests get while there is neither
  std::optional<ReadSources> sources_;
  OverlapList overlaps_;
  std::vector<std::uint32_t> written_;    // files that a flush covers
  std::vector<std::uint32_t> lastErred_;  // by file: 0 when any written part of it is not Last Erred
  unsigned requests_ = 0;
  unsigned clients_ = 0;  // submitted since the resync asked
  Task* flushHead_ = nullptr;
  Task* flushTail_ = nullptr;
  bool flushing_ = false;
  Pool<Child> children_;
  Pool<Task> tasks_;
  Pool<IovecSlab, 16> slabs_;
  std::unique_ptr<Pool<Walk, 4>> walks_;
  Task flushSync_;  // the syncs of the flush batch in flight
  Task* batch_ = nullptr;
  std::unique_ptr<Jobs> jobs_;  // of a mirror
  std::unique_ptr<Repairs> repairs_;
};

}  // namespace metadisk
