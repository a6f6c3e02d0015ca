// The engine as the control plane sees it: devices, plans, connections, events.
//
// Invariants: every function is called by one control thread. Results come as callbacks, run by
// collect() on that thread; `doorbell` may ring from any thread and only says that collect() has work.
// Connections of a mirror live on its owner thread (device modulo threads); others are spread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/closer.h"
#include "engine/counters.h"
#include "engine/events.h"
#include "engine/thread.h"

namespace metadisk {

struct EngineOptions {
  unsigned threads = 1;
  unsigned queueDepth = 128;
  std::size_t maxRequestBytes = 32 * 1024 * 1024;
  unsigned spinMicros = 20;
  // Payload buffers of all threads together.
  std::size_t bufferBytes = 1024UL * 1024 * 1024;
  bool forceWorkers = false;
  std::uint32_t regionSweepMillis = 10'000;
  std::size_t raid5CacheBytes = 64UL * 1024 * 1024;
  bool raid5Journal = true;  // false, for measuring its price: nothing survives a crash
};

class Engine {
 public:
  using Done = std::function<void(std::string error)>;  // empty: success

  Engine(const EngineOptions& options, std::function<void()> doorbell);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // `dirty`: the regions of a mirror that does not exist yet, see src/dataplane/types.ts.
  void install(std::uint32_t device, std::span<const std::byte> plan, std::span<const ComponentSpec> components,
               std::span<const std::byte> dirty, Done done);
  void remove(std::uint32_t device, Done done);
  void flush(std::uint32_t device, Done done);
  // The connection's number, or 0 with `error` set. `fd` is duplicated.
  std::uint32_t adopt(int fd, std::uint32_t device, nbd::Terms terms, std::span<const std::byte> residual,
                      std::string& error);
  void disconnect(std::uint32_t connection, bool now);
  void resync(std::uint32_t device, const ResyncJob& job);
  void verify(std::uint32_t device, const VerifyJob& job);
  void raid5Job(std::uint32_t device, const Raid5Job& job);
  void cancelResync(std::uint32_t device);
  void settle(std::uint32_t device, std::uint64_t hold, bool resume);
  void marked(std::uint32_t device, std::uint64_t ticket, bool ok);
  // Whether the kernel still holds operations of this component that were given up, or is still closing it, or a
  // client may still find pages in its socket that were lent while a device had it.
  bool busy(std::uint32_t component) const;
  // All for which busy() holds.
  std::vector<std::uint32_t> busyComponents() const;
  // Zeroes for an unknown device.
  std::array<std::uint64_t, kCounters> counters(std::uint32_t device) const;
  void stop(Done done);
  // For ends that cannot wait for callbacks; returns when the threads are gone.
  void stopNow();

  // Runs the callbacks that are due.
  void collect();
  std::vector<EngineEvent> drain(std::size_t max) { return eventQueue_.take(max); }
  bool hasEvents() { return !eventQueue_.empty(); }

 private:
  struct Device {
    std::shared_ptr<const OpenPlan> open;
    bool pinned = false;
    bool removing = false;
    std::vector<std::shared_ptr<Counters>> counters;  // one per thread
  };
  struct Place {
    std::uint32_t device = 0;
    unsigned thread = 0;
  };

  unsigned owner(std::uint32_t device) const noexcept { return device % static_cast<unsigned>(threads_.size()); }
  void complete(std::function<void()> callback);
  void ring();
  void forgetClosed();
  std::string openFiles(const Plan& plan, std::span<const ComponentSpec> components, OpenPlan& out);

  const EngineOptions options_;
  std::function<void()> doorbell_;
  std::atomic<bool> rung_{false};
  DeviceSinks sinks_;
  EventQueue eventQueue_;
  std::mutex mutex_;
  std::vector<std::function<void()>> callbacks_;
  std::vector<std::uint32_t> closedConnections_;
  Closer closer_;
  std::vector<std::unique_ptr<IoThread>> threads_;
  std::unordered_map<std::uint32_t, Device> devices_;
  std::unordered_map<std::uint32_t, Place> connections_;
  std::unordered_map<std::uint32_t, std::weak_ptr<ComponentFile>> files_;  // by component number
  // Of each: see ComponentFile::lent. It outlives the file.
  std::unordered_map<std::uint32_t, std::shared_ptr<std::atomic<std::uint32_t>>> lent_;
  std::uint32_t nextConnection_ = 1;
  bool stopped_ = false;
  bool stopping_ = false;
  std::vector<Done> stopWaiters_;
};

}  // namespace metadisk
