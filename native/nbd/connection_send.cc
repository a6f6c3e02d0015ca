// How replies leave: buffers gathered into few sends, pages of large reads straight from the page cache.
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "nbd/connection.h"

namespace metadisk::nbd {

namespace {

// Replies leave during a turn once this much is ready, while it is still in the cache.
constexpr std::uint64_t kSendEarly = 256 * 1024;
constexpr std::size_t kSendVectors = 512;
// Below this, copying with others into one send costs less.
constexpr std::uint64_t kPagesLeast = 32 * 1024;

}  // namespace

// A large read of cached data is answered with the pages themselves. True: its reply is queued. False: it is to
// be carried out like any other, which also meets the error that may be the reason.
bool Connection::lendPages(Slot& slot, const Header& header) noexcept {
  if (header.length < kPagesLeast || !lends_ || !host_.mayLend()) return false;
  std::array<FileRange, kRangesMax> ranges;
  const std::size_t count = export_->ranges(header.offset, header.length, ranges);
  if (count == 0) return false;
  PagePipe* const pipe = pipes_.take();
  if (pipe == nullptr) return false;
  if (!pipe->load(std::span(ranges).first(count), pipes_.sums())) {
    pipes_.give(*pipe);
    return false;
  }
  free_ = slot.next;
  slot.header = header;
  slot.pages = pipe;
  slot.dataBytes = header.length;
  slot.headBytes = writeSuccess(slot.head, terms_, header, slot.dataBytes);
  export_->account(kRead, header.length, false);
  lentUpTo_ = sentTotal_ + sendQueued_ + slot.headBytes + slot.dataBytes;
  enqueue(slot);
  return true;
}

std::int64_t Connection::sentBehind(std::uint64_t place) const noexcept {
  if (state_ == State::dead) place = std::min(place, sentTotal_);
  return static_cast<std::int64_t>(sentTotal_) - static_cast<std::int64_t>(place);
}

void Connection::enqueue(Slot& slot) noexcept {
  slot.next = nullptr;
  (sendTail_ != nullptr ? sendTail_->next : sendHead_) = &slot;
  sendTail_ = &slot;
  sendQueued_ += slot.headBytes + slot.dataBytes;
  host_.wantFlush(*this);
  if (sendQueued_ >= kSendEarly && !sendBlocked_) flush();
}

void Connection::flush() noexcept {
  while (sendHead_ != nullptr && state_ != State::dead) {
    std::uint64_t wanted = 0;
    const bool pages = sendHead_->pages != nullptr && sendSkip_ >= sendHead_->headBytes;
    const ssize_t n = pages ? sendPages(wanted) : sendBuffers(wanted);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        sendBlocked_ = true;
      } else {
        abort(std::strerror(errno));
      }
      break;
    }
    sent(static_cast<std::uint64_t>(n));
    sendBlocked_ = static_cast<std::uint64_t>(n) < wanted;
    if (sendBlocked_) break;
  }
  maybeClosed();
}

// Everything up to and with the header of the next reply that has pages.
ssize_t Connection::sendBuffers(std::uint64_t& wanted) noexcept {
  std::array<iovec, kSendVectors> iov;
  std::size_t count = 0;
  std::uint64_t skip = sendSkip_;
  bool more = false;
  for (Slot* slot = sendHead_; slot != nullptr && !more && count + 2 <= kSendVectors; slot = slot->next) {
    if (skip < slot->headBytes) {
      iov[count++] = {slot->head + skip, slot->headBytes - skip};
      wanted += slot->headBytes - skip;
      skip = 0;
    } else {
      skip -= slot->headBytes;
    }
    more = slot->pages != nullptr;
    if (!more && slot->dataBytes > skip) {
      iov[count++] = {slot->buffer + skip, slot->dataBytes - skip};
      wanted += slot->dataBytes - skip;
    }
    skip = 0;
  }
  msghdr message{};
  message.msg_iov = iov.data();
  message.msg_iovlen = count;
  return ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
}

ssize_t Connection::sendPages(std::uint64_t& wanted) noexcept {
  wanted = sendHead_->pages->bytes();
  return sendHead_->pages->send(socket_.get());
}

void Connection::sent(std::uint64_t bytes) noexcept {
  sendQueued_ -= bytes;
  sentTotal_ += bytes;
  moved += bytes;
  bytes += sendSkip_;
  while (sendHead_ != nullptr && bytes >= sendHead_->headBytes + sendHead_->dataBytes) {
    Slot& slot = *sendHead_;
    bytes -= slot.headBytes + slot.dataBytes;
    sendHead_ = slot.next;
    if (sendHead_ == nullptr) sendTail_ = nullptr;
    recycle(slot);
  }
  sendSkip_ = bytes;
}

void Connection::recycle(Slot& slot) noexcept {
  giveBack(slot);
  slot.next = free_;
  free_ = &slot;
  freed_ = true;
}

}  // namespace metadisk::nbd
