// One I/O thread: its loop, its ring, its connections and its part of every device.
//
// Invariants: everything but post(), start() and join() runs on the thread itself. Connections and
// volumes are destroyed between turns only, never inside their own callbacks. A turn: messages,
// completions, one receive per readable connection, replies, submissions; then a short spin, then sleep.
// A thread that was stopped while the kernel still holds memory of its own stays, for that alone (leave()).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/buffers.h"
#include "core/fd.h"
#include "core/mailbox.h"
#include "core/pages.h"
#include "engine/bufferline.h"
#include "engine/device.h"
#include "engine/lent.h"
#include "io/uring.h"
#include "nbd/connection.h"

namespace metadisk {

struct ThreadOptions {
  unsigned index = 0;
  unsigned queueDepth = 128;
  std::size_t maxRequestBytes = 32 * 1024 * 1024;
  unsigned spinMicros = 20;
  std::size_t bufferBytes = 512 * 1024 * 1024;
  bool forceWorkers = false;
  unsigned regionSweepMillis = 10'000;
  Raid5Options raid5;
};

class IoThread final : public nbd::ConnectionHost {
 public:
  IoThread(const ThreadOptions& options, const DeviceSinks& sinks);
  ~IoThread() override;

  void post(std::function<void()> message) { mailbox_.post(std::move(message)); }
  // After stop() was posted. Waits until it has stopped; when the kernel still holds something, the thread goes on
  // until that has come back or the process ends, without the engine.
  static void leave(std::unique_ptr<IoThread> thread);

  // On the thread:
  void install(std::uint32_t device, const std::shared_ptr<Counters>& counters, std::shared_ptr<const OpenPlan> plan,
               std::function<void()> installed);
  void flush(std::uint32_t device, std::function<void(int)> done);
  void resync(std::uint32_t device, const ResyncJob& job);
  void verify(std::uint32_t device, const VerifyJob& job);
  void raid5Job(std::uint32_t device, const Raid5Job& job);
  void settle(std::uint32_t device, std::uint64_t hold, bool resume);
  void marked(std::uint32_t device, std::uint64_t ticket, bool ok);
  void cancelResync(std::uint32_t device);
  void adopt(std::uint32_t device, std::uint32_t id, Fd socket, nbd::Terms terms, std::vector<std::byte> residual);
  void disconnect(std::uint32_t id, bool now);
  // `gone` runs when the device has no connection and no request here any more.
  void remove(std::uint32_t device, std::function<void()> gone);
  // Removes everything, then leaves the loop; what the kernel has not returned some seconds later is given up.
  void stop(std::function<void()> stopped);

  void wantFlush(nbd::Connection& connection) noexcept override;
  void wantBuffer(nbd::Connection& connection) noexcept override;
  bool mayLend() const noexcept override { return !lent_.full(); }
  void closed(nbd::Connection& connection) noexcept override;

 private:
  struct Local {
    std::unique_ptr<ThreadDevice> device;
    std::unordered_map<std::uint32_t, std::unique_ptr<nbd::Connection>> connections;
    std::vector<std::function<void()>> gone;  // not empty: being removed
    std::uint64_t giveUpAt = 0;               // unsent replies are dropped then
  };

  // In the data of an epoll event, where connections put their address.
  enum class Source : std::uint64_t { mailbox = 0, ring = 1 };

  enum class Ending : std::uint8_t { runs, stays, over };

  void run();
  void end();
  bool turn();
  void attend(std::uint32_t device);
  void advanceDevices();
  void jobFailed(std::uint32_t device, std::uint64_t job, std::uint64_t done);
  void flushDirty();
  void reap();
  void updateInterest(nbd::Connection& connection);
  bool events(int timeoutMillis);
  bool spin();
  void sleep();
  int sleepMillis();
  ThreadDevice* find(std::uint32_t device) noexcept;
  nbd::Connection* connectionOf(std::uint32_t id) noexcept;

  const ThreadOptions options_;
  const DeviceSinks& sinks_;
  Mailbox mailbox_;
  Fd epoll_;
  std::unique_ptr<UringBackend> backend_;
  BufferPool buffers_;
  BufferLine line_{buffers_};  // wantBuffer
  PagePipes pipes_;
  LentPages lent_;
  std::unordered_map<std::uint32_t, Local> devices_;
  std::unordered_map<std::uint32_t, nbd::Connection*> byId_;
  std::vector<nbd::Connection*> all_;    // for spinning and stall checks
  std::vector<nbd::Connection*> dirty_;  // wantFlush
  std::vector<nbd::Connection*> flushing_;
  std::vector<std::uint32_t> reapable_;
  std::vector<std::uint32_t> attention_;  // devices with control work under way; usually few
  std::vector<std::uint32_t> attended_;   // the same, while they are gone through
  std::function<void()> stopped_;
  bool stopping_ = false;
  std::uint64_t giveUpAt_ = UINT64_MAX;  // everything in flight
  std::atomic<Ending> ending_{Ending::runs};
  bool busy_ = false;    // the last turn did something
  int spinCredit_ = 16;  // falls with every spin in vain
  unsigned sleeps_ = 0;
  std::atomic<bool> ready_{false};
  std::thread thread_;
};

}  // namespace metadisk
