// What the engine reports upward, and the queue it waits in.
//
// Bounded: one waiting error per component, direction, fate and generation; one repair per component,
// whose blocks are added up; one progress and one checkpoint per job, overwritten by newer; one hold and
// two tickets per device; 1000 mismatches and one end per job; one close per connection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "md/volume.h"

namespace metadisk {

struct EngineEvent {
  enum class Kind : std::uint8_t {
    componentError,
    componentRepaired,
    held,
    regionsDirty,
    regionsIdle,
    resyncProgress,
    resyncCheckpoint,
    verifyMismatch,
    resyncEnded,
    connectionClosed,
    replayed,
  };
  Kind kind = Kind::componentError;
  std::uint32_t device = 0;
  std::uint64_t generation = 0;
  std::uint32_t component = ResyncEnd::kNoComponent;
  ComponentOp op = ComponentOp::read;
  std::uint64_t block = 0;
  std::uint64_t blocks = 0;
  int error = 0;
  bool masked = false;
  bool repairFailed = false;
  std::uint64_t ticket = 0;  // of regions, or of a hold; replayed: the epoch
  std::vector<std::uint32_t> regions;
  std::uint64_t regionBlocks = 0;  // the size by which they are numbered
  std::uint64_t mismatches = 0;
  std::uint64_t job = 0;
  std::uint64_t done = 0;
  std::uint64_t total = 0;
  ResyncOutcome outcome = ResyncOutcome::done;
  std::uint32_t connection = 0;
  std::string reason;
};

class EventQueue {
 public:
  void push(EngineEvent event) {
    const std::lock_guard lock(mutex_);
    if (!merges(event.kind)) {
      events_.push_back(std::move(event));
      return;
    }
    const Key key = keyOf(event);
    const auto waiting = merged_.find(key);
    if (waiting == merged_.end()) {
      events_.push_back(std::move(event));
      merged_.emplace(key, std::prev(events_.end()));
    } else if (event.kind == EngineEvent::Kind::componentRepaired) {
      waiting->second->blocks += event.blocks;
    } else if (event.kind != EngineEvent::Kind::componentError) {
      *waiting->second = std::move(event);
    }
  }

  std::vector<EngineEvent> take(std::size_t max) {
    std::vector<EngineEvent> out;
    const std::lock_guard lock(mutex_);
    while (!events_.empty() && out.size() < max) {
      if (merges(events_.front().kind)) merged_.erase(keyOf(events_.front()));
      out.push_back(std::move(events_.front()));
      events_.pop_front();
    }
    return out;
  }

  bool empty() {
    const std::lock_guard lock(mutex_);
    return events_.empty();
  }

 private:
  static bool merges(EngineEvent::Kind kind) {
    return kind == EngineEvent::Kind::componentError || kind == EngineEvent::Kind::componentRepaired ||
           kind == EngineEvent::Kind::resyncProgress || kind == EngineEvent::Kind::resyncCheckpoint;
  }
  using Key = std::tuple<EngineEvent::Kind, std::uint32_t, std::uint64_t, std::uint64_t, std::uint32_t>;
  static Key keyOf(const EngineEvent& e) {
    if (e.kind == EngineEvent::Kind::componentError || e.kind == EngineEvent::Kind::componentRepaired) {
      const auto fate = static_cast<std::uint32_t>(e.op) << 2U | (e.masked ? 2U : 0U) | (e.repairFailed ? 1U : 0U);
      return {e.kind, e.device, e.generation, e.component, fate};
    }
    return {e.kind, e.device, e.job, 0, 0};
  }

  std::mutex mutex_;
  std::list<EngineEvent> events_;
  std::map<Key, std::list<EngineEvent>::iterator> merged_;
};

}  // namespace metadisk
