// Transmission phase of one client: bytes in, requests to the export, replies out in completion order.
//
// Invariants: used by one thread. Slots and buffers are bounded: when they run out the socket is not
// read until replies have left, so a client that does not read holds up only itself. One receive
// brings many requests; replies that are ready leave in one send, large reads of cached data without being
// copied (core/pages.h), on unix sockets alone: only there the kernel says what the client has not taken yet, on
// this machine and after the connection has ended. No callback destroys a connection:
// it calls host.closed() once, when no request of it is in flight, and is destroyed afterwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "core/buffers.h"
#include "core/fd.h"
#include "core/pages.h"
#include "md/request.h"
#include "nbd/reply.h"
#include "nbd/request.h"

namespace metadisk::nbd {

class Connection;

// Of one read that is answered with pages, with those that are summed.
inline constexpr std::size_t kRangesMax = 192;

// The device behind the connection, on this thread.
class Export {
 public:
  virtual ~Export() = default;
  virtual std::uint64_t size() const noexcept = 0;
  // True while a new plan waits for the old one: nothing may be submitted.
  virtual bool held() const noexcept = 0;
  virtual void submit(Request& request) noexcept = 0;
  // Where the bytes of a read lie, in order, when its answer may be taken from the files themselves, or is the sum of
  // what they hold now; 0 when not, or when they are more than `out` holds.
  virtual std::size_t ranges(std::uint64_t offset, std::uint64_t length, std::span<FileRange> out) noexcept = 0;
  // Of the context metadisk:state: bit 0, redundancy is reduced.
  virtual std::uint32_t stateFlags() const noexcept = 0;
  // Requests submitted and not yet done, one more or one less.
  virtual void flying(int change) noexcept = 0;
  virtual void account(std::uint16_t command, std::uint64_t bytes, bool failed) noexcept = 0;
};

// The thread's loop.
class ConnectionHost {
 public:
  virtual ~ConnectionHost() = default;
  // Call flush() and look at interest() before the turn ends.
  virtual void wantFlush(Connection& connection) noexcept = 0;
  // False: too many sockets of clients that are gone still hold lent pages.
  virtual bool mayLend() const noexcept = 0;
  // Call resume() when buffers have come back.
  virtual void wantBuffer(Connection& connection) noexcept = 0;
  virtual void closed(Connection& connection) noexcept = 0;
};

class Connection {
 public:
  struct Options {
    std::uint32_t id = 0;
    unsigned queueDepth = 128;
    std::size_t maxBufferBytes = 32 * 1024 * 1024;
  };

  Connection(Fd socket, Terms terms, const Options& options, BufferPool& buffers, PagePipes& pipes, Export& target,
             ConnectionHost& host);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Bytes the handshake had read too far; before the first receive().
  void preload(std::span<const std::byte> residual);

  // One receive and everything it completes. False when nothing arrived.
  bool receive() noexcept;
  // Goes on with received bytes after a shortage or a hold.
  void resume() noexcept;
  void flush() noexcept;
  // No more requests; closes when the accepted ones are answered.
  void drain(const char* reason) noexcept;
  // Unsent replies are dropped; closes when the requests in flight are back.
  void abort(const char* reason) noexcept;
  // The peer is gone in both directions.
  void hangup() noexcept;

  // EPOLLIN and EPOLLOUT as now wanted.
  std::uint32_t interest() const noexcept;

  std::uint32_t id() const noexcept { return options_.id; }
  int fd() const noexcept { return socket_.get(); }
  const char* reason() const noexcept { return reason_; }
  unsigned inFlight() const noexcept { return inFlight_; }
  // Of the buffer pool, as it rounds.
  std::size_t lentBytes() const noexcept { return lent_; }
  bool unsent() const noexcept { return sendHead_ != nullptr; }
  // Where in the stream of replies the last lent page ends; 0: none was lent.
  std::uint64_t lentUpTo() const noexcept { return lentUpTo_; }
  // Bytes that went into the socket behind that place, negative when it is not in there as a whole yet. Of a connection
  // that has ended nothing more will be.
  std::int64_t sentBehind(std::uint64_t place) const noexcept;
  // After closed(): the socket, shut down, in which the client may still find bytes.
  Fd takeSocket() noexcept;
  Export& target() noexcept { return *export_; }
  // Stopped for want of slots or buffers, and some have come back since.
  bool canResume() const noexcept { return starved_ && freed_; }
  // Holds buffers and waits for its client: may be dropped when memory is short.
  bool stalled() const noexcept { return lent_ != 0 && inFlight_ == 0 && !export_->held(); }

  // The loop's bookkeeping.
  std::uint64_t moved = 0;         // bytes since the loop looked
  std::uint64_t stalledSince = 0;  // 0: not stalled when the loop looked
  std::uint32_t registered = 0;    // interest given to epoll
  bool flushWanted = false;
  bool waitsForBuffer = false;
  bool finished = false;

 private:
  enum class State : std::uint8_t { open, draining, dead };

  struct Slot {
    Request request;
    Connection* connection = nullptr;
    Slot* next = nullptr;
    Header header;
    std::byte* buffer = nullptr;
    PagePipe* pages = nullptr;  // of a read answered without a buffer
    std::size_t bufferBytes = 0;
    std::uint64_t dataBytes = 0;  // behind the reply header
    std::size_t headBytes = 0;
    std::byte head[kReplyHeaderMax];
  };

  void parse() noexcept;
  bool accept(const Header& header) noexcept;
  void execute(Slot& slot) noexcept;
  void answerStatus(Slot& slot) noexcept;
  const Context* context(ContextKind kind) const noexcept;
  void completed(Slot& slot) noexcept;
  bool readAgain(Slot& slot) noexcept;
  void refuse(Slot& slot, WireError error) noexcept;
  void enqueue(Slot& slot) noexcept;
  bool lendPages(Slot& slot, const Header& header) noexcept;
  ssize_t sendBuffers(std::uint64_t& wanted) noexcept;
  ssize_t sendPages(std::uint64_t& wanted) noexcept;
  void sent(std::uint64_t bytes) noexcept;
  // What a good request needs lent.
  std::size_t memoryOf(const Header& header) const noexcept;
  bool lend(Slot& slot, std::size_t bytes) noexcept;
  void giveBack(Slot& slot) noexcept;
  void recycle(Slot& slot) noexcept;
  void maybeClosed() noexcept;
  bool reading() const noexcept { return state_ == State::open && !starved_; }

  Fd socket_;
  const Terms terms_;
  const Options options_;
  bool lends_ = false;
  BufferPool& buffers_;
  PagePipes& pipes_;
  Export* export_;
  ConnectionHost& host_;
  State state_ = State::open;
  bool starved_ = false;      // slots, buffers or the export's gate stop the parsing
  bool freed_ = false;        // a slot or buffer came back since the last resume()
  bool sendBlocked_ = false;  // the socket takes no more
  const char* reason_ = "";
  unsigned inFlight_ = 0;
  std::size_t lent_ = 0;  // buffer bytes

  std::unique_ptr<Slot[]> slots_;
  Slot* free_ = nullptr;
  Slot* receiving_ = nullptr;  // write whose payload is arriving
  std::uint64_t received_ = 0;
  std::uint64_t discard_ = 0;  // payload of a refused request still to come

  Slot* sendHead_ = nullptr;
  Slot* sendTail_ = nullptr;
  std::uint64_t sendSkip_ = 0;    // bytes of the head already sent
  std::uint64_t sendQueued_ = 0;  // bytes not yet sent
  std::uint64_t sentTotal_ = 0;
  std::uint64_t lentUpTo_ = 0;

  std::unique_ptr<std::byte[]> input_;
  std::size_t inputBytes_ = 0;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}  // namespace metadisk::nbd
