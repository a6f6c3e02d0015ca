#include "connection.h"

#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <numeric>

namespace metadisk::load {
namespace {
constexpr std::size_t kInBytes = 256 << 10;
constexpr std::size_t kBatch = 500;  // requests per sendmsg; two vectors each stay below IOV_MAX
}  // namespace

std::uint64_t nowNs() noexcept {
  timespec ts{};
  ::clock_gettime(CLOCK_MONOTONIC, &ts);
  return static_cast<std::uint64_t>(ts.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(ts.tv_nsec);
}

Connection::Connection(Worker& worker, Session session, std::uint32_t index)
    : worker_(worker),
      shared_(worker.shared_),
      options_(shared_.options),
      session_(std::move(session)),
      index_(index),
      slots_(options_.depth),
      rng_((options_.seed + 1) * 0x9e3779b97f4a7c15 + index * 0xd1342543de82ef95u),
      heads_(options_.depth * kRequestBytes),
      in_(std::make_unique_for_overwrite<std::byte[]>(kInBytes)),
      progressNs_(nowNs()) {
  const std::uint32_t all = options_.connections;
  owned_ = shared_.blocks / all + (index < shared_.blocks % all ? 1 : 0);
  for (std::uint32_t i = options_.depth; i > 0; --i) free_.push_back(i - 1);
  if (options_.count > 0) quota_ = options_.count / all + (index < options_.count % all ? 1 : 0);
  if (shared_.job != Job::load) quota_ = owned_;
  if (options_.scatterBytes > 0) quota_ = scattered();
  if (shared_.journal != nullptr) {
    busy_.resize(owned_);
    floor_.resize(owned_);
    const auto records = shared_.journal->records();
    for (std::uint64_t i = 0; i < owned_; ++i) floor_[i] = records[i * all + index].flushed;
    for (Slot& slot : slots_) slot.data = std::make_unique<std::byte[]>(options_.blockBytes);
  } else {
    pattern_ = std::make_unique<std::byte[]>(options_.blockBytes);
    stamp({pattern_.get(), options_.blockBytes}, 0, options_.seed, 1);
  }
  const timeval tick{0, 100'000};
  ::setsockopt(fd(), SOL_SOCKET, SO_RCVTIMEO, &tick, sizeof tick);
}

std::uint64_t Connection::random() noexcept {
  rng_ += 0x9e3779b97f4a7c15;
  std::uint64_t x = rng_;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

std::uint64_t Connection::place(std::uint64_t block) const noexcept {
  return shared_.offset + block * options_.blockBytes;
}

bool Connection::stalled(std::uint64_t now) const noexcept {
  return waits() && static_cast<double>(now - progressNs_) > options_.stallSeconds * 1e9;
}

void Connection::fail(std::string reason, bool violation) {
  if (!alive_) return;
  alive_ = false;
  worker_.outcome.unanswered += inFlight_;
  if (violation) {
    if (worker_.outcome.broken.empty()) worker_.outcome.broken = std::move(reason);
  } else {
    ++worker_.outcome.disconnects;
  }
  ::shutdown(fd(), SHUT_RDWR);
  shared_.control.running.fetch_sub(1, std::memory_order_relaxed);
}

std::uint64_t Connection::scattered() const noexcept {
  return std::max<std::uint64_t>(shared_.blocks * options_.blockBytes / options_.scatterBytes, 1);
}

// Own blocks are index_, index_ + connections, ...; without a journal random load uses them all.
std::uint64_t Connection::pickBlock() {
  const std::uint64_t all = options_.connections;
  if (shared_.job != Job::load) return issued_ * all + index_;
  if (options_.scatterBytes > 0) {
    // A step near the golden section without a common divisor visits every place once.
    const std::uint64_t n = scattered();
    std::uint64_t step = std::max<std::uint64_t>(n * 618 / 1000, 1);
    while (std::gcd(step, n) != 1) ++step;
    return issued_ % n * step % n * (options_.scatterBytes / options_.blockBytes);
  }
  if (shared_.journal == nullptr) {
    if (!options_.sequential)
      return static_cast<std::uint64_t>((static_cast<__uint128_t>(random()) * shared_.blocks) >> 64);
    return index_ * (shared_.blocks / all) + cursor_++ % std::max<std::uint64_t>(shared_.blocks / all, 1);
  }
  std::uint64_t own = options_.sequential ? cursor_++ % owned_ : random() % owned_;
  while (busy_[own] != 0) own = (own + 1) % owned_;
  return own * all + index_;
}

void Connection::prepareFlush(Slot& slot) {
  slot.kind = Kind::flush;
  slot.covers.swap(worker_.multiConn_ ? worker_.acked_ : acked_);
  sinceFlush_ = 0;
}

bool Connection::next(Slot& slot) {
  if (ended_) return false;
  const bool over = issued_ >= quota_ || shared_.control.stop.load(std::memory_order_relaxed);
  if (!over) return nextOfLoad(slot);
  // A journal is left with everything that was answered also flushed.
  if (shared_.journal != nullptr && wrote_ && !finalFlushSent_) {
    if (inFlight_ > 0) return false;
    prepareFlush(slot);
    finalFlushSent_ = true;
    return true;
  }
  ended_ = true;
  return false;
}

bool Connection::nextOfLoad(Slot& slot) {
  const bool write =
      shared_.job == Job::initialise ||
      (shared_.job == Job::load &&
       (options_.mix == Mix::write || (options_.mix == Mix::mixed && random() % 100 >= options_.readPercent)));
  if (write && options_.flushEvery > 0 && sinceFlush_ >= options_.flushEvery) {
    prepareFlush(slot);
    return true;
  }
  slot.kind = write ? Kind::write : Kind::read;
  slot.block = pickBlock();
  ++issued_;
  if (write) ++sinceFlush_;
  if (shared_.journal == nullptr) return true;
  busy_[slot.block / options_.connections] = 1;
  if (!write) return true;
  wrote_ = true;
  BlockRecord& record = shared_.journal->records()[slot.block];
  slot.generation = record.next + 1;
  record.next = record.ceiling = slot.generation;
  stamp({slot.data.get(), options_.blockBytes}, place(slot.block), shared_.journal->seed(), slot.generation);
  return true;
}

void Connection::queue(Slot& slot, std::uint32_t index, std::uint64_t now) {
  ++slot.sequence;
  slot.sentNs = now;
  slot.received = 0;
  slot.error = 0;
  std::byte* const head = heads_.data() + headsAt_;
  std::byte* at = head;
  const bool flush = slot.kind == Kind::flush;
  put<std::uint32_t>(at, kRequestMagic);
  put<std::uint16_t>(at, slot.kind == Kind::write && options_.fua ? kCmdFlagFua : std::uint16_t{0});
  put<std::uint16_t>(at, flush ? kCmdFlush : slot.kind == Kind::write ? kCmdWrite : kCmdRead);
  put<std::uint64_t>(at, static_cast<std::uint64_t>(slot.sequence) << 32 | index);
  put<std::uint64_t>(at, flush ? 0 : place(slot.block));
  put<std::uint32_t>(at, flush ? 0 : options_.blockBytes);
  headsAt_ += kRequestBytes;
  if (!out_.empty() && static_cast<std::byte*>(out_.back().iov_base) + out_.back().iov_len == head)
    out_.back().iov_len += kRequestBytes;
  else
    out_.push_back({head, kRequestBytes});
  if (slot.kind == Kind::write) out_.push_back({slot.data ? slot.data.get() : pattern_.get(), options_.blockBytes});
}

void Connection::fill() {
  out_.clear();
  outAt_ = headsAt_ = 0;
  const std::uint64_t now = nowNs();
  if (inFlight_ == 0) progressNs_ = now;
  for (std::size_t n = 0; n < kBatch && !free_.empty(); ++n) {
    const std::uint32_t index = free_.back();
    Slot& slot = slots_[index];
    if (!next(slot)) break;
    free_.pop_back();
    ++inFlight_;
    queue(slot, index, now);
  }
}

void Connection::send() {
  if (!alive_) return;
  while (true) {
    if (!wantsSend()) {
      fill();
      if (!wantsSend()) return;
    }
    msghdr message{};
    message.msg_iov = out_.data() + outAt_;
    message.msg_iovlen = out_.size() - outAt_;
    const ssize_t n = ::sendmsg(fd(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) fail(std::strerror(errno), false);
      return;
    }
    auto sent = static_cast<std::size_t>(n);
    while (sent > 0 && sent >= out_[outAt_].iov_len) sent -= out_[outAt_++].iov_len;
    if (sent > 0) {
      iovec& part = out_[outAt_];
      part.iov_base = static_cast<std::byte*>(part.iov_base) + sent;
      part.iov_len -= sent;
    }
    if (!wantsSend() && free_.empty()) return;
  }
}

void Connection::receive(bool wait) {
  while (alive_) {
    if (inStart_ > 0) {
      std::memmove(in_.get(), in_.get() + inStart_, inEnd_ - inStart_);
      inEnd_ -= inStart_;
      inStart_ = 0;
    }
    const std::size_t room = kInBytes - inEnd_;
    const ssize_t n = ::recv(fd(), in_.get() + inEnd_, room, wait ? 0 : MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return fail(n == 0 ? "server hung up" : std::strerror(errno), false);
    inEnd_ += static_cast<std::size_t>(n);
    const std::uint64_t now = nowNs();
    progressNs_ = now;
    if (!parse(now) || static_cast<std::size_t>(n) < room) return;
    wait = false;
  }
}

bool Connection::parse(std::uint64_t now) {
  while (alive_) {
    const std::size_t there = inEnd_ - inStart_;
    if (payload_ != nullptr) {
      const std::size_t take = std::min<std::size_t>(there, payloadLeft_);
      if (payload_->data) std::memcpy(payload_->data.get() + payloadAt_, in_.get() + inStart_, take);
      payloadAt_ += take;
      payloadLeft_ -= static_cast<std::uint32_t>(take);
      inStart_ += take;
      if (payloadLeft_ > 0) return true;
      Slot& slot = *payload_;
      payload_ = nullptr;
      if (payloadEnds_) complete(slot, now);
      continue;
    }
    if (there < kSimpleBytes) return true;
    const std::size_t used = parseHead({in_.get() + inStart_, there}, now);
    if (used == 0) return alive_;
    inStart_ += used;
  }
  return false;
}

Connection::Slot* Connection::slotOf(std::uint64_t cookie) {
  const auto index = static_cast<std::uint32_t>(cookie);
  if (index < slots_.size() && slots_[index].kind != Kind::free && slots_[index].sequence == cookie >> 32)
    return &slots_[index];
  fail("reply to a request that is not in flight", true);
  return nullptr;
}

std::size_t Connection::parseHead(std::span<const std::byte> in, std::uint64_t now) {
  const auto magic = get<std::uint32_t>(in.data());
  if (magic == kStructuredMagic && session_.structured) return parseChunk(in, now);
  if (magic != kSimpleMagic) {
    fail("reply without magic", true);
    return 0;
  }
  Slot* slot = slotOf(get<std::uint64_t>(in.data() + 8));
  if (slot == nullptr) return 0;
  slot->error = static_cast<int>(get<std::uint32_t>(in.data() + 4));
  if (slot->kind == Kind::read && session_.structured) {
    fail("simple reply to a read after structured replies were agreed", true);
    return 0;
  }
  if (slot->kind == Kind::read && slot->error == 0) {
    slot->received = options_.blockBytes;
    payload_ = slot;
    payloadLeft_ = options_.blockBytes;
    payloadAt_ = 0;
    payloadEnds_ = true;
  } else {
    complete(*slot, now);
  }
  return kSimpleBytes;
}

std::size_t Connection::parseChunk(std::span<const std::byte> in, std::uint64_t now) {
  if (in.size() < kStructuredBytes) return 0;
  const bool done = (get<std::uint16_t>(in.data() + 4) & kChunkDone) != 0;
  const auto type = get<std::uint16_t>(in.data() + 6);
  const auto length = get<std::uint32_t>(in.data() + 16);
  Slot* slot = slotOf(get<std::uint64_t>(in.data() + 8));
  if (slot == nullptr) return 0;
  const std::size_t fixed = type == kChunkData ? 8 : length;  // what must be here before the chunk is taken
  if (fixed > 4096 || length < fixed) {
    fail("chunk of absurd length", true);
    return 0;
  }
  if (in.size() < kStructuredBytes + fixed) return 0;
  const std::byte* const body = in.data() + kStructuredBytes;
  if (type == kChunkData || type == kChunkHole) {
    const auto offset = fixed >= 8 ? get<std::uint64_t>(body) : 0;
    const std::uint32_t bytes = type == kChunkData ? length - 8 : fixed == 12 ? get<std::uint32_t>(body + 8) : 0;
    const std::uint64_t from = place(slot->block);
    if (slot->kind != Kind::read || bytes == 0 || offset < from || offset - from + bytes > options_.blockBytes) {
      fail("chunk outside its request", true);
      return 0;
    }
    slot->received += bytes;
    if (type == kChunkData) {
      payload_ = slot;
      payloadLeft_ = bytes;
      payloadAt_ = static_cast<std::size_t>(offset - from);
      payloadEnds_ = done;
      return kStructuredBytes + fixed;
    }
    if (slot->data) std::memset(slot->data.get() + (offset - from), 0, bytes);
  } else if (type == kChunkError || type == kChunkErrorOffset) {
    slot->error = fixed >= 4 ? static_cast<int>(get<std::uint32_t>(body)) : EIO;
  } else if (type != kChunkNone) {
    fail("chunk of a type nobody asked for", true);
    return 0;
  }
  if (done) complete(*slot, now);
  return kStructuredBytes + fixed;
}

void Connection::answeredRead(Slot& slot) {
  if (slot.error == 0 && slot.received != options_.blockBytes) return fail("read answered in part", true);
  ++worker_.outcome.reads;
  if (shared_.journal == nullptr) return;
  const std::uint64_t own = slot.block / options_.connections;
  busy_[own] = 0;
  BlockRecord& record = shared_.journal->records()[slot.block];
  if (slot.error != 0) {
    if (shared_.job == Job::verify)
      shared_.findings.add("byte " + std::to_string(place(slot.block)) + ": " + std::strerror(slot.error),
                           "unreadable");
    return;
  }
  const Judgement judgement = judge({slot.data.get(), options_.blockBytes}, place(slot.block), shared_.journal->seed(),
                                    floor_[own], record.ceiling, shared_.findings);
  if (shared_.job != Job::verify) return;
  worker_.outcome.verified.count(record, judgement);
  if (options_.settle) settle(record, judgement);
}

void Connection::answeredWrite(Slot& slot) {
  ++worker_.outcome.writes;
  if (shared_.journal == nullptr) return;
  const std::uint64_t own = slot.block / options_.connections;
  busy_[own] = 0;
  if (slot.error != 0) return;
  BlockRecord& record = shared_.journal->records()[slot.block];
  floor_[own] = record.acked = slot.generation;
  if (options_.fua)
    record.flushed = slot.generation;
  else
    (worker_.multiConn_ ? worker_.acked_ : acked_).push_back({slot.block, slot.generation});
}

void Connection::complete(Slot& slot, std::uint64_t now) {
  if (slot.error != 0) {
    ++worker_.outcome.ioErrors;
    worker_.outcome.lastErrno = slot.error;
  }
  std::uint64_t bytes = 0;
  switch (slot.kind) {
    case Kind::read: answeredRead(slot), bytes = options_.blockBytes; break;
    case Kind::write: answeredWrite(slot), bytes = options_.blockBytes; break;
    case Kind::flush:
      ++worker_.outcome.flushes;
      if (slot.error == 0 && shared_.journal != nullptr)
        for (const auto& [block, generation] : slot.covers) {
          std::uint32_t& flushed = shared_.journal->records()[block].flushed;
          flushed = std::max(flushed, generation);
        }
      slot.covers.clear();
      break;
    case Kind::free: break;
  }
  if (shared_.control.measuring.load(std::memory_order_relaxed)) worker_.outcome.latency.add(now - slot.sentNs);
  Counters& counters = worker_.counters;
  counters.done.store(counters.done.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  counters.bytes.store(counters.bytes.load(std::memory_order_relaxed) + bytes, std::memory_order_relaxed);
  slot.kind = Kind::free;
  free_.push_back(static_cast<std::uint32_t>(&slot - slots_.data()));
  --inFlight_;
}

void Connection::sayGoodbye() noexcept {
  if (!alive_) return;
  std::byte head[kRequestBytes]{};
  std::byte* at = head;
  put<std::uint32_t>(at, kRequestMagic);
  put<std::uint16_t>(at, 0);
  put<std::uint16_t>(at, kCmdDisc);
  (void)!::send(fd(), head, sizeof head, MSG_NOSIGNAL);
  // The server closes after DISC; waiting for it keeps "gone" and "closed" the same for the caller.
  ::shutdown(fd(), SHUT_WR);
  std::byte rest[64];
  while (::recv(fd(), rest, sizeof rest, 0) > 0) {
  }
  alive_ = false;
  shared_.control.running.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace metadisk::load
