#include "engine/bufferline.h"

#include <algorithm>
#include <utility>

#include "core/clock.h"

namespace metadisk {

namespace {

constexpr std::uint64_t kMillis = 1'000'000;
// How long a client may hold buffers while others wait for memory, moving less than this between checks.
constexpr std::uint64_t kStallGrace = 5'000 * kMillis;
constexpr std::uint64_t kStallCheck = 1'000 * kMillis;
constexpr std::uint64_t kStallBytes = 64 * 1024;

}  // namespace

void BufferLine::join(nbd::Connection& connection) {
  if (std::exchange(connection.waitsForBuffer, true)) return;
  waiters_.push_back(&connection);
}

void BufferLine::leave(const nbd::Connection& connection) {
  // serve() gives its place away.
  std::erase(waiters_, &connection);
}

bool BufferLine::serve(const std::vector<nbd::Connection*>& all) {
  while (!waiters_.empty()) {
    nbd::Connection* const first = waiters_.front();
    waiters_.pop_front();
    first->waitsForBuffer = false;
    buffers_.serveOnly(first);
    const std::uint64_t before = buffers_.served();
    if (!first->finished && !first->target().held()) first->resume();
    if (!first->waitsForBuffer || buffers_.served() != before) continue;
    // Not enough for the first, so nobody may take it.
    waiters_.pop_back();
    waiters_.push_front(first);
    return dropStalled(all, monotonicNanos());
  }
  buffers_.serveOnly(nullptr);
  return false;
}

std::uint64_t BufferLine::wakeAt(std::uint64_t now) const {
  return waiters_.empty() ? UINT64_MAX : std::max(nextStallCheck_, now + kMillis);
}

bool BufferLine::dropStalled(const std::vector<nbd::Connection*>& all, std::uint64_t now) {
  if (now < nextStallCheck_) return false;
  nextStallCheck_ = now + kStallCheck;
  bool dropped = false;
  for (nbd::Connection* connection : all) {
    const std::uint64_t moved = std::exchange(connection->moved, 0);
    if (!connection->stalled()) {
      connection->stalledSince = 0;
    } else if (connection->stalledSince == 0 || moved >= kStallBytes) {
      connection->stalledSince = now;
    } else if (now - connection->stalledSince > kStallGrace) {
      connection->abort("held memory others needed and did not move");
      dropped = true;
    }
  }
  return dropped;
}

}  // namespace metadisk
