// The transmission phase against streams of every sort: cut anywhere, damaged, endless, of all dialects.
//
// A stream is made request by request, each right or wrong in one known way, so the answers are known
// without asking the code under test. Undamaged streams must be answered completely and leave the device as
// a model says; damaged ones are answered right up to the damage and then end or go on, but never crash,
// take more memory than allowed or disturb the connection beside them.
// FUZZ_SECONDS (default 3) is the budget of each test; SEED= replays one stream.
#include <doctest/doctest.h>

#include <chrono>

#include "transmission_model.h"

using namespace metadisk;
using namespace metadisk::nbd;
using namespace metadisk::fuzz;
using namespace metadisk::test;

namespace {

constexpr std::size_t kPool = 2 * 1024 * 1024;

// The connection beside the one under test: a write and a read must go through at any moment.
class Canary {
 public:
  Canary(Random& random, BufferPool& pool) : random_(random), line_(random, pool, Terms{}, 65536, {}) {}
  ~Canary() {
    line_.drop();
    while (!line_.ended()) line_.turn(true);
  }
  Canary(const Canary&) = delete;
  Canary& operator=(const Canary&) = delete;

  void sing() {
    Terms terms;
    Stream stream = Maker(random_, terms).make(0);
    Bytes data(512);
    for (std::byte& b : data) b = static_cast<std::byte>(random_());
    Bytes bytes = request(kWrite, data.size(), stream, {});
    bytes.insert(bytes.end(), data.begin(), data.end());
    const Bytes back = request(kRead, data.size(), stream, data);
    bytes.insert(bytes.end(), back.begin(), back.end());
    std::span<const std::byte> rest = bytes;
    Reader reader(terms, stream);
    for (int i = 0;
         i < 1000 && (stream.wanted.begin()->second.answers == 0 || stream.wanted.rbegin()->second.answers == 0); ++i) {
      rest = rest.subspan(line_.send(rest));
      line_.turn(true);
      line_.listen(4096);
      REQUIRE(reader.read(line_.answers));
    }
    for (const auto& [cookie, w] : stream.wanted) REQUIRE(w.answers == 1);
    REQUIRE_FALSE(line_.ended());
  }

 private:
  static Bytes request(std::uint16_t command, std::uint64_t length, Stream& stream, const Bytes& data) {
    Wanted w;
    w.command = command;
    w.length = length;
    w.data = data;
    Bytes head(kRequestBytes);
    std::byte* at = storeBig(head.data(), kRequestMagic);
    at = storeBig(at, std::uint16_t{0});
    at = storeBig(at, command);
    at = storeBig(at, std::uint64_t{command});
    at = storeBig(at, std::uint64_t{0});
    storeBig(at, static_cast<std::uint32_t>(length));
    stream.wanted.emplace(command, std::move(w));
    return head;
  }

  Random& random_;
  Line line_;
};

struct Session {
  Session(Random& source, BufferPool& pool) : random(source), terms(randomTerms(source)) {
    options.queueDepth = static_cast<unsigned>(1 + below(random, 16));
    options.maxBufferBytes = 4096U << below(random, 8);
    stream = Maker(random, terms).make(1 + below(random, 40));
    early = chance(random, 20) ? below(random, std::min<std::size_t>(stream.bytes.size(), 2000)) : 0;
    line = std::make_unique<Line>(random, pool, terms, kDevice, options, std::span(stream.bytes).first(early));
    reader = std::make_unique<Reader>(terms, stream);
  }

  // Sends in pieces, turns and listens until nothing more happens.
  void run(std::span<const std::byte> rest, Canary& canary, bool finish) {
    for (int quiet = 0; quiet < 40;) {
      const std::size_t piece = chance(random, 50) ? below(random, 64) : below(random, 200'000);
      const std::size_t sent = line->send(rest.first(std::min(piece, rest.size())));
      rest = rest.subspan(sent);
      if (chance(random, 10)) line->hold(true);
      line->turn(chance(random, 50));
      if (chance(random, 50)) line->hold(false);
      const std::size_t had = line->answers.size();
      line->listen(1 + below(random, 300'000));
      const bool heard = line->answers.size() != had;
      if (follows) follows = reader->read(line->answers);
      if (!follows) line->answers.clear();
      if (chance(random, 3)) canary.sing();
      const bool still = (rest.empty() || line->ended()) && !heard && line->device.pending() == 0;
      quiet = still || (sent == 0 && !heard && !finish) ? quiet + 1 : 0;
    }
    line->hold(false);
  }

  void end(bool wholly) {
    line->hangUp(wholly);
    for (int i = 0; i < 100'000 && !line->ended(); ++i) {
      line->turn(true);
      line->listen(65536);
      if (follows) follows = reader->read(line->answers);
      if (!follows) line->answers.clear();
      // What epoll would say of a client that is wholly gone.
      if (wholly && !line->ended()) line->connection().hangup();
    }
    REQUIRE(line->ended());
    REQUIRE(line->device.pending() == 0);
  }

  Random& random;
  Terms terms;
  Connection::Options options;
  Stream stream;
  std::size_t early = 0;
  std::unique_ptr<Line> line;
  std::unique_ptr<Reader> reader;
  bool follows = true;
};

// Runs `once` with one seed after the other until the budget is spent, or with SEED= alone.
template <typename Once>
void campaign(const char* what, Once once) {
  const char* const replay = std::getenv("SEED");
  const char* const seconds = std::getenv("FUZZ_SECONDS");
  std::uint64_t seed = replay != nullptr ? std::strtoull(replay, nullptr, 10) : std::random_device{}();
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds != nullptr ? std::atof(seconds) : 3.0);
  const std::uint64_t first = seed;
  do {
    CAPTURE(seed);
    Random random(seed);
    BufferPool pool(kPool);
    {
      Canary canary(random, pool);
      canary.sing();
      once(random, pool, canary);
      canary.sing();
    }
    REQUIRE(pool.lent() == 0);
    REQUIRE(pool.kept() <= kPool);
    ++seed;
  } while (replay == nullptr && std::chrono::steady_clock::now() < end);
  std::printf("%s: seeds %llu to %llu\n", what, static_cast<unsigned long long>(first),
              static_cast<unsigned long long>(seed - 1));
}

}  // namespace

TEST_CASE("transmission: every request of an undamaged stream is answered once and right, however it is cut") {
  campaign("transmission, undamaged", [](Random& random, BufferPool& pool, Canary& canary) {
    Session s(random, pool);
    s.run(std::span<const std::byte>(s.stream.bytes).subspan(s.early), canary, true);
    s.end(false);
    REQUIRE(s.follows);
    REQUIRE(s.line->answers.empty());
    for (const auto& [cookie, w] : s.stream.wanted) {
      CAPTURE(w.command);
      CAPTURE(w.error);
      REQUIRE(w.answers == 1);
    }
    const auto memory = s.line->device.memory();
    REQUIRE(std::equal(memory.begin(), memory.end(), s.stream.model.begin()));
  });
}

TEST_CASE("transmission: damage harms nothing before it and nobody beside it") {
  campaign("transmission, damaged", [](Random& random, BufferPool& pool, Canary& canary) {
    Session s(random, pool);
    Bytes bytes(s.stream.bytes.begin() + static_cast<std::ptrdiff_t>(s.early), s.stream.bytes.end());
    const std::size_t at = below(random, bytes.size() + 1);
    const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    const std::span<const std::byte> sound(bytes.data(), at);
    Bytes rest(place, bytes.end());
    switch (below(random, 5)) {
      case 0:
        for (std::size_t n = 1 + below(random, 8); n-- > 0 && !rest.empty();) {
          rest[below(random, std::min<std::size_t>(rest.size(), 64))] ^= static_cast<std::byte>(1U << below(random, 8));
        }
        break;
      case 1: rest.clear(); break;  // cut off
      case 2: {
        Bytes noise(1 + below(random, 5000));
        for (std::byte& b : noise) b = static_cast<std::byte>(random());
        rest.insert(rest.begin(), noise.begin(), noise.end());
        break;
      }
      case 3:
        rest.erase(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(below(random, rest.size() + 1)));
        break;
      default: {  // a header of random fields behind the right magic, payloads of any size included
        rest.assign(s.terms.extended ? kExtendedRequestBytes : kRequestBytes, std::byte{});
        for (std::byte& b : rest) b = static_cast<std::byte>(chance(random, 50) ? random() : 0);
        storeBig(rest.data(), s.terms.extended ? kExtendedRequestMagic : kRequestMagic);
        if (chance(random, 70)) storeBig(rest.data() + 6, static_cast<std::uint16_t>(below(random, 8)));
        const Bytes noise(below(random, 300'000), std::byte{0x25});
        rest.insert(rest.end(), noise.begin(), noise.end());
      }
    }
    s.run(sound, canary, true);
    // What comes after the damage may mean anything; only a second answer to what came before is wrong.
    std::erase_if(s.stream.wanted, [&](const auto& entry) { return entry.second.end > s.early + at; });
    for (const auto& [cookie, w] : s.stream.wanted) REQUIRE(w.answers == 1);
    s.run(rest, canary, false);
    s.end(chance(random, 50));
  });
}
