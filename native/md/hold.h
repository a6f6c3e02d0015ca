// The gate of a device and the requests that wait behind it for a decision (docs/native-boundary.md).
//
// open -> closed: a request is parked, or close(); the device takes no new ones. When nothing is in flight any
// more announce() gives the hold its number, and settle() its verdict; release() submits what is
// parked and opens the gate.
// Invariants: parked requests are kept in the order in which the device took them, and submitted in
// that order before anything newer, so a later write is never overtaken by one that is driven again.
// A request parks with nothing in flight, and none is lost: each is submitted again or answered.
// One thread; nothing is allocated.
#pragma once

#include <cerrno>
#include <cstdint>
#include <utility>

#include "md/request.h"

namespace metadisk {

class Hold {
 public:
  // New requests must wait.
  bool closed() const noexcept { return state_ != State::open; }
  // Something is parked, and announce() is due as soon as nothing is in flight.
  bool closing() const noexcept { return state_ == State::closing; }
  // release() is due.
  bool settled() const noexcept { return state_ == State::settled; }
  // 0: none is out.
  std::uint64_t number() const noexcept { return state_ == State::out ? number_ : 0; }

  // The place of a request among all that the device took; before it is submitted the first time.
  void order(Request& r) noexcept {
    r.order = ++lastOrder_;
    r.written = false;
  }

  // `failed`: a component failed it; otherwise it only waited. Closes the gate.
  void park(Request& r, bool failed) noexcept {
    r.failed = failed;
    if (state_ == State::open) state_ = State::closing;
    Request* after = tail_;
    while (after != nullptr && after->order > r.order) after = after->previous;
    Request*& next = after != nullptr ? after->next : head_;
    r.previous = after;
    r.next = next;
    (next != nullptr ? next->previous : tail_) = &r;
    next = &r;
  }

  // Nobody failed, but something has to be decided before anything goes on.
  void close() noexcept {
    if (state_ == State::open) state_ = State::closing;
  }

  std::uint64_t announce() noexcept {
    state_ = State::out;
    return ++number_;
  }

  // False: no such hold is out.
  bool settle(std::uint64_t number, bool resume) noexcept {
    if (state_ != State::out || number != number_) return false;
    state_ = State::settled;
    resume_ = resume;
    return true;
  }

  // Opens the gate. Verdict `fail`: what had failed is answered with EIO. Everything else goes through
  // submit(Request&), in order; when that closes the gate again the rest waits with the new hold.
  template <typename Submit>
  void release(Submit submit) noexcept {
    Request* list = std::exchange(head_, nullptr);
    tail_ = nullptr;
    state_ = State::open;
    for (Request** at = &list; !resume_ && *at != nullptr;) {
      Request& r = **at;
      if (!r.failed) {
        at = &r.next;
        continue;
      }
      *at = r.next;
      answer(r, EIO);
    }
    while (list != nullptr) {
      Request& r = *std::exchange(list, list->next);
      if (closed()) {
        park(r, r.failed);
      } else {
        submit(r);
      }
    }
  }

  // Answers everything parked, whatever the state, and opens the gate: the device goes.
  void drop(int error) noexcept {
    Request* list = std::exchange(head_, nullptr);
    tail_ = nullptr;
    state_ = State::open;
    while (list != nullptr) answer(*std::exchange(list, list->next), error);
  }

 private:
  enum class State : std::uint8_t { open, closing, out, settled };
  static void answer(Request& r, int error) noexcept {
    r.error = error;
    r.done(r);
  }

  State state_ = State::open;
  bool resume_ = false;
  std::uint64_t number_ = 0;
  std::uint64_t lastOrder_ = 0;
  Request* head_ = nullptr;
  Request* tail_ = nullptr;
};

}  // namespace metadisk
