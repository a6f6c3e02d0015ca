#include "engine/thread.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <mutex>
#include <utility>

namespace metadisk {

namespace {

constexpr std::uint64_t kMillis = 1'000'000;
constexpr std::uint64_t kRemoveGrace = 2'000 * kMillis;
// For Ios in flight when the thread is to stop, after clients had their time to be drained; again and again for
// those that were queued behind them.
constexpr std::uint64_t kStopGrace = 3'000 * kMillis;
constexpr std::uint64_t kStopAgain = 100 * kMillis;

// Threads that stay. Never destroyed: they may be at work when the process ends.
struct Stayed {
  std::mutex mutex;
  std::vector<std::unique_ptr<IoThread>> threads;
};
Stayed& stayed() {
  static auto* const all = new Stayed;
  return *all;
}

}  // namespace

IoThread::IoThread(const ThreadOptions& options, const DeviceSinks& sinks)
    : options_(options),
      sinks_(sinks),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      buffers_(std::max(options.bufferBytes, 4 * BufferPool::roundedSize(options.maxRequestBytes))) {
  thread_ = std::thread([this] {
    // Signals belong to the process's main thread.
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    std::array<char, 16> name{};
    std::snprintf(name.data(), name.size(), "metadisk-io%u", options_.index);
    pthread_setname_np(pthread_self(), name.data());
    run();
  });
  ready_.wait(false);
}

IoThread::~IoThread() {
  if (thread_.joinable()) thread_.join();
}

void IoThread::leave(std::unique_ptr<IoThread> thread) {
  thread->ending_.wait(Ending::runs);
  const std::lock_guard lock(stayed().mutex);
  std::erase_if(stayed().threads, [](const auto& other) { return other->ending_.load() == Ending::over; });
  if (thread->ending_.load() != Ending::over) stayed().threads.push_back(std::move(thread));
}

void IoThread::run() {
  UringOptions uring;
  uring.forceWorkers = options_.forceWorkers;
  backend_ = std::make_unique<UringBackend>(mailbox_, uring);
  backend_->setTime(coarseNanos());
  buffers_.guard(&backend_->held());
  const auto watch = [this](int fd, Source source) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = static_cast<std::uint64_t>(source);
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  };
  watch(mailbox_.fd(), Source::mailbox);
  if (backend_->eventFd() >= 0) watch(backend_->eventFd(), Source::ring);
  ready_.store(true);
  ready_.notify_all();

  while (!(stopping_ && devices_.empty())) {
    if (turn()) continue;
    if (spin()) continue;
    sleep();
  }
  end();
}

// The kernel must be done with every buffer before they go, but nobody waits for that.
void IoThread::end() {
  const auto stopped = std::exchange(stopped_, nullptr);
  const auto tell = [this](Ending how) {
    ending_.store(how);
    ending_.notify_all();
  };
  if (backend_->inFlight() != 0) {
    tell(Ending::stays);
    if (stopped) stopped();
    while (backend_->inFlight() != 0) {
      mailbox_.run();
      backend_->submit();
      if (backend_->poll() == 0 && backend_->sleepBegins()) {
        events(1000);
        backend_->sleepEnds();
      }
    }
    buffers_.guard(nullptr);
    backend_.reset();
    return tell(Ending::over);
  }
  buffers_.guard(nullptr);
  backend_.reset();
  tell(Ending::over);
  if (stopped) stopped();
}

// Everything that can be done without waiting. False when there was nothing.
bool IoThread::turn() {
  bool any = busy_;
  busy_ = false;
  const std::uint64_t now = coarseNanos();
  backend_->setTime(now);
  if (mailbox_.pending()) any |= mailbox_.run();
  if (now >= giveUpAt_) {
    giveUpAt_ = now + kStopAgain;
    backend_->giveUpAll();
    any = true;
  }
  any |= backend_->poll() != 0;
  if (now >= lent_.wakeAt()) lent_.look(now);
  if (!attention_.empty()) advanceDevices();
  flushDirty();
  backend_->submit();
  busy_ |= line_.serve(all_);
  if (!dirty_.empty()) flushDirty();
  reap();
  return any;
}

// ---- connections

void IoThread::wantFlush(nbd::Connection& connection) noexcept {
  if (connection.flushWanted) return;
  connection.flushWanted = true;
  dirty_.push_back(&connection);
}

void IoThread::wantBuffer(nbd::Connection& connection) noexcept { line_.join(connection); }

void IoThread::closed(nbd::Connection& connection) noexcept { reapable_.push_back(connection.id()); }

void IoThread::flushDirty() {
  while (!dirty_.empty()) {
    flushing_.swap(dirty_);
    for (nbd::Connection* connection : flushing_) {
      connection->flushWanted = false;
      connection->flush();
      if (connection->canResume() && !connection->waitsForBuffer && !connection->target().held()) connection->resume();
      updateInterest(*connection);
    }
    flushing_.clear();
  }
}

void IoThread::updateInterest(nbd::Connection& connection) {
  if (connection.finished || connection.registered == UINT32_MAX) return;
  const std::uint32_t wanted = connection.interest();
  if (wanted == connection.registered) return;
  epoll_event event{};
  event.events = wanted;
  event.data.ptr = &connection;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.fd(), &event) == 0) connection.registered = wanted;
}

void IoThread::reap() {
  while (!reapable_.empty()) {
    const std::uint32_t id = reapable_.back();
    reapable_.pop_back();
    const auto found = byId_.find(id);
    if (found == byId_.end()) continue;
    nbd::Connection* const connection = found->second;
    byId_.erase(found);
    std::erase(all_, connection);
    std::erase(dirty_, connection);
    line_.leave(*connection);
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, connection->fd(), nullptr);
    auto& device = static_cast<ThreadDevice&>(connection->target());
    LentPages::Marks marks;
    for (const auto& file : device.files()) marks.push_back(file->lent);
    lent_.ends(*connection, marks);
    EngineEvent event;
    event.kind = EngineEvent::Kind::connectionClosed;
    event.device = device.number();
    event.connection = id;
    event.reason = connection->reason();
    device.counters().add(Counter::connections, UINT64_MAX);
    auto& connections = devices_.at(device.number()).connections;
    connections.erase(id);
    if (connections.empty()) device.clients(false);
    sinks_.event(std::move(event));
    busy_ = true;
  }
}

void IoThread::adopt(std::uint32_t number, std::uint32_t id, Fd socket, nbd::Terms terms,
                     std::vector<std::byte> residual) {
  EngineEvent refused;
  refused.kind = EngineEvent::Kind::connectionClosed;
  refused.device = number;
  refused.connection = id;
  const auto found = devices_.find(number);
  if (found == devices_.end() || !found->second.gone.empty() || stopping_) {
    refused.reason = "the device is gone";
    return sinks_.event(std::move(refused));
  }
  Local& local = found->second;
  nbd::Connection::Options options;
  options.id = id;
  options.queueDepth = options_.queueDepth;
  options.maxBufferBytes = std::max<std::size_t>(BufferPool::roundedSize(options_.maxRequestBytes), 16U << 20U);
  auto connection = std::make_unique<nbd::Connection>(std::move(socket), std::move(terms), options, buffers_, pipes_,
                                                      *local.device, *this);
  if (!residual.empty()) connection->preload(residual);
  epoll_event event{};
  event.events = connection->interest();
  event.data.ptr = connection.get();
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, connection->fd(), &event) != 0) {
    refused.reason = std::strerror(errno);
    return sinks_.event(std::move(refused));
  }
  connection->registered = event.events;
  nbd::Connection& adopted = *connection;
  byId_.emplace(id, &adopted);
  all_.push_back(&adopted);
  local.connections.emplace(id, std::move(connection));
  local.device->clients(true);
  local.device->counters().add(Counter::connections, 1);
  adopted.resume();
}

nbd::Connection* IoThread::connectionOf(std::uint32_t id) noexcept {
  const auto found = byId_.find(id);
  return found == byId_.end() ? nullptr : found->second;
}

void IoThread::disconnect(std::uint32_t id, bool now) {
  nbd::Connection* const connection = connectionOf(id);
  if (connection == nullptr) return;
  if (now) {
    connection->abort("disconnected");
  } else {
    connection->drain("disconnected");
  }
}

// ---- devices

ThreadDevice* IoThread::find(std::uint32_t device) noexcept {
  const auto found = devices_.find(device);
  return found == devices_.end() || !found->second.gone.empty() ? nullptr : found->second.device.get();
}

void IoThread::install(std::uint32_t device, const std::shared_ptr<Counters>& counters,
                       std::shared_ptr<const OpenPlan> plan, std::function<void()> installed) {
  Local& local = devices_[device];
  if (!local.device)
    local.device =
        std::make_unique<ThreadDevice>(device, *backend_, sinks_, counters, options_.regionSweepMillis * kMillis,
                                       options_.raid5, [this, device] { attend(device); });
  if (!stopping_) {
    // A removal under way only made room on this thread: the device is wanted here again.
    for (const auto& report : std::exchange(local.gone, {})) report();
    local.giveUpAt = 0;
  }
  LentPages::Marks leaving;
  for (const auto& file : local.device->files()) {
    if (std::find(plan->files.begin(), plan->files.end(), file) == plan->files.end()) leaving.push_back(file->lent);
  }
  if (!leaving.empty()) {
    // From the moment at which nothing more of them can be lent.
    installed = [this, device, leaving = std::move(leaving), then = std::move(installed)] {
      for (const auto& [id, connection] : devices_.at(device).connections) lent_.leaves(*connection, leaving);
      then();
    };
  }
  local.device->install(std::move(plan), std::move(installed));
  attend(device);
}

void IoThread::flush(std::uint32_t device, std::function<void(int)> done) {
  ThreadDevice* const found = find(device);
  if (found == nullptr) return done(ENODEV);
  found->flush(std::move(done));
  attend(device);
}

void IoThread::resync(std::uint32_t device, const ResyncJob& job) {
  ThreadDevice* const found = find(device);
  if (found == nullptr) return jobFailed(device, job.job, job.from);
  found->resync(job);
  attend(device);
}

void IoThread::verify(std::uint32_t device, const VerifyJob& job) {
  ThreadDevice* const found = find(device);
  if (found == nullptr) return jobFailed(device, job.job, job.from);
  found->verify(job);
  attend(device);
}

void IoThread::raid5Job(std::uint32_t device, const Raid5Job& job) {
  ThreadDevice* const found = find(device);
  if (found == nullptr) return jobFailed(device, job.job, job.from);
  found->raid5Job(job);
  attend(device);
}

void IoThread::settle(std::uint32_t device, std::uint64_t hold, bool resume) {
  ThreadDevice* const found = find(device);
  if (found == nullptr) return;
  found->settle(hold, resume);
  attend(device);
}

void IoThread::marked(std::uint32_t device, std::uint64_t ticket, bool ok) {
  // Also while it is being removed: its clients' last writes may wait for this.
  const auto found = devices_.find(device);
  if (found == devices_.end()) return;
  found->second.device->marked(ticket, ok);
  attend(device);
}

// A job for a device that is not there ends at once.
void IoThread::jobFailed(std::uint32_t device, std::uint64_t job, std::uint64_t done) {
  EngineEvent event;
  event.kind = EngineEvent::Kind::resyncEnded;
  event.device = device;
  event.job = job;
  event.outcome = ResyncOutcome::failed;
  event.error = ENODEV;
  event.done = done;
  sinks_.event(std::move(event));
}

void IoThread::cancelResync(std::uint32_t device) {
  if (ThreadDevice* const found = find(device)) found->cancelResync();
}

void IoThread::attend(std::uint32_t device) {
  if (std::find(attention_.begin(), attention_.end(), device) == attention_.end()) attention_.push_back(device);
  busy_ = true;
}

void IoThread::remove(std::uint32_t device, std::function<void()> gone) {
  const auto found = devices_.find(device);
  if (found == devices_.end()) return gone();
  Local& local = found->second;
  if (local.gone.empty()) {
    // Clients with requests under a hold get no answer: it could only be a wrong one.
    const bool cut = local.device->holding();
    for (auto& [id, connection] : local.connections) {
      if (cut) {
        connection->abort("the metadevice is gone");
      } else {
        connection->drain("the metadevice is gone");
      }
    }
    local.device->close();
    local.giveUpAt = monotonicNanos() + kRemoveGrace;
  }
  local.gone.push_back(std::move(gone));
  attend(device);
}

// Lets waiting plans take over, moves jobs on and finishes removals.
void IoThread::advanceDevices() {
  const std::uint64_t now = monotonicNanos();
  std::vector<std::function<void()>> reports;
  // Whoever asks for attention meanwhile is added to a list that nobody is going through.
  attended_.swap(attention_);
  const auto over = [&](std::uint32_t number) {
    const auto found = devices_.find(number);
    if (found == devices_.end()) return true;
    Local& local = found->second;
    local.device->tick(now);
    if (local.device->advance()) {
      busy_ = true;
      for (auto& [id, connection] : local.connections) connection->resume();
    }
    if (local.gone.empty()) return local.device->settled();
    if (now >= local.giveUpAt) {
      // A client that does not read its last replies has had its time.
      local.giveUpAt = UINT64_MAX;
      for (auto& [id, connection] : local.connections) connection->abort("the metadevice is gone");
      local.device->giveUp();
      busy_ = true;
    }
    if (!local.connections.empty() || !local.device->idle()) return false;
    std::move(local.gone.begin(), local.gone.end(), std::back_inserter(reports));
    devices_.erase(found);
    busy_ = true;
    return true;
  };
  for (const std::uint32_t number : attended_) {
    const bool done = over(number);
    const bool listed = std::find(attention_.begin(), attention_.end(), number) != attention_.end();
    if (!done && !listed) attention_.push_back(number);
  }
  attended_.clear();
  for (const auto& report : reports) report();
}

void IoThread::stop(std::function<void()> stopped) {
  stopping_ = true;
  stopped_ = std::move(stopped);
  giveUpAt_ = coarseNanos() + kStopGrace;
  for (auto& [number, local] : devices_) remove(number, [] {});
}

}  // namespace metadisk
