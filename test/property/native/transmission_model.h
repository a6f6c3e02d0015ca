// Streams of NBD requests whose answers are known without asking the code under test, and the client's side
// that reads and judges them.
#pragma once

#include <doctest/doctest.h>

#include <map>
#include <string>

#include "fuzz/connection_rig.h"
#include "nbd/protocol.h"

namespace metadisk::test {

using namespace metadisk::nbd;
using fuzz::below;
using fuzz::Random;

using Bytes = std::vector<std::byte>;

inline constexpr std::size_t kDevice = 512 * 1024;
inline constexpr std::uint64_t kMaxRequest = 128 * 1024;

struct Wanted {
  std::uint16_t command = 0;
  std::uint32_t error = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool one = false;      // NBD_CMD_FLAG_REQ_ONE
  Bytes data;            // of a read
  std::size_t end = 0;   // of the request in the stream
  unsigned answers = 0;  // seen
};

struct Stream {
  Bytes bytes;
  std::map<std::uint64_t, Wanted> wanted;  // by cookie
  Bytes model = Bytes(kDevice);
};

inline bool chance(Random& random, unsigned percent) { return below(random, 100) < percent; }

class Maker {
 public:
  Maker(Random& random, const Terms& terms) : random_(random), terms_(terms) {}

  Stream make(std::size_t requests) {
    for (std::size_t i = 0; i < requests; ++i) chance(random_, 70) ? addGood() : addBad();
    return std::move(stream_);
  }

 private:
  std::uint64_t align() const { return terms_.minBlock; }
  // A range inside the device, as aligned as need be.
  void range(Wanted& w, std::uint64_t most) {
    const std::uint64_t n = 1 + below(random_, chance(random_, 80) ? std::min<std::uint64_t>(most, 9000) : most);
    w.length = std::min(most, (n + align() - 1) / align() * align());
    w.offset = below(random_, (kDevice - w.length) / align() + 1) * align();
  }
  bool changes(std::uint16_t c) const { return c == kWrite || c == kTrim || c == kWriteZeroes; }
  std::uint16_t allFlags(std::uint16_t command) const {
    std::uint16_t all = kFua;
    if (command == kRead && (terms_.structured || terms_.extended)) all |= kDontFragment;
    if (command == kWriteZeroes) all |= kNoHole | kFastZero;
    if (command == kBlockStatus) all |= kReqOne;
    return all;
  }
  std::uint16_t legalFlags(std::uint16_t command) { return static_cast<std::uint16_t>(random_() & allFlags(command)); }

  void put(const Wanted& given, std::uint16_t flags, bool payload) {
    Wanted w = given;
    const std::uint64_t cookie = random_();
    w.one = w.command == kBlockStatus && (flags & kReqOne) != 0;
    if (payload && terms_.extended) flags |= kPayloadLength;
    std::byte head[kExtendedRequestBytes];
    std::byte* at = storeBig(head, terms_.extended ? kExtendedRequestMagic : kRequestMagic);
    at = storeBig(at, flags);
    at = storeBig(at, w.command);
    at = storeBig(at, cookie);
    at = storeBig(at, w.offset);
    at = terms_.extended ? storeBig(at, w.length) : storeBig(at, static_cast<std::uint32_t>(w.length));
    stream_.bytes.insert(stream_.bytes.end(), head, at);
    Bytes data(payload ? w.length : 0);
    for (std::byte& b : data) b = static_cast<std::byte>(random_());
    stream_.bytes.insert(stream_.bytes.end(), data.begin(), data.end());
    w.end = stream_.bytes.size();
    if (w.error == kOk) apply(w, data);
    stream_.wanted.emplace(cookie, std::move(w));
  }

  void apply(Wanted& w, const Bytes& data) {
    const auto at = stream_.model.begin() + static_cast<std::ptrdiff_t>(w.offset);
    if (w.command == kRead || w.command == kBlockStatus) w.data.assign(at, at + static_cast<std::ptrdiff_t>(w.length));
    if (w.command == kWrite) std::copy(data.begin(), data.end(), at);
    if (w.command == kTrim || w.command == kWriteZeroes) std::fill_n(at, w.length, std::byte{0});
  }

  void addGood() {
    Wanted w;
    w.command = static_cast<std::uint16_t>(below(random_, 8));
    if (w.command == kDisconnect) w.command = kWrite;
    if (w.command == kBlockStatus && terms_.contexts.empty()) w.command = kRead;
    if (w.command != kFlush) range(w, w.command == kRead || w.command == kWrite ? kMaxRequest : kDevice / 2);
    if (changes(w.command) && terms_.readOnly) w.error = kEperm;
    put(w, legalFlags(w.command), w.command == kWrite);
  }

  // One thing wrong at a time, so that the error is known.
  void addBad() {
    Wanted w;
    w.error = kEinval;
    std::uint16_t flags = 0;
    // That the export is read-only would be the answer to most faults of a change.
    const std::uint16_t any[] = {kRead, kWrite, kTrim, kCache, kWriteZeroes};
    w.command = terms_.readOnly ? std::uint16_t{kRead} : any[below(random_, 5)];
    range(w, 4096);
    switch (below(random_, 8)) {
      case 0:  // no such command
        w.command = static_cast<std::uint16_t>(8 + below(random_, 65528));
        return put(w, 0, terms_.extended && chance(random_, 50));
      case 1: {  // a flag that does not belong there
        if (chance(random_, 30)) w.command = terms_.contexts.empty() ? kFlush : kBlockStatus;
        if (w.command == kFlush) w.offset = w.length = 0;
        std::uint16_t wrong = 0xffff & ~(kFua | (terms_.extended ? kPayloadLength : 0));
        wrong &= static_cast<std::uint16_t>(~allFlags(w.command));
        while ((flags & wrong) == 0) flags = static_cast<std::uint16_t>(1U << below(random_, 16));
        break;
      }
      case 2:
        w.length = 0;
        w.offset -= w.offset % align();
        break;
      case 3:  // beyond the end
        w.offset = kDevice - w.length + align();
        if (chance(random_, 30)) w.offset = UINT64_MAX - 4095;
        if (chance(random_, 30) && w.command != kWrite) {
          w.offset = below(random_, 3) * align();
          w.length = (terms_.extended ? UINT64_MAX : UINT32_MAX) - below(random_, 3);
        }
        if (w.command == kWrite || w.command == kWriteZeroes) w.error = kEnospc;
        break;
      case 4:  // too large to carry
        w.command = terms_.readOnly || chance(random_, 50) ? kRead : kWrite;
        w.length = kMaxRequest + align();
        w.offset = 0;
        break;
      case 5:
        if (align() > 1) {
          w.offset += w.offset + w.length < kDevice ? 1 : 0;
          w.length -= w.offset % align() == 0 ? 1 : 0;
        } else {
          w.command = kFlush;  // of a range
        }
        break;
      case 6:
        if (!terms_.contexts.empty()) return addGood();
        w.command = kBlockStatus;
        break;
      default:
        if (!terms_.extended) return addGood();
        if (w.command == kWrite) return put(w, 0, false);  // a write that announces no payload
        return put(w, 0, true);                            // a payload where none belongs
    }
    put(w, flags, w.command == kWrite);
  }

  Random& random_;
  const Terms& terms_;
  Stream stream_;
};

// Reads answers as a client would; false when the rest cannot be followed (a cookie nobody gave).
class Reader {
 public:
  Reader(const Terms& terms, Stream& stream) : terms_(terms), stream_(stream) {}

  // Takes whole answers off the front of `bytes`.
  bool read(Bytes& bytes) {
    std::size_t at = 0;
    bool follows = true;
    while (follows) {
      const std::size_t n = one(std::span(bytes).subspan(at), follows);
      if (n == 0) break;
      at += n;
    }
    bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
    return follows;
  }

 private:
  bool chunks() const { return terms_.structured || terms_.extended; }

  std::size_t one(std::span<const std::byte> b, bool& follows) {
    const std::size_t head = terms_.extended ? kExtendedReplyBytes
                             : chunks()      ? kStructuredReplyBytes
                                             : kSimpleReplyBytes;
    if (b.size() < head) return 0;
    const auto magic = loadBig<std::uint32_t>(b.data());
    REQUIRE(magic == (terms_.extended ? kExtendedReplyMagic : chunks() ? kStructuredReplyMagic : kSimpleReplyMagic));
    const auto cookie = loadBig<std::uint64_t>(b.data() + 8);
    const auto found = stream_.wanted.find(cookie);
    if (found == stream_.wanted.end()) {
      follows = false;
      return 0;
    }
    Wanted& w = found->second;
    return chunks() ? chunk(b, head, w) : simple(b, w);
  }

  std::size_t simple(std::span<const std::byte> b, Wanted& w) {
    const auto error = loadBig<std::uint32_t>(b.data() + 4);
    REQUIRE(error == w.error);
    const std::size_t all = kSimpleReplyBytes + w.data.size();
    if (b.size() < all) return 0;
    REQUIRE(std::equal(w.data.begin(), w.data.end(), b.begin() + kSimpleReplyBytes));
    REQUIRE(++w.answers == 1);
    return all;
  }

  std::size_t chunk(std::span<const std::byte> b, std::size_t head, Wanted& w) {
    const auto flags = loadBig<std::uint16_t>(b.data() + 4);
    const auto type = loadBig<std::uint16_t>(b.data() + 6);
    const std::uint64_t length =
        terms_.extended ? loadBig<std::uint64_t>(b.data() + 24) : loadBig<std::uint32_t>(b.data() + 16);
    if (terms_.extended) REQUIRE(loadBig<std::uint64_t>(b.data() + 16) == w.offset);
    REQUIRE(length <= kMaxRequest + 8);
    if (b.size() < head + length) return 0;
    const std::byte* const body = b.data() + head;
    REQUIRE(w.answers == 0);
    if ((flags & kReplyDone) != 0) ++w.answers;
    if (w.error != kOk) {
      REQUIRE(type == kError);
      REQUIRE(loadBig<std::uint32_t>(body) == w.error);
    } else if (w.command == kRead) {
      REQUIRE(type == kOffsetData);
      REQUIRE(loadBig<std::uint64_t>(body) == w.offset);
      REQUIRE(length == 8 + w.data.size());
      REQUIRE(std::equal(w.data.begin(), w.data.end(), body + 8));
    } else if (w.command == kBlockStatus) {
      extents(type, body, length, w);
    } else {
      REQUIRE(type == kNone);
      REQUIRE(length == 0);
    }
    return head + static_cast<std::size_t>(length);
  }

  void extents(std::uint16_t type, const std::byte* body, std::uint64_t length, const Wanted& w) {
    REQUIRE(type == (terms_.extended ? kBlockStatusExtReply : kBlockStatusReply));
    const std::size_t before = terms_.extended ? 8 : 4;
    const std::size_t each = terms_.extended ? 16 : 8;
    REQUIRE(length >= before + each);
    REQUIRE((length - before) % each == 0);
    const std::size_t count = (static_cast<std::size_t>(length) - before) / each;
    if (w.one) REQUIRE(count == 1);
    const auto context = loadBig<std::uint32_t>(body);
    REQUIRE((context == terms_.contexts.front().id || context == terms_.contexts.back().id));
    const bool allocation = context == terms_.contexts.front().id;
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const std::byte* const at = body + before + i * each;
      const std::uint64_t n = terms_.extended ? loadBig<std::uint64_t>(at) : loadBig<std::uint32_t>(at);
      REQUIRE(n > 0);
      REQUIRE(n <= w.length - sum);
      const std::uint64_t state = terms_.extended ? loadBig<std::uint64_t>(at + 8) : loadBig<std::uint32_t>(at + 4);
      REQUIRE(state == (!allocation ? 1U : state != 0 ? kHole | kZero : 0U));
      const auto from = w.data.begin() + static_cast<std::ptrdiff_t>(sum);
      const auto zero = [](std::byte b) { return b == std::byte{0}; };
      if (allocation && state != 0) REQUIRE(std::all_of(from, from + static_cast<std::ptrdiff_t>(n), zero));
      sum += n;
    }
    if (!allocation) REQUIRE(sum == w.length);
  }

  const Terms& terms_;
  Stream& stream_;
};

inline Terms randomTerms(Random& random) {
  Terms terms;
  terms.structured = chance(random, 50);
  terms.extended = terms.structured && chance(random, 50);
  terms.readOnly = chance(random, 15);
  terms.minBlock = chance(random, 30) ? 512 : 1;
  terms.maxRequest = kMaxRequest;
  if (terms.structured && chance(random, 70)) terms.contexts.push_back({3, ContextKind::allocation});
  if (!terms.contexts.empty() && chance(random, 50)) terms.contexts.push_back({9, ContextKind::state});
  return terms;
}

}  // namespace metadisk::test
