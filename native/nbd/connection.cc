#include "nbd/connection.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace metadisk::nbd {

namespace {

constexpr std::size_t kInput = 128 * 1024;
// A client that is this far behind gets no more read for it: the same few buffers stay in the cache, and
// page pipes are left for others.
constexpr std::uint64_t kSendBacklog = 512 * 1024;
constexpr int kSendRoom = 1024 * 1024;  // doubled by the kernel
// A refused request's payload is read and dropped up to this; beyond, the connection is.
constexpr std::uint64_t kDiscardMax = 256ULL * 1024 * 1024;

}  // namespace

Connection::Connection(Fd socket, Terms terms, const Options& options, BufferPool& buffers, PagePipes& pipes,
                       Export& target, ConnectionHost& host)
    : socket_(std::move(socket)),
      terms_(std::move(terms)),
      options_(options),
      buffers_(buffers),
      pipes_(pipes),
      export_(&target),
      host_(host),
      slots_(std::make_unique<Slot[]>(options.queueDepth)) {
  for (unsigned i = options.queueDepth; i-- > 0;) {
    slots_[i].connection = this;
    slots_[i].next = free_;
    free_ = &slots_[i];
  }
  // The default of 208 KiB makes a 1 MiB reply five rounds of blocking and being woken. Refused (not
  // root), the system's limit is taken.
  const int room = kSendRoom;
  if (::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) != 0) {
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  }
  int family = AF_UNSPEC;
  socklen_t size = sizeof family;
  lends_ = ::getsockopt(socket_.get(), SOL_SOCKET, SO_DOMAIN, &family, &size) == 0 && family == AF_UNIX;
  // MSG_DONTWAIT has no counterpart in splice().
  ::fcntl(socket_.get(), F_SETFL, ::fcntl(socket_.get(), F_GETFL) | O_NONBLOCK);
  inputBytes_ = kInput;
  input_ = std::make_unique_for_overwrite<std::byte[]>(inputBytes_);
}

Connection::~Connection() {
  if (receiving_ != nullptr) giveBack(*receiving_);
  for (Slot* slot = sendHead_; slot != nullptr; slot = slot->next) giveBack(*slot);
}

void Connection::preload(std::span<const std::byte> residual) {
  if (residual.size() + kInput > inputBytes_) {
    inputBytes_ = residual.size() + kInput;
    input_ = std::make_unique_for_overwrite<std::byte[]>(inputBytes_);
  }
  std::copy(residual.begin(), residual.end(), input_.get());
  end_ = residual.size();
}

std::uint32_t Connection::interest() const noexcept {
  return (reading() ? static_cast<std::uint32_t>(EPOLLIN) : 0U) |
         (sendBlocked_ && state_ != State::dead ? static_cast<std::uint32_t>(EPOLLOUT) : 0U);
}

// ---- in

bool Connection::receive() noexcept {
  if (!reading()) return false;
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (begin_ != 0 && inputBytes_ - end_ < inputBytes_ / 2) {
    std::memmove(input_.get(), input_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  std::array<iovec, 2> iov{};
  std::size_t count = 0;
  std::uint64_t direct = 0;
  if (receiving_ != nullptr) {
    direct = receiving_->header.length - received_;
    iov[count++] = {receiving_->buffer + received_, direct};
  }
  iov[count++] = {input_.get() + end_, inputBytes_ - end_};
  msghdr message{};
  message.msg_iov = iov.data();
  message.msg_iovlen = count;
  const ssize_t n = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT);
  if (n < 0) {
    if (errno != EAGAIN && errno != EINTR) abort(std::strerror(errno));
    return false;
  }
  if (n == 0) {
    drain("the client hung up");
    return true;
  }
  auto got = static_cast<std::uint64_t>(n);
  moved += got;
  if (receiving_ != nullptr) {
    const std::uint64_t taken = std::min(got, direct);
    received_ += taken;
    got -= taken;
  }
  end_ += got;
  parse();
  return true;
}

void Connection::resume() noexcept {
  starved_ = false;
  freed_ = false;
  parse();
  host_.wantFlush(*this);
}

void Connection::parse() noexcept {
  const std::size_t head = headerBytes(terms_);
  while (state_ == State::open) {
    const std::size_t have = end_ - begin_;
    if (discard_ != 0) {
      const std::size_t taken = static_cast<std::size_t>(std::min<std::uint64_t>(discard_, have));
      discard_ -= taken;
      begin_ += taken;
      if (discard_ != 0) return;
      continue;
    }
    if (receiving_ != nullptr) {
      Slot& slot = *receiving_;
      const std::uint64_t taken = std::min<std::uint64_t>(slot.header.length - received_, have);
      std::memcpy(slot.buffer + received_, input_.get() + begin_, taken);
      begin_ += taken;
      received_ += taken;
      if (received_ < slot.header.length) return;
      if (export_->held()) {
        starved_ = true;
        return;
      }
      receiving_ = nullptr;
      execute(slot);
      continue;
    }
    if (have < head) return;
    Header header;
    if (!parseHeader({input_.get() + begin_, head}, terms_, header)) return abort("not a request (wrong magic)");
    if (header.command == kDisconnect) return drain("the client disconnected");
    if (!accept(header)) return;
    begin_ += head;
  }
}

// False when the header must be looked at again later, or never.
bool Connection::accept(const Header& header) noexcept {
  if (free_ == nullptr || export_->held() || (sendBlocked_ && sendQueued_ >= kSendBacklog)) {
    starved_ = true;
    return false;
  }
  Slot& slot = *free_;
  const WireError error = validate(header, terms_, export_->size());
  const std::uint64_t payload = payloadBytes(header, terms_);
  if (error == kOk && header.command == kRead && lendPages(slot, header)) return true;
  if (const std::size_t memory = error == kOk ? memoryOf(header) : 0; memory != 0) {
    if (!lend(slot, memory)) return false;
  } else if (payload > kDiscardMax) {
    abort("a payload no request may have");
    return false;
  }
  free_ = slot.next;
  slot.header = header;
  slot.dataBytes = 0;
  if (error != kOk) {
    discard_ = payload;
    refuse(slot, error);
  } else if (header.command == kWrite) {
    receiving_ = &slot;
    received_ = 0;
  } else {
    execute(slot);
  }
  return true;
}

std::size_t Connection::memoryOf(const Header& header) const noexcept {
  switch (header.command) {
    case kRead:
    case kWrite: return static_cast<std::size_t>(header.length);
    case kBlockStatus: return context(ContextKind::allocation) != nullptr ? kExtentRoom : 0;
    default: return 0;
  }
}

bool Connection::lend(Slot& slot, std::size_t bytes) noexcept {
  const std::size_t size = BufferPool::roundedSize(bytes);
  if (lent_ != 0 && lent_ + size > options_.maxBufferBytes) {
    starved_ = true;
    return false;
  }
  slot.buffer = buffers_.acquire(bytes, this);
  if (slot.buffer == nullptr) {
    starved_ = true;
    host_.wantBuffer(*this);
    return false;
  }
  slot.bufferBytes = bytes;
  lent_ += size;
  return true;
}

void Connection::giveBack(Slot& slot) noexcept {
  if (slot.pages != nullptr) {
    pipes_.give(*slot.pages);
    slot.pages = nullptr;
    freed_ = true;
  }
  if (slot.buffer == nullptr) return;
  buffers_.release(slot.buffer, slot.bufferBytes);
  lent_ -= BufferPool::roundedSize(slot.bufferBytes);
  slot.buffer = nullptr;
  freed_ = true;
}

void Connection::execute(Slot& slot) noexcept {
  const Header& header = slot.header;
  Request& request = slot.request;
  request.fua = (header.flags & kFua) != 0;
  request.noHole = false;
  request.fastZero = false;
  switch (header.command) {
    case kRead: request.op = Op::read; break;
    case kWrite: request.op = Op::write; break;
    case kFlush: request.op = Op::flush; break;
    case kTrim: request.op = Op::trim; break;
    case kCache: request.op = Op::cache; break;
    case kWriteZeroes:
      request.op = Op::zero;
      request.noHole = (header.flags & kNoHole) != 0;
      request.fastZero = (header.flags & kFastZero) != 0;
      break;
    case kBlockStatus:
      if (context(ContextKind::allocation) == nullptr) {
        answerStatus(slot);
        export_->account(kBlockStatus, 0, false);
        return enqueue(slot);
      }
      request.op = Op::extents;
      request.extents = (header.flags & kReqOne) != 0 ? 1 : kExtentsMax;
      break;
    default: std::abort();  // validate() lets no other through
  }
  request.offset = header.offset;
  request.length = header.length;
  request.data = slot.buffer;
  request.error = 0;
  request.again = false;
  request.owner = &slot;
  request.done = [](Request& done) noexcept {
    Slot& mine = *static_cast<Slot*>(done.owner);
    mine.connection->completed(mine);
  };
  ++inFlight_;
  export_->flying(1);
  export_->submit(request);
}

const Context* Connection::context(ContextKind kind) const noexcept {
  const auto found = std::find_if(terms_.contexts.begin(), terms_.contexts.end(),
                                  [kind](const Context& one) { return one.kind == kind; });
  return found == terms_.contexts.end() ? nullptr : &*found;
}

// With base:allocation, its extents are in the slot's buffer.
void Connection::answerStatus(Slot& slot) noexcept {
  const Context* const state = context(ContextKind::state);
  const Context* const allocation = context(ContextKind::allocation);
  std::byte* at = slot.head;
  if (state != nullptr) {
    at += writeState(at, terms_, slot.header, state->id, export_->stateFlags(), allocation == nullptr);
  }
  if (allocation != nullptr) {
    at += writeAllocation(at, terms_, slot.header, allocation->id, slot.buffer, slot.request.extents, slot.dataBytes);
  }
  slot.headBytes = static_cast<std::size_t>(at - slot.head);
}

// ---- out

void Connection::completed(Slot& slot) noexcept {
  if (slot.request.again) [[unlikely]] {
    if (readAgain(slot)) return;
  }
  --inFlight_;
  export_->flying(-1);
  const Header& header = slot.header;
  const int error = slot.request.error;
  export_->account(header.command, header.length, error != 0);
  if (state_ == State::dead) {
    recycle(slot);
    host_.wantFlush(*this);
    return;
  }
  if ((header.command != kRead && header.command != kBlockStatus) || error != 0) giveBack(slot);
  if (error != 0) {
    slot.headBytes = writeError(slot.head, terms_, header, wireError(error));
  } else if (header.command == kBlockStatus) {
    answerStatus(slot);
  } else {
    slot.dataBytes = header.command == kRead ? header.length : 0;
    slot.headBytes = writeSuccess(slot.head, terms_, header, slot.dataBytes);
  }
  enqueue(slot);
}

// False when the answer is final: the client is gone, or there is no memory.
bool Connection::readAgain(Slot& slot) noexcept {
  slot.request.again = false;
  if (state_ == State::dead) return false;
  slot.buffer = buffers_.unheld(slot.buffer, slot.bufferBytes);
  slot.request.data = slot.buffer;
  if (slot.buffer == nullptr) {
    lent_ -= BufferPool::roundedSize(slot.bufferBytes);
    slot.request.error = ENOMEM;
    return false;
  }
  export_->submit(slot.request);
  return true;
}

void Connection::refuse(Slot& slot, WireError error) noexcept {
  export_->account(slot.header.command, 0, true);
  slot.headBytes = writeError(slot.head, terms_, slot.header, error);
  enqueue(slot);
}

// ---- ends

void Connection::drain(const char* reason) noexcept {
  if (state_ != State::open) return;
  state_ = State::draining;
  reason_ = reason;
  host_.wantFlush(*this);
}

void Connection::abort(const char* reason) noexcept {
  if (state_ == State::dead) return;
  if (state_ == State::open) reason_ = reason;
  state_ = State::dead;
  while (sendHead_ != nullptr) {
    Slot& slot = *sendHead_;
    sendHead_ = slot.next;
    recycle(slot);
  }
  sendTail_ = nullptr;
  sendQueued_ = sendSkip_ = 0;
  // The client learns at once, even while requests are still at the disks.
  ::shutdown(socket_.get(), SHUT_RDWR);
  host_.wantFlush(*this);
}

Fd Connection::takeSocket() noexcept {
  ::shutdown(socket_.get(), SHUT_RDWR);
  return std::move(socket_);
}

void Connection::hangup() noexcept {
  // What the client sent before it went is still carried out, as far as slots allow.
  while (receive()) {
  }
  abort("the client hung up");
}

void Connection::maybeClosed() noexcept {
  if (finished || state_ == State::open || inFlight_ != 0) return;
  if (state_ == State::draining && sendHead_ != nullptr) return;
  finished = true;
  host_.closed(*this);
}

}  // namespace metadisk::nbd
