#include "engine/engine.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>

namespace metadisk {

Engine::Engine(const EngineOptions& options, std::function<void()> doorbell)
    : options_(options), doorbell_(std::move(doorbell)) {
  sinks_.event = [this](EngineEvent event) {
    if (event.kind == EngineEvent::Kind::connectionClosed) {
      const std::lock_guard lock(mutex_);
      closedConnections_.push_back(event.connection);
    }
    eventQueue_.push(std::move(event));
    ring();
  };
  ThreadOptions each;
  each.queueDepth = options.queueDepth;
  each.maxRequestBytes = options.maxRequestBytes;
  each.spinMicros = options.spinMicros;
  each.bufferBytes = options.bufferBytes / std::max(1U, options.threads);
  each.forceWorkers = options.forceWorkers;
  each.regionSweepMillis = options.regionSweepMillis;
  each.raid5.cacheBytes = options.raid5CacheBytes;
  each.raid5.journal = options.raid5Journal;
  for (unsigned i = 0; i < std::max(1U, options.threads); ++i) {
    each.index = i;
    threads_.push_back(std::make_unique<IoThread>(each, sinks_));
  }
}

Engine::~Engine() { stopNow(); }

void Engine::ring() {
  if (!rung_.exchange(true) && doorbell_) doorbell_();
}

void Engine::complete(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    callbacks_.push_back(std::move(callback));
  }
  ring();
}

void Engine::collect() {
  rung_.store(false);
  std::vector<std::function<void()>> due;
  std::vector<std::uint32_t> closed;
  {
    const std::lock_guard lock(mutex_);
    due.swap(callbacks_);
    closed.swap(closedConnections_);
  }
  for (const std::uint32_t id : closed) connections_.erase(id);
  for (auto& callback : due) callback();
}

std::string Engine::openFiles(const Plan& plan, std::span<const ComponentSpec> components, OpenPlan& out) {
  std::vector<std::uint64_t> sizes;
  for (const std::uint32_t number : plan.components) {
    const auto spec = std::find_if(components.begin(), components.end(),
                                   [&](const ComponentSpec& c) { return c.component == number; });
    if (spec == components.end()) return "component " + std::to_string(number) + " is not among those given";
    // One open file per component for as long as any plan uses it, so that a failed sync stays failed. Nothing is
    // asked of the storage again: it may hang by now.
    std::shared_ptr<ComponentFile> file = files_[number].lock();
    if (file && file->given == spec->fd && file->direct == spec->direct &&
        (!spec->direct || file->align == spec->align)) {
      file->size.store(std::max(file->size.load(), spec->size));
      file->limitNanos.store(spec->timeoutMillis * 1'000'000ULL);
      sizes.push_back(spec->size);
      out.files.push_back(std::move(file));
      continue;
    }
    auto made = std::make_unique<ComponentFile>();
    if (std::string error = openComponent(*spec, *made); !error.empty()) return error;
    std::shared_ptr<ComponentFile> fresh = closer_.share(std::move(made));
    if (file && file->device == fresh->device && file->inode == fresh->inode && file->direct == fresh->direct &&
        file->align == fresh->align) {
      file->size.store(std::max(file->size.load(), spec->size));
      file->limitNanos.store(fresh->limitNanos.load());
    } else {
      // Opened otherwise now, the pages the old one lost are still lost.
      const bool same = file && file->device == fresh->device && file->inode == fresh->inode;
      if (same) {
        fresh->syncFailed.store(file->syncFailed.load());
        fresh->suspect.store(file->suspect.load());
      }
      file = std::move(fresh);
      files_[number] = file;
    }
    // Opened again under its number, it is still the storage whose pages were lent.
    const auto [lent, isNew] = lent_.try_emplace(number, file->lent);
    if (!isNew) file->lent = lent->second;
    sizes.push_back(spec->size);
    out.files.push_back(std::move(file));
  }
  forgetClosed();
  return checkSizes(plan, sizes);
}

void Engine::forgetClosed() {
  std::erase_if(files_, [](const auto& entry) { return entry.second.expired(); });
  std::erase_if(lent_, [this](const auto& entry) {
    return entry.second->load(std::memory_order_acquire) == 0 && !files_.contains(entry.first);
  });
}

void Engine::install(std::uint32_t number, std::span<const std::byte> bytes, std::span<const ComponentSpec> components,
                     std::span<const std::byte> dirty, Done done) {
  const auto refuse = [&](std::string why) { complete([done, why = std::move(why)] { done(why); }); };
  if (stopping_ || stopped_) return refuse("the engine is stopped");
  DecodedPlan decoded = decodePlan(bytes);
  if (!decoded.plan) return refuse(decoded.reason);
  auto open = std::make_shared<OpenPlan>();
  open->plan = decoded.plan;
  open->dirty.assign(dirty.begin(), dirty.end());
  if (std::string error = openFiles(*decoded.plan, components, *open); !error.empty()) return refuse(error);

  const auto known = devices_.find(number);
  if (known != devices_.end() && known->second.removing) return refuse("the device is being removed");
  // A mirror keeps its place even with one side, because a second may be attached under its clients.
  const Node& root = decoded.plan->root();
  const bool pinned = std::holds_alternative<MirrorNode>(root) || std::holds_alternative<Raid5Node>(root);
  if (known != devices_.end() && pinned && !known->second.pinned && threads_.size() > 1) {
    for (const auto& [id, place] : connections_) {
      if (place.device == number && place.thread != owner(number)) return refuse("clients of the device are connected");
    }
    for (unsigned i = 0; i < threads_.size(); ++i) {
      if (i == owner(number)) continue;
      threads_[i]->post([thread = threads_[i].get(), number] { thread->remove(number, [] {}); });
    }
  }
  Device& device = devices_[number];
  while (device.counters.size() < threads_.size()) device.counters.push_back(std::make_shared<Counters>());
  device.open = open;
  device.pinned = pinned;

  const auto left = std::make_shared<std::atomic<unsigned>>(pinned ? 1U : static_cast<unsigned>(threads_.size()));
  for (unsigned i = 0; i < threads_.size(); ++i) {
    if (pinned && i != owner(number)) continue;
    threads_[i]->post([this, thread = threads_[i].get(), number, open, counters = device.counters[i], left, done] {
      thread->install(number, counters, open, [this, left, done] {
        // Storage that the new plan does not use is closed by then, unless that hangs.
        if (left->fetch_sub(1) == 1) closer_.afterwards([this, done] { complete([done] { done({}); }); });
      });
    });
  }
}

void Engine::remove(std::uint32_t number, Done done) {
  const auto known = devices_.find(number);
  if (known == devices_.end() || stopping_ || stopped_) return complete([done] { done({}); });
  known->second.removing = true;
  const auto left = std::make_shared<std::atomic<unsigned>>(static_cast<unsigned>(threads_.size()));
  for (auto& thread : threads_) {
    thread->post([this, raw = thread.get(), number, left, done] {
      raw->remove(number, [this, number, left, done] {
        if (left->fetch_sub(1) != 1) return;
        complete([this, number, done] {
          // The last reference to the files: their descriptors close here.
          devices_.erase(number);
          forgetClosed();
          closer_.afterwards([this, done] { complete([done] { done({}); }); });
        });
      });
    });
  }
}

void Engine::flush(std::uint32_t number, Done done) {
  const auto known = devices_.find(number);
  if (known == devices_.end() || stopping_ || stopped_) return complete([done] { done(std::strerror(ENODEV)); });
  IoThread* const thread = threads_[owner(number)].get();
  thread->post([this, thread, number, done] {
    thread->flush(number, [this, done](int error) {
      complete([done, error] { done(error == 0 ? std::string() : std::string(std::strerror(error))); });
    });
  });
}

std::uint32_t Engine::adopt(int fd, std::uint32_t number, nbd::Terms terms, std::span<const std::byte> residual,
                            std::string& error) {
  const auto known = devices_.find(number);
  if (known == devices_.end() || known->second.removing || stopping_ || stopped_) {
    error = "no such device";
    return 0;
  }
  Fd socket = Fd::duplicate(fd);
  const int flags = socket ? ::fcntl(socket.get(), F_GETFL) : -1;
  struct stat st {};
  if (flags < 0 || ::fstat(socket.get(), &st) != 0 || !S_ISSOCK(st.st_mode) ||
      ::fcntl(socket.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    error = "not a socket";
    return 0;
  }
  const int one = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);  // fails on unix sockets, rightly
  terms.maxRequest = options_.maxRequestBytes;

  unsigned place = owner(number);
  if (!known->second.pinned) {
    std::vector<unsigned> load(threads_.size(), 0);
    for (const auto& [id, where] : connections_) ++load[where.thread];
    for (unsigned i = 0; i < load.size(); ++i) {
      const unsigned candidate = (owner(number) + i) % static_cast<unsigned>(load.size());
      if (load[candidate] < load[place]) place = candidate;
    }
  }
  const std::uint32_t id = nextConnection_++;
  connections_.emplace(id, Place{number, place});
  IoThread* const thread = threads_[place].get();
  // std::function wants copies: the descriptor travels in a shared box.
  auto box = std::make_shared<Fd>(std::move(socket));
  thread->post([thread, number, id, box, terms = std::move(terms),
                rest = std::vector<std::byte>(residual.begin(), residual.end())]() mutable {
    thread->adopt(number, id, std::move(*box), std::move(terms), std::move(rest));
  });
  return id;
}

void Engine::disconnect(std::uint32_t connection, bool now) {
  const auto known = connections_.find(connection);
  if (known == connections_.end() || stopped_) return;
  IoThread* const thread = threads_[known->second.thread].get();
  thread->post([thread, connection, now] { thread->disconnect(connection, now); });
}

void Engine::resync(std::uint32_t device, const ResyncJob& job) {
  if (stopped_) return;
  IoThread* const thread = threads_[owner(device)].get();
  thread->post([thread, device, job] { thread->resync(device, job); });
}

void Engine::verify(std::uint32_t device, const VerifyJob& job) {
  if (stopped_) return;
  IoThread* const thread = threads_[owner(device)].get();
  thread->post([thread, device, job] { thread->verify(device, job); });
}

void Engine::settle(std::uint32_t device, std::uint64_t hold, bool resume) {
  if (stopped_) return;
  IoThread* const thread = threads_[owner(device)].get();
  thread->post([thread, device, hold, resume] { thread->settle(device, hold, resume); });
}

void Engine::marked(std::uint32_t device, std::uint64_t ticket, bool ok) {
  if (stopped_) return;
  IoThread* const thread = threads_[owner(device)].get();
  thread->post([thread, device, ticket, ok] { thread->marked(device, ticket, ok); });
}

bool Engine::busy(std::uint32_t component) const {
  const auto lent = lent_.find(component);
  if (lent != lent_.end() && lent->second->load(std::memory_order_acquire) != 0) return true;
  const auto known = files_.find(component);
  const auto file = known != files_.end() ? known->second.lock() : nullptr;
  return (file != nullptr && file->abandoned.load(std::memory_order_acquire) != 0) || closer_.closing(component);
}

std::vector<std::uint32_t> Engine::busyComponents() const {
  std::vector<std::uint32_t> all;
  for (const auto& [component, file] : files_) {
    if (busy(component)) all.push_back(component);
  }
  return all;
}

void Engine::raid5Job(std::uint32_t device, const Raid5Job& job) {
  if (stopped_) return;
  IoThread* const thread = threads_[owner(device)].get();
  thread->post([thread, device, job] { thread->raid5Job(device, job); });
}

void Engine::cancelResync(std::uint32_t device) {
  if (stopped_) return;
  IoThread* const thread = threads_[owner(device)].get();
  thread->post([thread, device] { thread->cancelResync(device); });
}

std::array<std::uint64_t, kCounters> Engine::counters(std::uint32_t number) const {
  std::array<std::uint64_t, kCounters> sums{};
  const auto known = devices_.find(number);
  if (known == devices_.end()) return sums;
  for (const auto& each : known->second.counters) {
    for (std::size_t i = 0; i < kCounters; ++i) sums[i] += each->get(i);
  }
  return sums;
}

void Engine::stop(Done done) {
  if (stopped_) return complete([done] { done({}); });
  stopWaiters_.push_back(std::move(done));
  if (std::exchange(stopping_, true)) return;
  const auto left = std::make_shared<std::atomic<std::size_t>>(threads_.size());
  for (auto& thread : threads_) {
    thread->post([this, raw = thread.get(), left] {
      raw->stop([this, left] {
        if (left->fetch_sub(1) != 1) return;
        complete([this] { stopNow(); });
      });
    });
  }
}

void Engine::stopNow() {
  if (std::exchange(stopped_, true)) return;
  if (!std::exchange(stopping_, true)) {
    for (auto& thread : threads_) thread->post([raw = thread.get()] { raw->stop([] {}); });
  }
  for (auto& thread : std::exchange(threads_, {})) IoThread::leave(std::move(thread));
  devices_.clear();
  connections_.clear();
  std::vector<Done> waiters;
  waiters.swap(stopWaiters_);
  for (const Done& done : waiters) done({});
}

}  // namespace metadisk
