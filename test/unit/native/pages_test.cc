// Replies made of the page cache's own pages: what is lent, when not, and that readers get the right bytes.
#include "core/pages.h"

#include "engine_rig.h"

using namespace metadisk;
using namespace metadisk::test;
using namespace metadisk::nbd;

namespace {

constexpr std::uint64_t kBlocks = 8192;  // 4 MiB of each file
constexpr std::size_t kSize = kBlocks * 512;
constexpr std::size_t kMiB = 1U << 20U;

PlanBytes plan(unsigned children, bool mirror = false) {
  PlanBytes made;
  made.blocks = kBlocks;
  made.children = children;
  made.mirror = mirror;
  return made;
}

void fill(const TempFile& file, const Bytes& data, std::uint64_t at = 0) {
  REQUIRE(::pwrite(file.plain.get(), data.data(), data.size(), static_cast<off_t>(at)) ==
          static_cast<ssize_t>(data.size()));
}

// Linux before 6.5 cannot say what is cached, and nothing is lent.
bool lends(const TempFile& file) { return cached({file.plain.get(), 0, 4096}); }

// Asks for a MiB and, when its reply has begun, changes the file behind the engine's back: what is read then
// tells pages from a copy.
Bytes readAcrossChange(const Fd& client, const TempFile& file, const Bytes& after) {
  REQUIRE(sendAll(client, request(kRead, 0, kMiB, 1)));
  pollfd p{client.get(), POLLIN, 0};
  REQUIRE(::poll(&p, 1, 10'000) == 1);
  fill(file, after);
  CHECK(simpleReply(client).error == 0);
  return receive(client, kMiB);
}

}  // namespace

TEST_CASE("a pipe takes all of the ranges or nothing") {
  for (const char* directory : {"/tmp", "/dev/shm"}) {
    TempFile file(kSize, directory);
    const Bytes data = pattern(2 * kMiB, 1);
    fill(file, data);
    if (!lends(file)) return;
    const int fd = file.plain.get();
    int pair[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    const Fd in(pair[0]);
    const Fd out(pair[1]);
    PagePipe pipe;
    FileSum sums;
    const FileRange hole{fd, 3 * kMiB, 4096};
    CHECK(cached({fd, 2 * kMiB - 1, 1}));
    CHECK_FALSE(cached(hole));
    CHECK_FALSE(cached({fd, 2 * kMiB - 1, 2}));
    const FileRange holed[] = {{fd, 0, 4096}, hole};
    CHECK_FALSE(pipe.load(holed, sums));
    const FileRange large[] = {{fd, 0, kMiB + 1}};
    CHECK_FALSE(pipe.load(large, sums));
    const FileRange closed[] = {{-1, 0, 4096}};
    CHECK_FALSE(pipe.load(closed, sums));
    CHECK(pipe.bytes() == 0);

    const FileRange odd[] = {{fd, 4096 + 17, 100'000}, {fd, kMiB, 1}, {fd, 0, 200'000}};
    REQUIRE(pipe.load(odd, sums));
    CHECK(pipe.bytes() == 300'001);
    Bytes got;
    while (pipe.bytes() > 0) {
      const ssize_t n = pipe.send(in.get());
      if (n < 0) CHECK(errno == EAGAIN);
      got = got + receive(out, n > 0 ? static_cast<std::size_t>(n) : 0);
    }
    const auto part = [&](std::size_t at, std::size_t length) {
      return Bytes(data.begin() + static_cast<std::ptrdiff_t>(at),
                   data.begin() + static_cast<std::ptrdiff_t>(at + length));
    };
    CHECK(got == part(4096 + 17, 100'000) + part(kMiB, 1) + part(0, 200'000));

    REQUIRE(pipe.load(odd, sums));
    pipe.drop();
    CHECK(pipe.bytes() == 0);
    const FileRange whole[] = {{fd, 0, kMiB}};
    REQUIRE(pipe.load(whole, sums));
    CHECK(pipe.bytes() == kMiB);
  }
}

TEST_CASE("pipes are counted") {
  PagePipes pipes;
  PagePipe* taken[PagePipes::kPipes];
  for (auto& pipe : taken) {
    pipe = pipes.take();
    REQUIRE(pipe != nullptr);
  }
  CHECK(pipes.take() == nullptr);
  pipes.give(*taken[3]);
  CHECK(pipes.take() == taken[3]);
}

TEST_CASE("large reads bring the right bytes, whatever their offset and whether cached, over one file and two") {
  for (const unsigned children : {1U, 2U}) {
    CAPTURE(children);
    TempFile one(kSize), two(kSize);
    const Bytes data = pattern(children * kSize, children);
    fill(one, Bytes(data.begin(), data.begin() + kSize));
    if (children == 2) fill(two, Bytes(data.begin() + kSize, data.end()));
    Rig rig;
    REQUIRE(rig.install(
                0, plan(children),
                children == 2 ? std::vector<const TempFile*>{&one, &two} : std::vector<const TempFile*>{&one}) == "");
    const Fd simple = rig.connect(0);
    Terms terms;
    terms.structured = true;
    const Fd structured = rig.connect(0, terms);
    for (const bool cold : {false, true}) {
      CAPTURE(cold);
      if (cold) {
        for (const TempFile* file : {&one, &two}) {
          REQUIRE(::fdatasync(file->plain.get()) == 0);
          // Every other part stays cached.
          for (std::size_t at = 0; at < kSize; at += kMiB)
            ::posix_fadvise(file->plain.get(), static_cast<off_t>(at), kMiB / 2, POSIX_FADV_DONTNEED);
        }
      }
      for (const auto& [offset, length] :
           std::vector<std::pair<std::size_t, std::size_t>>{{0, kMiB},
                                                            {1, kMiB},
                                                            {kSize - kMiB, kMiB},
                                                            {children * kSize - 300'001, 300'001},
                                                            {12345, 131'072},
                                                            {512, 3 * kMiB}}) {
        CAPTURE(offset);
        const Bytes wanted(data.begin() + static_cast<std::ptrdiff_t>(offset),
                           data.begin() + static_cast<std::ptrdiff_t>(offset + length));
        Bytes got;
        CHECK(call(simple, request(kRead, offset, length, 1), length, &got) == 0);
        CHECK((got == wanted));
        REQUIRE(sendAll(structured, request(kRead, offset, length, 2)));
        const Bytes head = receive(structured, 28);
        REQUIRE(head.size() == 28);
        CHECK(loadBig<std::uint32_t>(head.data()) == kStructuredReplyMagic);
        CHECK(loadBig<std::uint32_t>(head.data() + 16) == 8 + length);
        CHECK((receive(structured, length) == wanted));
      }
    }
  }
}

TEST_CASE("a stripe lends its pages, a mirror those of the side it chose") {
  TempFile one(kSize), two(kSize);
  const Bytes before = pattern(kMiB, 1);
  const Bytes after = pattern(kMiB, 2);
  fill(one, before);
  fill(two, before);
  if (!lends(one)) return;
  Rig rig;
  REQUIRE(rig.install(0, plan(1), {&one}) == "");
  REQUIRE(rig.install(1, plan(2, true), {&one, &two}) == "");
  REQUIRE(rig.install(2, plan(1, true), {&two}) == "");
  const Fd lent = rig.connect(0);
  CHECK((readAcrossChange(lent, one, after) != before));
  for (const std::uint32_t mirror : {1U, 2U}) {
    CAPTURE(mirror);
    fill(one, before);
    fill(two, before);
    const Fd client = rig.connect(mirror);
    REQUIRE(sendAll(client, request(kRead, 0, kMiB, 1)));
    pollfd p{client.get(), POLLIN, 0};
    REQUIRE(::poll(&p, 1, 10'000) == 1);
    fill(one, after);
    fill(two, after);
    CHECK(simpleReply(client).error == 0);
    CHECK((receive(client, kMiB) != before));
  }
}

TEST_CASE("clients that do not take their pages hold up nobody, and pages come back from those that vanish") {
  TempFile file(kSize);
  const Bytes data = pattern(kSize, 3);
  fill(file, data);
  EngineOptions options;
  options.threads = 1;
  Rig rig(options);
  REQUIRE(rig.install(0, plan(1), {&file}) == "");
  std::vector<Fd> slow;
  for (std::size_t i = 0; i < 2 * PagePipes::kPipes; ++i) {
    slow.push_back(rig.connect(0));
    Bytes many;
    for (std::uint64_t n = 0; n < 8; ++n) many = many + request(kRead, n * kMiB / 2, kMiB, n);
    REQUIRE(sendAll(slow.back(), many));
    const Fd prompt = rig.connect(0);
    Bytes got;
    CHECK(call(prompt, request(kRead, kMiB, kMiB, 9), kMiB, &got) == 0);
    CHECK((got == Bytes(data.begin() + kMiB, data.begin() + 2 * kMiB)));
  }
  slow.resize(PagePipes::kPipes);  // the others vanish
  for (const Fd& client : slow) {
    for (std::uint64_t n = 0; n < 7; ++n) {
      const SimpleReply reply = simpleReply(client);
      CHECK(reply.error == 0);
      CHECK(reply.cookie == n);
      const auto from = data.begin() + static_cast<std::ptrdiff_t>(n * kMiB / 2);
      CHECK((receive(client, kMiB) == Bytes(from, from + kMiB)));
    }
    CHECK(simpleReply(client).error == 22);  // EINVAL: beyond the end
  }
  slow.clear();
  if (!lends(file)) return;
  // Every pipe is back: the next read gets one.
  const Fd next = rig.connect(0);
  CHECK((readAcrossChange(next, file, pattern(kMiB, 4)) != Bytes(data.begin(), data.begin() + kMiB)));
}
