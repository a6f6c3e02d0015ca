// What the engine reports upward, and the queue it waits in.
//
// Bounded: one waiting error per component, direction and generation; one progress per job, overwritten
// by newer; one end per job; one close per connection.
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
  enum class Kind : std::uint8_t { componentError, resyncProgress, resyncEnded, connectionClosed };
  Kind kind = Kind::componentError;
  std::uint32_t device = 0;
  std::uint64_t generation = 0;
  std::uint32_t component = 0;
  ComponentOp op = ComponentOp::read;
  std::uint64_t block = 0;
  int error = 0;
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
    const bool merges =
        event.kind == EngineEvent::Kind::componentError || event.kind == EngineEvent::Kind::resyncProgress;
    if (merges) {
      const Key key = keyOf(event);
      const auto waiting = merged_.find(key);
      if (waiting != merged_.end()) {
        if (event.kind == EngineEvent::Kind::resyncProgress) *waiting->second = std::move(event);
        return;
      }
      events_.push_back(std::move(event));
      merged_.emplace(key, std::prev(events_.end()));
      return;
    }
    events_.push_back(std::move(event));
  }

  std::vector<EngineEvent> take(std::size_t max) {
    std::vector<EngineEvent> out;
    const std::lock_guard lock(mutex_);
    while (!events_.empty() && out.size() < max) {
      merged_.erase(keyOf(events_.front()));
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
  using Key = std::tuple<EngineEvent::Kind, std::uint32_t, std::uint64_t, std::uint64_t, std::uint32_t>;
  static Key keyOf(const EngineEvent& e) {
    if (e.kind == EngineEvent::Kind::componentError) {
      return {e.kind, e.device, e.generation, e.component, static_cast<std::uint32_t>(e.op)};
    }
    // Closes and ends never merge; their keys only have to miss.
    return {e.kind, e.device, e.job, e.connection, 0};
  }

  std::mutex mutex_;
  std::list<EngineEvent> events_;
  std::map<Key, std::list<EngineEvent>::iterator> merged_;
};

}  // namespace metadisk
