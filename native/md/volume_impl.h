// The inside of a Volume, shared by volume.cc (requests and their Ios), sync.cc (flushes) and jobs.h (resync, verify).
//
// A request that maps to one fragment uses one pooled Child and nothing else. Anything larger has a
// Task that counts its children. Writes to a mirror, and the window of a resync, own their range in
// the overlap list from before the first child until after the last; so two sides can only differ
// where a write is in flight or has failed.
#pragma once

#include <array>
#include <cerrno>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "io/file.h"
#include "md/mirror.h"
#include "md/pool.h"
#include "md/stale.h"
#include "md/stripe.h"
#include "md/volume.h"

namespace metadisk {

inline constexpr std::uint64_t kBlockBytes = 512;

inline bool changesData(Op op) noexcept { return op == Op::write || op == Op::trim || op == Op::zero; }

struct IovecSlab {
  std::array<iovec, kIovecsMax> entries;
  IovecSlab* poolNext = nullptr;
};

class Volume::Impl final {
 public:
  Impl(std::shared_ptr<const Plan> plan, std::span<ComponentFile* const> files, Backend& backend, VolumeHost& host,
       StaleSides* stale);
  ~Impl();

  void submit(Request& r) noexcept;
  std::size_t ranges(std::uint64_t offset, std::uint64_t length, std::span<FileRange> out) const noexcept;
  bool stateful() const noexcept { return mirror_ != nullptr; }
  unsigned inFlight() const noexcept { return requests_ + (resyncing() ? 1U : 0U); }
  const Plan& plan() const noexcept { return *plan_; }
  std::uint64_t size() const noexcept { return size_; }
  int startResync(const ResyncJob& job) noexcept;
  int startVerify(const VerifyJob& job) noexcept;
  void cancelResync() noexcept;
  bool resyncing() const noexcept;
  void tick() noexcept;
  std::uint64_t wakeAt() const noexcept;

 private:
  class Jobs;
  struct Task;
  // One Io on one component.
  struct Child : Io {
    Impl* impl = nullptr;
    Request* request = nullptr;  // without a task: the request this Io answers alone
    Task* task = nullptr;
    IovecSlab* slab = nullptr;
    std::uint32_t index = 0;  // of the file
    std::uint32_t tried = 0;  // mirror read: sides asked so far, one bit each, this one included
    Child* chain = nullptr;
    Child* poolNext = nullptr;
  };
  // Several Ios that end together.
  struct Task : OverlapEntry {
    enum class Kind : std::uint8_t { plain, mirrorWrite, flush, window, job };
    Kind kind = Kind::plain;
    Impl* impl = nullptr;
    Request* request = nullptr;  // null for tasks of a job
    IoOp op = IoOp::read;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::byte* data = nullptr;
    bool fua = false;
    bool noHole = false;
    bool fastZero = false;
    std::uint32_t pending = 0;
    std::uint32_t nextSide = 0;  // serial writes; verify: the side that is read
    int error = 0;
    std::uint32_t erred = 0;  // job: the component that `error` came from
    void* window = nullptr;   // window, job
    Task* queued = nullptr;
    Task* poolNext = nullptr;
  };

  void finish(Request& r, int error) noexcept;
  void submitTask(Request& r) noexcept;
  bool submitSingle(Request& r, const Node& node, std::uint32_t tried) noexcept;
  void submitRead(Request& r) noexcept;
  void submitFlush(Request& r) noexcept;
  void startFlushes() noexcept;
  void endFlushes(const Task& task) noexcept;
  Task* newTask(Request& r, Task::Kind kind) noexcept;
  void issue(Task& task, const Node& node, std::uint64_t offset, std::uint64_t length, std::byte* data,
             std::uint32_t tried) noexcept;
  Child* newChild(Task& task, const Fragment& fragment, std::byte* data, std::uint32_t tried) noexcept;
  bool append(Child& child, const Fragment& fragment, std::byte* data) noexcept;
  void issueSync(Task& task, std::span<const std::uint32_t> files) noexcept;
  void giveChild(Child& child) noexcept;
  void drop(Task& task) noexcept;
  void taskDone(Task& task) noexcept;
  void writeSides(Task& task) noexcept;
  void endOfData(Request& r, int error) noexcept;
  void retryRead(Child& child, Task& task) noexcept;
  void failed(const Child& child, bool masked) noexcept;
  // Of a slot; sides.size() when there is none.
  std::uint32_t sideOf(std::uint32_t slot) const noexcept;
  bool anySyncFailed() const noexcept;
  const Node& sideNode(std::uint32_t side) const noexcept { return plan_->nodes[mirror_->sides[side].child]; }

  static void onSingle(Io& io) noexcept;
  static void onChild(Io& io) noexcept;
  static void onOwned(OverlapEntry& entry) noexcept;

  std::shared_ptr<const Plan> plan_;
  std::vector<ComponentFile*> files_;
  Backend& backend_;
  VolumeHost& host_;
  std::uint64_t size_;
  const Node* direct_ = nullptr;        // stripe or component all requests go to; null for a mirror
  const MirrorNode* mirror_ = nullptr;  // with two sides or more
  std::unique_ptr<ReadBalance> balance_;
  StaleSides* stale_ = nullptr;  // null: no side is behind
  OverlapList overlaps_;
  std::vector<std::uint32_t> allFiles_;
  unsigned requests_ = 0;
  unsigned clients_ = 0;  // submitted since the resync asked
  Task* flushHead_ = nullptr;
  Task* flushTail_ = nullptr;
  bool flushing_ = false;
  Pool<Child> children_;
  Pool<Task> tasks_;
  Pool<IovecSlab, 16> slabs_;
  Task flushSync_;  // the syncs of the flush batch in flight
  Task* batch_ = nullptr;
  std::unique_ptr<Jobs> jobs_;  // of a mirror
};

}  // namespace metadisk
