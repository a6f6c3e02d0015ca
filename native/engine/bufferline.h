// The connections of one thread that wait for payload memory, and what keeps the line moving.
//
// Invariants: first come, first served, and nobody in or outside the line is served before the first; whoever
// holds memory while others wait, and only waits for its own client, is dropped unless that client moves bytes.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "core/buffers.h"
#include "nbd/connection.h"

namespace metadisk {

class BufferLine {
 public:
  explicit BufferLine(BufferPool& buffers) : buffers_(buffers) {}

  void join(nbd::Connection& connection);
  void leave(const nbd::Connection& connection);
  // Buffers may have come back. True when a connection was dropped; `all`: those that may hold memory.
  bool serve(const std::vector<nbd::Connection*>& all);
  // When serve() must be called at the latest; UINT64_MAX: nobody waits.
  std::uint64_t wakeAt(std::uint64_t now) const;

 private:
  bool dropStalled(const std::vector<nbd::Connection*>& all, std::uint64_t now);

  BufferPool& buffers_;
  std::deque<nbd::Connection*> waiters_;
  std::uint64_t nextStallCheck_ = 0;
};

}  // namespace metadisk
