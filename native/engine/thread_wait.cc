// How a thread waits: for sockets, the ring and messages, a moment awake before it sleeps.
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "engine/thread.h"

namespace metadisk {

namespace {

// At most one thread of the process spins: more would take the processor from those that work.
std::atomic<bool> spinnerTaken{false};

constexpr std::uint64_t kMillis = 1'000'000;

}  // namespace

bool IoThread::events(int timeoutMillis) {
  std::array<epoll_event, 64> ready;
  const int n = ::epoll_wait(epoll_.get(), ready.data(), static_cast<int>(ready.size()), timeoutMillis);
  backend_->setTime(coarseNanos());
  for (int i = 0; i < n; ++i) {
    const epoll_event& event = ready[static_cast<std::size_t>(i)];
    if (event.data.u64 <= static_cast<std::uint64_t>(Source::ring)) {
      busy_ = true;
      continue;
    }
    auto& connection = *static_cast<nbd::Connection*>(event.data.ptr);
    if (connection.finished) continue;
    if ((event.events & EPOLLOUT) != 0) connection.flush();
    if ((event.events & EPOLLIN) != 0) connection.receive();
    if ((event.events & (EPOLLHUP | EPOLLERR)) != 0) {
      connection.hangup();
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, connection.fd(), nullptr);
      connection.registered = UINT32_MAX;
    }
    wantFlush(connection);
    busy_ = true;
  }
  return n > 0;
}

// Watches sockets and the ring for a moment before sleeping: a wake-up costs more than that.
bool IoThread::spin() {
  if (options_.spinMicros == 0 || all_.empty()) return false;
  // What a device or a socket's reader does takes longer than a spin: only requests are worth waiting for awake.
  if (backend_->inFlight() != backend_->abandoned() ||
      std::none_of(all_.begin(), all_.end(),
                   [](const nbd::Connection* connection) { return (connection->interest() & EPOLLIN) != 0; })) {
    return false;
  }
  if (spinCredit_ <= 0 && (++sleeps_ & 15) != 0) return false;
  if (spinnerTaken.exchange(true, std::memory_order_acquire)) return false;
  const std::uint64_t end = monotonicNanos() + options_.spinMicros * 1000ULL;
  bool found = false;
  do {
    if (mailbox_.pending() || backend_->poll() != 0) {
      found = true;
    } else if (all_.size() <= 4) {
      for (nbd::Connection* connection : all_) {
        if (!connection->finished && (connection->interest() & EPOLLIN) != 0 && connection->receive()) {
          wantFlush(*connection);
          found = true;
        }
      }
    } else {
      found = events(0);
    }
  } while (!found && monotonicNanos() < end);
  spinnerTaken.store(false, std::memory_order_release);
  spinCredit_ = found ? 16 : std::max(0, spinCredit_ - 1);
  busy_ |= found;
  return found;
}

void IoThread::sleep() {
  const int millis = sleepMillis();
  if (!backend_->sleepBegins()) {
    busy_ = true;
    return;
  }
  const bool armed = backend_->inFlight() != 0;
  events(millis);
  if (armed) backend_->sleepEnds();
}

int IoThread::sleepMillis() {
  std::uint64_t wake = UINT64_MAX;
  for (const std::uint32_t number : attention_) {
    const auto found = devices_.find(number);
    if (found == devices_.end()) continue;
    wake = std::min(wake, found->second.device->wakeAt());
    if (found->second.giveUpAt != 0) wake = std::min(wake, found->second.giveUpAt);
  }
  const std::uint64_t now = monotonicNanos();
  wake = std::min({wake, line_.wakeAt(now), giveUpAt_});
  // By the clock that these go by the time has then come.
  const std::uint64_t coarse = std::min(backend_->wakeAt(), lent_.wakeAt());
  if (coarse != UINT64_MAX) wake = std::min(wake, coarse + kCoarse);
  if (wake == UINT64_MAX) return -1;
  if (wake <= now) {
    busy_ = true;
    return 0;
  }
  // The wake-up ends in a turn even if nothing else happens.
  busy_ = true;
  return static_cast<int>(std::min<std::uint64_t>((wake - now + kMillis - 1) / kMillis, 60'000));
}

}  // namespace metadisk
