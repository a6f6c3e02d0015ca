// Several clients of a World5, each with requests of its own in flight, that read and write the same places.
//
// Their memory is lent, as a connection's is: a component that hangs may keep it, and what has to be done again gets
// other memory. Every answer is judged: data by the versions a sector may have, errors by what the world cannot do.
#pragma once

#include <list>

#include "property/native/raid5_world.h"

namespace metadisk::test {

class Clients5 {
 public:
  Clients5(World5& world, unsigned depth) : world_(world), depth_(depth) {}
  ~Clients5() {
    world_.stop();
    forget();
  }
  Clients5(const Clients5&) = delete;
  Clients5& operator=(const Clients5&) = delete;

  unsigned reads = 0, writes = 0, flushes = 0, refused = 0, again = 0;

  // One turn: maybe another request, and what has been answered.
  void step(bool begins = true) {
    if (begins && calls_.size() < depth_ && world_.random() % 3 != 0) begin();
    go();
    world_.turn();
    reap();
  }
  bool idle() const { return calls_.empty(); }

  // No request stays unanswered, whatever cannot be done.
  void drain() {
    for (unsigned turns = 0; !calls_.empty(); turns++) {
      INFO(calls_.size() << " requests, the first " << static_cast<int>(calls_.front().op) << " at "
                         << calls_.front().offset << "; " << (turns > 59'990 ? world_.described() : ""));
      REQUIRE(turns < 60'000);
      step(false);
      if (world_.disk.idle()) world_.disk.advance(1'000'000);
    }
  }
  void flush() { add(Op::flush, 0, 0, false); }
  // Reads everything there is.
  void readAll() {
    for (std::uint64_t at = 0; at < world_.size();) {
      const std::uint64_t length = std::min<std::uint64_t>(world_.size() - at, (1 + world_.random() % 100) * kBlock);
      add(Op::read, at, length, false);
      at += length;
      if (calls_.size() >= depth_) drain();
    }
    drain();
  }
  // They are cut off: what was not answered may have happened or not.
  void forget() {
    for (Call5& call : calls_) giveBack(call);
    calls_.clear();
    queue_.clear();
  }

 private:
  struct Call5 : Request {
    Clients5* from = nullptr;
    std::vector<std::byte> buffer;
    std::uint64_t begun = 0;  // the model's tick
    std::uint64_t turn = 0;
    std::set<std::uint64_t> dirty;  // what was read, when it began
    bool answered = false;
    bool twice = false;

    std::uint64_t firstSector() const { return offset / kBlock; }
    std::uint64_t endSector() const { return (offset + length + kBlock - 1) / kBlock; }
    bool changes() const { return op == Op::write || op == Op::zero; }
    bool whole() const { return (offset | length) % kBlock == 0; }
  };

  void begin() {
    auto& random = world_.random;
    const unsigned what = static_cast<unsigned>(random() % 100);
    if (what < 8) return add(Op::flush, 0, 0, false);
    const Op op = what < 45 ? Op::read : what < 90 ? Op::write : what < 97 ? Op::zero : Op::trim;
    const std::uint64_t unit = random() % 4 != 0 ? kBlock : 1;
    const std::uint64_t most = random() % 8 == 0 ? 200 * kBlock : random() % 2 == 0 ? 8 * kBlock : 24 * kBlock;
    const std::uint64_t length = std::min(world_.size(), (1 + random() % (most / unit)) * unit);
    std::uint64_t offset = random() % ((world_.size() - length) / unit + 1) * unit;
    if (random() % 3 == 0) offset = std::min(last_, world_.size() - length);  // a stream
    if (random() % 4 == 0) offset = std::min(offset % (64 * kBlock), world_.size() - length);
    last_ = offset + length;
    if (op != Op::read && op != Op::trim && !writable(offset, length)) return;
    add(op, offset, length, random() % 8 == 0);
  }

  // Writes may overlap where each of them decides about whole sectors; a part of one needs to know the rest.
  bool writable(std::uint64_t offset, std::uint64_t length) {
    const bool whole = (offset | length) % kBlock == 0;
    for (const Call5& call : calls_) {
      if (!call.changes() || call.firstSector() * kBlock >= offset + length || call.endSector() * kBlock <= offset)
        continue;
      if (!whole || !call.whole() || world_.random() % 2 == 0) return false;
    }
    const auto known = [&](std::uint64_t at) {
      return at % kBlock == 0 || world_.versions.sole(at / kBlock) != nullptr;
    };
    return known(offset) && known(offset + length);
  }

  void add(Op op, std::uint64_t offset, std::uint64_t length, bool fua) {
    Call5& call = calls_.emplace_back();
    call.from = this;
    call.op = op;
    call.offset = offset;
    call.length = length;
    call.fua = fua && (op == Op::write || op == Op::zero);
    call.turn = world_.turns;
    call.begun = world_.versions.tick();
    call.done = onDone;
    if (op == Op::read || op == Op::write) call.buffer.resize(length);
    if (op == Op::read)
      eachSector(call, [&](std::uint64_t s, std::size_t, std::size_t, std::uint64_t) {
        if (world_.isDirty(s)) call.dirty.insert(s);
      });
    if (op == Op::write) {
      for (std::byte& b : call.buffer) b = static_cast<std::byte>(world_.random());
      if (world_.random() % 10 == 0 && length >= kBlock) std::memcpy(call.buffer.data(), &journal::kMagic, 4);
    }
    if (call.changes())
      eachSector(call, [&](std::uint64_t s, std::size_t from, std::size_t n, std::uint64_t at) {
        Sector next{};
        if (n != kBlock) next = *world_.versions.sole(s);
        op == Op::zero ? std::memset(next.data() + from, 0, n)
                       : std::memcpy(next.data() + from, call.buffer.data() + at, n);
        world_.versions.writeBegins(s, next, call.begun);
      });
    lend(call);
    // A payload that was still arriving when the others were held up comes too late for that.
    const bool late = call.changes() && world_.random() % 4 == 0;
    if (late || (!world_.held() && queue_.empty())) return world_.submit(call);
    queue_.push_back(&call);
  }
  void go() {
    while (!queue_.empty() && !world_.held()) {
      Call5& call = *queue_.front();
      queue_.pop_front();
      world_.submit(call);
    }
  }

  template <typename Visit>
  static void eachSector(const Call5& call, Visit visit) {
    for (std::uint64_t at = call.offset; at < call.offset + call.length;) {
      const std::uint64_t from = at % kBlock;
      const std::uint64_t n = std::min(kBlock - from, call.offset + call.length - at);
      visit(at / kBlock, from, n, at - call.offset);
      at += n;
    }
  }

  static void lend(Call5& call) {
    if (call.buffer.empty()) return;
    call.data = static_cast<std::byte*>(std::aligned_alloc(4096, (call.length + 4095) / 4096 * 4096));
    std::memcpy(call.data, call.buffer.data(), call.length);
  }
  void giveBack(Call5& call) {
    if (call.data != nullptr) world_.disk.held().retire(std::exchange(call.data, nullptr), call.length);
  }
  static void onDone(Request& r) noexcept {
    Call5& call = static_cast<Call5&>(r);
    Clients5& self = *call.from;
    if (std::exchange(r.again, false)) {
      self.again++;
      self.giveBack(call);
      lend(call);
      self.queue_.push_back(&call);
      return;
    }
    call.twice = call.answered;
    call.answered = true;
  }

  void reap() {
    for (auto call = calls_.begin(); call != calls_.end();) {
      if (!call->answered) {
        ++call;
        continue;
      }
      REQUIRE(!call->twice);
      finished(*call);
      giveBack(*call);
      call = calls_.erase(call);
    }
  }
  void finished(const Call5& call) {
    INFO("op " << static_cast<int>(call.op) << " at " << call.offset << " + " << call.length << ", fua " << call.fua
               << ", turns " << call.turn << " to " << world_.turns << ", error " << call.error);
    if (call.error != 0) {
      refused++;
      REQUIRE(call.error == EIO);
      REQUIRE(mayFail(call));
    }
    switch (call.op) {
      case Op::read:
        reads++;
        if (call.error == 0) compare(call);
        return;
      case Op::write:
      case Op::zero:
        writes++;
        return eachSector(call, [&](std::uint64_t s, std::size_t, std::size_t, std::uint64_t) {
          world_.versions.writeEnds(s, call.begun, call.error == 0, call.fua && call.error == 0);
        });
      case Op::flush:
        flushes++;
        if (call.error != 0) return;
        world_.goodFlush = std::max(world_.goodFlush, call.turn);
        return world_.versions.flushed(call.begun, oldest());
      default: return;
    }
  }
  bool mayFail(const Call5& call) {
    if (call.op == Op::read) return world_.mayFailRead(call.offset, call.length, call.turn, call.dirty);
    if (call.op == Op::flush) return world_.mayFailFlush(call.turn);
    if (call.fua && world_.mayFailFlush(call.turn)) return true;
    return call.changes() && world_.mayFailWrite(call.offset, call.length, call.turn);
  }
  void compare(const Call5& call) {
    eachSector(call, [&](std::uint64_t s, std::size_t from, std::size_t n, std::uint64_t at) {
      INFO("sector " << s << " row " << world_.shape().rowOf(world_.shape().placeOf(s * kBlock)) << " column "
                     << world_.shape().placeOf(s * kBlock).column);
      REQUIRE(world_.versions.reads(s, from, n, call.data + at, call.begun));
    });
  }
  std::uint64_t oldest() const {
    std::uint64_t begun = Versions::kNever;
    for (const Call5& call : calls_) begun = std::min(begun, call.begun);
    return begun;
  }

  World5& world_;
  unsigned depth_;
  std::list<Call5> calls_;
  std::list<Call5*> queue_;
  std::uint64_t last_ = 0;
};

}  // namespace metadisk::test
