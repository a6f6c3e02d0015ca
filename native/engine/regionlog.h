// The dirty region log of one device: the machine of core/regions.h with its tickets as events, its
// sweeps by the clock, and its shape by the plan; and the sides that are behind.
//
// Invariants: on the device's owner thread. A plan is mounted with nothing in flight. Regions and stale
// sides outlive plans. Nothing is called clean but after a flush of the whole device that began after
// the last write there, and only while every side is in step.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "core/regions.h"
#include "engine/events.h"
#include "md/stale.h"
#include "plan/plan.h"

namespace metadisk {

class RegionLog {
 public:
  struct Owner {
    std::function<void(EngineEvent)> event;
    // advance() is due.
    std::function<void()> attend;
    // Flushes every component in service; `done` (errno) comes once, maybe at once.
    std::function<void(std::function<void(int)> done)> flush;
  };

  // `dirty`: as given to install().
  RegionLog(std::uint32_t device, std::uint64_t sweepNanos, Owner owner);
  RegionLog(const RegionLog&) = delete;
  RegionLog& operator=(const RegionLog&) = delete;

  // Of the first plan, before mount(): the bitmap of the database, least significant bit first.
  void load(std::span<const std::byte> dirty);
  // Whether the plan may be mounted now: not while a ticket of another shape is out.
  bool mountable(const Plan& plan) const noexcept;
  void mount(const Plan& plan);

  // Null while the plan has no log.
  Regions* regions() noexcept { return used_ ? regions_.get() : nullptr; }
  StaleSides& stale() noexcept { return stale_; }

  // `held`: a hold is out, or writes have left the sides different: nothing may be called clean.
  void allowCleaning(bool allowed) noexcept;
  // The last client has gone: what can be cleaned is cleaned soon. A client is back: no hurry.
  void clients(bool any, std::uint64_t now) noexcept;
  void marked(std::uint64_t ticket, bool ok, int error) noexcept;
  // Nobody will answer any more: whoever waits gets `error`.
  void refuse(int error) noexcept;
  // Once per turn when it is due, or when now >= wakeAt().
  void advance(std::uint64_t now);
  std::uint64_t wakeAt() const noexcept;
  // The device goes: no sweep is begun any more.
  void close() noexcept { closing_ = true; }

 private:
  void ticket(EngineEvent::Kind kind, RegionTicket taken);
  void sweep(std::uint64_t now);
  bool allowed() const noexcept { return inStep_ && allowed_ && used_; }

  std::uint32_t device_;
  std::uint64_t sweepNanos_;
  Owner owner_;
  std::vector<std::uint8_t> loaded_;
  std::unique_ptr<Regions> regions_;
  StaleSides stale_;
  bool mounted_ = false;  // a first plan was
  bool used_ = false;     // the plan has a log
  bool inStep_ = false;
  bool allowed_ = true;
  bool closing_ = false;
  bool flushing_ = false;
  std::uint64_t out_ = 0;  // the ticket told last
  unsigned hurry_ = 0;     // sweeps left that look only once
  std::uint64_t sweepAt_ = 0;
};

}  // namespace metadisk
