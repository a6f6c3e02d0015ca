#include "engine/device.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace metadisk {

namespace {

bool reduced(const Plan& plan) noexcept {
  if (const auto* const raid5 = std::get_if<Raid5Node>(&plan.root())) {
    return !std::all_of(raid5->columns.begin(), raid5->columns.begin() + raid5->serving,
                        [](const Raid5Column& column) { return column.service.okay(); });
  }
  const auto* const mirror = std::get_if<MirrorNode>(&plan.root());
  if (mirror == nullptr) return false;
  const auto okay = [](const Node& node) {
    const auto* const part = std::get_if<ComponentNode>(&node);
    return part == nullptr || part->service.okay();
  };
  if (!std::all_of(plan.nodes.begin(), plan.nodes.end(), okay)) return true;
  return mirror->sides.size() < 2 || !std::all_of(mirror->sides.begin(), mirror->sides.end(),
                                                  [](const MirrorSide& side) { return side.readable && !side.stale; });
}

int begin(Volume& volume, const ResyncJob& job) noexcept { return volume.startResync(job); }
int begin(Volume& volume, const VerifyJob& job) noexcept { return volume.startVerify(job); }
int begin(Volume& volume, const Raid5Job& job) noexcept { return volume.startRaid5(job); }

}  // namespace

ThreadDevice::Mounted::Mounted(ThreadDevice& owner, std::shared_ptr<const OpenPlan> opened,
                               std::function<void()> whenInstalled)
    : device(owner), open(std::move(opened)), installed(std::move(whenInstalled)) {
  std::vector<ComponentFile*> files;
  files.reserve(open->files.size());
  for (const auto& file : open->files) files.push_back(file.get());
  volume = std::make_unique<Volume>(open->plan, files, owner.backend_, *this, owner.state_);
}

void ThreadDevice::Mounted::componentError(const ComponentFault& fault) noexcept {
  EngineEvent event;
  event.kind = EngineEvent::Kind::componentError;
  event.device = device.number_;
  event.generation = open->plan->generation;
  event.component = fault.component;
  event.op = fault.op;
  event.block = fault.block;
  event.error = fault.error;
  event.masked = fault.masked;
  event.repairFailed = fault.repairFailed;
  device.sinks_.event(std::move(event));
}

void ThreadDevice::Mounted::componentRepaired(std::uint32_t component, std::uint64_t block,
                                              std::uint64_t blocks) noexcept {
  EngineEvent event;
  event.kind = EngineEvent::Kind::componentRepaired;
  event.device = device.number_;
  event.generation = open->plan->generation;
  event.component = component;
  event.block = block;
  event.blocks = blocks;
  device.counters_->add(Counter::repairedBlocks, blocks);
  device.sinks_.event(std::move(event));
}

void ThreadDevice::Mounted::resyncProgress(std::uint64_t job, std::uint64_t done, std::uint64_t total) noexcept {
  EngineEvent event;
  event.kind = EngineEvent::Kind::resyncProgress;
  event.device = device.number_;
  event.job = job;
  event.done = done;
  event.total = total;
  device.sinks_.event(std::move(event));
}

void ThreadDevice::Mounted::resyncCheckpoint(std::uint64_t job, std::uint64_t done) noexcept {
  EngineEvent event;
  event.kind = EngineEvent::Kind::resyncCheckpoint;
  event.device = device.number_;
  event.job = job;
  event.done = done;
  device.sinks_.event(std::move(event));
}

void ThreadDevice::Mounted::verifyMismatch(std::uint64_t job, std::uint64_t block, std::uint64_t blocks) noexcept {
  EngineEvent event;
  event.kind = EngineEvent::Kind::verifyMismatch;
  event.device = device.number_;
  event.job = job;
  event.block = block;
  event.blocks = blocks;
  device.sinks_.event(std::move(event));
}

void ThreadDevice::Mounted::resyncEnded(const ResyncEnd& end) noexcept {
  EngineEvent event;
  event.kind = EngineEvent::Kind::resyncEnded;
  event.device = device.number_;
  event.job = end.job;
  event.outcome = end.outcome;
  event.error = end.error;
  event.done = end.done;
  event.component = end.component;
  event.mismatches = end.mismatches;
  device.sinks_.event(std::move(event));
}

void ThreadDevice::Mounted::replayed(const Raid5Replayed& result) noexcept {
  EngineEvent event;
  event.kind = EngineEvent::Kind::replayed;
  event.device = device.number_;
  event.generation = open->plan->generation;
  event.error = result.error;
  event.done = result.groups;
  event.blocks = result.blocks;
  event.mismatches = result.damaged;
  event.ticket = result.epoch;
  device.sinks_.event(std::move(event));
}

ThreadDevice::ThreadDevice(std::uint32_t number, Backend& backend, const DeviceSinks& sinks,
                           std::shared_ptr<Counters> counters, std::uint64_t sweepNanos, const Raid5Options& raid5,
                           std::function<void()> attend)
    : number_(number),
      backend_(backend),
      sinks_(sinks),
      counters_(std::move(counters)),
      attend_(std::move(attend)),
      log_(number, sweepNanos,
           {.event = [this](EngineEvent event) { sinks_.event(std::move(event)); },
            .attend = [this] { attend_(); },
            .flush = [this](std::function<void(int)> done) { flush(std::move(done)); }}) {
  state_.stale = &log_.stale();
  state_.raid5Options = raid5;
}

void ThreadDevice::install(std::shared_ptr<const OpenPlan> plan, std::function<void()> installed) {
  closed_ = false;
  auto next = std::make_unique<Mounted>(*this, std::move(plan), std::move(installed));
  const bool ordered = next->volume->stateful() || (current_ != nullptr && current_->volume->stateful());
  // A job belongs to the plan it was started under: it ends as cancelled and says how far it came.
  if (current_ != nullptr) current_->volume->quiesce();
  if (current_ == nullptr) {
    log_.load(next->open->dirty);
    mount(std::move(next));
  } else if (ordered || !waiting_.empty()) {
    waiting_.push_back(std::move(next));
  } else {
    older_.push_back(std::move(current_));
    mount(std::move(next));
  }
}

void ThreadDevice::mount(std::unique_ptr<Mounted> next) {
  current_ = std::move(next);
  stateFlags_ = reduced(*current_->open->plan) ? 1U : 0U;
  log_.mount(*current_->open->plan);
  state_.regions = log_.regions();
  const auto* const raid5 = std::get_if<Raid5Node>(&current_->open->plan->root());
  replaying_ = raid5 != nullptr && raid5->replay;
  current_->volume->begin();
}

std::vector<std::shared_ptr<ComponentFile>> ThreadDevice::files() const {
  std::vector<std::shared_ptr<ComponentFile>> all;
  const auto add = [&all](const std::unique_ptr<Mounted>& plan) {
    if (plan != nullptr) all.insert(all.end(), plan->open->files.begin(), plan->open->files.end());
  };
  add(current_);
  std::for_each(older_.begin(), older_.end(), add);
  std::for_each(waiting_.begin(), waiting_.end(), add);
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

bool ThreadDevice::advance() {
  bool opened = false;
  older_.remove_if([](const auto& old) { return old->volume->inFlight() == 0; });
  if (closed_ && state_.hold.closed()) state_.hold.drop(ESHUTDOWN);
  if (state_.hold.closing()) announceHold();
  while (!waiting_.empty() && older_.empty() && current_->volume->inFlight() == 0 &&
         log_.mountable(*waiting_.front()->open->plan)) {
    if (current_->installed) std::exchange(current_->installed, nullptr)();
    auto next = std::move(waiting_.front());
    waiting_.pop_front();
    mount(std::move(next));
    opened = true;
  }
  if (current_ != nullptr && older_.empty() && waiting_.empty() && current_->installed) {
    std::exchange(current_->installed, nullptr)();
  }
  if (state_.hold.settled() && waiting_.empty()) opened = releaseHold() || opened;
  startFlushes();
  startJob();
  return opened && !held();
}

// All that led to it has been reported, and nothing of a client is under way.
void ThreadDevice::announceHold() {
  if (current_->volume->requests() != 0 || !older_.empty()) return;
  EngineEvent event;
  event.kind = EngineEvent::Kind::held;
  event.device = number_;
  event.generation = current_->open->plan->generation;
  event.ticket = state_.hold.announce();
  sinks_.event(std::move(event));
}

void ThreadDevice::settle(std::uint64_t hold, bool resume) {
  if (!resume && state_.hold.number() == hold) state_.unequal = true;
  state_.hold.settle(hold, resume);
}

bool ThreadDevice::releaseHold() {
  state_.hold.release([this](Request& r) { current_->volume->submit(r); });
  return !state_.hold.closed();
}

void ThreadDevice::flush(std::function<void(int)> done) {
  flushes_.emplace_back().done = std::move(done);
  startFlushes();
}

void ThreadDevice::startFlushes() {
  if (!flushes_.empty() && !held()) {
    for (FlushJob& job : flushes_) {
      if (job.submitted) continue;
      job.submitted = true;
      job.request.op = Op::flush;
      job.request.owner = &job;
      job.request.done = [](Request& request) noexcept { static_cast<FlushJob*>(request.owner)->finished = true; };
      submit(job.request);
    }
  }
  for (auto job = flushes_.begin(); job != flushes_.end();) {
    if (!job->finished) {
      ++job;
      continue;
    }
    job->done(job->request.error);
    job = flushes_.erase(job);
  }
}

void ThreadDevice::resync(const ResyncJob& job) {
  if (jobWanted_) return jobFailed(job.job, ResyncOutcome::failed, EBUSY, job.from);
  jobWanted_ = job;
  startJob();
}

void ThreadDevice::verify(const VerifyJob& job) {
  if (jobWanted_) return jobFailed(job.job, ResyncOutcome::failed, EBUSY, job.from);
  jobWanted_ = job;
  startJob();
}

void ThreadDevice::raid5Job(const Raid5Job& job) {
  if (jobWanted_) return jobFailed(job.job, ResyncOutcome::failed, EBUSY, job.from);
  jobWanted_ = job;
  startJob();
}

void ThreadDevice::marked(std::uint64_t ticket, bool ok) {
  const auto& newest = waiting_.empty() ? current_ : waiting_.back();
  log_.marked(ticket, ok, newest != nullptr && newest->open->plan->readOnly ? EROFS : EIO);
}

void ThreadDevice::startJob() {
  if (!jobWanted_ || held()) return;
  const auto wanted = *std::exchange(jobWanted_, std::nullopt);
  Volume& volume = *current_->volume;
  std::visit(
      [&](const auto& job) {
        const int error = begin(volume, job);
        if (error != 0) jobFailed(job.job, ResyncOutcome::failed, error, job.from);
      },
      wanted);
}

void ThreadDevice::cancelResync() {
  if (jobWanted_) {
    const auto wanted = *std::exchange(jobWanted_, std::nullopt);
    std::visit([&](const auto& job) { jobFailed(job.job, ResyncOutcome::cancelled, 0, job.from); }, wanted);
  }
  if (current_ != nullptr) current_->volume->cancelResync();
}

void ThreadDevice::jobFailed(std::uint64_t job, ResyncOutcome outcome, int error, std::uint64_t done) {
  EngineEvent event;
  event.kind = EngineEvent::Kind::resyncEnded;
  event.device = number_;
  event.job = job;
  event.outcome = outcome;
  event.error = error;
  event.done = done;
  sinks_.event(std::move(event));
}

void ThreadDevice::close() {
  closed_ = true;
  cancelResync();
  if (current_ != nullptr) current_->volume->quiesce();
  log_.close();
  state_.hold.drop(ESHUTDOWN);
}

bool ThreadDevice::idle() const noexcept {
  return waiting_.empty() && older_.empty() && flushes_.empty() &&
         (current_ == nullptr || current_->volume->inFlight() == 0);
}

bool ThreadDevice::settled() const noexcept {
  return waiting_.empty() && older_.empty() && flushes_.empty() && !jobWanted_ && !state_.hold.closing() &&
         !state_.hold.settled() && log_.wakeAt() == UINT64_MAX &&
         (current_ == nullptr || (!current_->installed && !current_->volume->working()));
}

void ThreadDevice::tick(std::uint64_t now) noexcept {
  if (current_ != nullptr && now >= current_->volume->wakeAt()) current_->volume->tick();
  log_.allowCleaning(!state_.hold.closed() && !state_.unequal);
  log_.advance(now);
}

std::uint64_t ThreadDevice::wakeAt() const noexcept {
  return current_ == nullptr ? UINT64_MAX : std::min(current_->volume->wakeAt(), log_.wakeAt());
}

std::uint64_t ThreadDevice::size() const noexcept { return current_ == nullptr ? 0 : current_->volume->size(); }

// A write whose payload was still arriving when the gate closed comes too late to be kept out.
void ThreadDevice::submit(Request& request) noexcept {
  state_.hold.order(request);
  if (state_.hold.closed()) return state_.hold.park(request, false);
  current_->volume->submit(request);
}

std::size_t ThreadDevice::ranges(std::uint64_t offset, std::uint64_t length, std::span<FileRange> out) noexcept {
  return current_->volume->ranges(offset, length, out);
}

void ThreadDevice::account(std::uint16_t command, std::uint64_t bytes, bool failed) noexcept {
  struct Fields {
    Counter count, bytes, errors;
  };
  constexpr Counter none = Counter::count;
  static constexpr Fields rows[] = {
      {Counter::reads, Counter::readBytes, Counter::readErrors},
      {Counter::writes, Counter::writeBytes, Counter::writeErrors},
      {none, none, none},
      {Counter::flushes, none, Counter::flushErrors},
      {Counter::trims, Counter::trimBytes, Counter::trimErrors},
      {Counter::caches, Counter::cacheBytes, Counter::cacheErrors},
      {Counter::zeroes, Counter::zeroBytes, Counter::zeroErrors},
      {Counter::blockStatuses, none, Counter::blockStatusErrors},
  };
  if (command >= std::size(rows) || rows[command].count == none) return counters_->add(Counter::badRequests, 1);
  const Fields& row = rows[command];
  counters_->add(row.count, 1);
  if (failed) {
    counters_->add(row.errors, 1);
  } else if (row.bytes != none) {
    counters_->add(row.bytes, bytes);
  }
}

}  // namespace metadisk
