#include "worker.h"

#include <poll.h>

#include "connection.h"

namespace metadisk::load {

Worker::Worker(const Shared& shared, std::vector<Session> sessions, std::uint32_t firstIndex) : shared_(shared) {
  multiConn_ = (sessions.front().flags & kTxMultiConn) != 0;
  for (Session& session : sessions)
    connections_.push_back(std::make_unique<Connection>(*this, std::move(session), firstIndex++));
}

Worker::~Worker() = default;

// One round; false when nothing is left to do.
bool Worker::pump() {
  bool busy = false;
  std::uint32_t waiting = 0;
  for (auto& connection : connections_) {
    connection->send();
    busy = busy || !connection->finished();
    if (connection->waits()) ++waiting;
  }
  if (!busy) return false;
  if (waiting == 0) return true;
  if (connections_.size() == 1 && !connections_.front()->wantsSend()) {
    connections_.front()->receive(true);
  } else {
    std::vector<pollfd> polls;
    polls.reserve(connections_.size());
    for (auto& connection : connections_)
      polls.push_back({connection->alive() ? connection->fd() : -1,
                       static_cast<short>(POLLIN | (connection->wantsSend() ? POLLOUT : 0)), 0});
    ::poll(polls.data(), polls.size(), 100);
    for (std::size_t i = 0; i < polls.size(); ++i)
      if ((polls[i].revents & (POLLIN | POLLERR | POLLHUP)) != 0) connections_[i]->receive(false);
  }
  return true;
}

void Worker::run() {
  while (pump()) {
    const std::uint64_t now = nowNs();
    for (auto& connection : connections_)
      if (connection->stalled(now)) connection->fail("no reply for too long", true);
  }
  for (auto& connection : connections_) connection->sayGoodbye();
}

}  // namespace metadisk::load
