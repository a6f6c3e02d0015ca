// When a sync of a component may be believed.
//
// The kernel reports a failed write-back once per open file. Of two syncs that run at the same time, one
// may be told and the other, which covered the lost data just as well, may not. So a sync that went well
// is answered only when every sync that ran beside it has ended, and then only if none of them failed.
// Invariants: a turn belongs to its thread except between end() answering false and granted(); a turn
// waits for those that had begun when it ended, never for later ones, so a stream of syncs cannot hold
// it up. The mutex is held for a few instructions; syncs are orders of magnitude slower.
#pragma once

#include <cstdint>
#include <mutex>

namespace metadisk {

// One sync, or one write that syncs; embedded in the pooled operation.
struct SyncTurn {
  std::uint64_t ticket = 0;  // running: its number; waiting: the last number it waits for
  SyncTurn* before = nullptr;
  SyncTurn* after = nullptr;
  // Called under the gate's lock by whichever thread ended the last turn waited for: may only post.
  void (*granted)(SyncTurn&) noexcept = nullptr;
};

class SyncGate {
 public:
  // Before the kernel is asked.
  void begin(SyncTurn& turn) noexcept;
  // After the kernel answered and a failure was noted on the component. True: the turn is over. False:
  // granted() will say so. A failure has nothing to wait for.
  bool end(SyncTurn& turn, bool failed) noexcept;

 private:
  struct Chain {
    SyncTurn* head = nullptr;
    SyncTurn* tail = nullptr;
    void append(SyncTurn& turn) noexcept;
    void remove(SyncTurn& turn) noexcept;
  };

  std::mutex mutex_;
  std::uint64_t issued_ = 0;
  Chain running_;  // by ticket
  Chain waiting_;  // by ticket
};

}  // namespace metadisk
