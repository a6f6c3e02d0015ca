// Replies with the sums of several files among their pages: reads of a RAID5 device whose one column cannot be read.
#include <array>
#include <random>

#include "core/pages.h"
#include "engine_rig.h"
#include "md/raid5.h"

using namespace metadisk;
using namespace metadisk::test;
using namespace metadisk::nbd;

namespace {

constexpr std::size_t kMiB = 1U << 20U;
constexpr std::size_t kSegment = 64 * 512;
constexpr std::size_t kStart = 400 * 512;

void fill(const TempFile& file, const Bytes& data, std::uint64_t at = 0) {
  REQUIRE(::pwrite(file.plain.get(), data.data(), data.size(), static_cast<off_t>(at)) ==
          static_cast<ssize_t>(data.size()));
}

// Linux before 6.5 cannot say what is cached, and nothing is lent.
bool lends(const TempFile& file) { return cached({file.plain.get(), kStart, 4096}); }

Bytes part(const Bytes& data, std::size_t at, std::size_t length) {
  return Bytes(data.begin() + static_cast<std::ptrdiff_t>(at), data.begin() + static_cast<std::ptrdiff_t>(at + length));
}

// Four files with data and parity, and what a device of them holds.
class Columns {
 public:
  static constexpr std::uint64_t kLines = 100;
  static constexpr std::uint64_t kBlocks = 400 + kLines * 64;

  Columns() {
    Raid5Node node;
    node.segment = kSegment;
    node.lines = kLines;
    node.originals = node.serving = 4;
    const Raid5Shape shape(node);
    model = pattern(shape.capacity(), 5);
    std::array<Bytes, 4> columns;
    columns.fill(Bytes(kLines * kSegment));
    for (std::uint64_t at = 0; at < model.size(); at += kSegment) {
      const Raid5Place place = shape.placeOf(at);
      Bytes& parity = columns[shape.parityColumn(place.line)];
      for (std::size_t i = 0; i < kSegment; i++) {
        columns[place.column][place.line * kSegment + i] = model[at + i];
        parity[place.line * kSegment + i] ^= model[at + i];
      }
    }
    for (unsigned c = 0; c < 4; c++) {
      fill(files[c], columns[c], kStart);
      given.push_back(&files[c]);
    }
    plan.blocks = kBlocks;
    plan.children = 4;
    plan.raid5 = true;
  }

  std::array<TempFile, 4> files{TempFile(kBlocks * 512), TempFile(kBlocks * 512), TempFile(kBlocks * 512),
                                TempFile(kBlocks * 512)};
  std::vector<const TempFile*> given;
  Bytes model;
  PlanBytes plan;
};

// As the column would be if another disk were in its place.
void scribble(const TempFile& file) { fill(file, pattern(Columns::kLines * kSegment, 99), kStart); }

}  // namespace

TEST_CASE("sums are computed in order between pages, of any number of files, and all or nothing is loaded") {
  for (const char* directory : {"/tmp", "/dev/shm"}) {
    CAPTURE(directory);
    std::vector<std::unique_ptr<TempFile>> files;
    std::vector<Bytes> data;
    for (unsigned i = 0; i < 9; i++) {
      files.push_back(std::make_unique<TempFile>(4 * kMiB, directory));
      data.push_back(pattern(2 * kMiB, i + 1));
      fill(*files.back(), data.back());
    }
    if (!lends(*files[0])) return;
    int pair[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    const Fd in(pair[0]);
    const Fd out(pair[1]);
    PagePipes pipes;
    PagePipe& pipe = *pipes.take();

    std::vector<FileRange> list;
    Bytes wanted;
    const auto page = [&](std::size_t file, std::uint64_t at, std::size_t length) {
      list.push_back({files[file]->plain.get(), at, length});
      wanted = wanted + part(data[file], at, length);
    };
    const auto sum = [&](std::size_t count, std::uint64_t at, std::size_t length) {
      Bytes total(length);
      for (std::size_t f = 0; f < count; f++) {
        const std::uint64_t from = at + f * 4096 * (f % 2 == 0 ? 1 : 3);
        list.push_back({files[f]->plain.get(), from, length, f == 0 ? static_cast<std::uint32_t>(count) : 7U});
        for (std::size_t i = 0; i < length; i++) total[i] ^= data[f][from + i];
      }
      wanted = wanted + total;
    };
    sum(2, 512, 70'001);
    page(0, 4097, 50'000);
    sum(3, 0, 65'536);
    sum(4, 12'345, 1);
    sum(5, 1 << 20U, 100);
    sum(8, 4096, 100'000);
    page(1, 0, 65'536);
    sum(9, 77, 3 * FileSum::kBlock);
    REQUIRE(pipe.load(list, pipes.sums()));
    CHECK(pipe.bytes() == wanted.size());
    Bytes got;
    while (pipe.bytes() > 0) {
      const ssize_t n = pipe.send(in.get());
      if (n < 0) CHECK(errno == EAGAIN);
      // What was sent is nobody's any more.
      fill(*files[3], pattern(kMiB, 77));
      got = got + receive(out, n > 0 ? static_cast<std::size_t>(n) : 0);
    }
    CHECK((got == wanted));
    fill(*files[3], data[3]);

    const int first = files[0]->plain.get();
    const int second = files[1]->plain.get();
    const std::vector<std::vector<FileRange>> refused{
        {{first, 0, 4096}, {first, 0, 4096, 2}, {second, 3 * kMiB, 4096}},                 // a hole
        {{first, 0, 4096}, {first, 0, 4096, 3}, {second, 0, 4096}},                        // one is missing
        {{first, 0, 4096, 2}, {-1, 0, 4096}},                                              // not open
        {{first, 0, kMiB - 4096}, {first, 0, 4096, 2}, {second, 0, 4096}, {first, 0, 1}},  // too many pages
    };
    for (const auto& bad : refused) {
      CHECK_FALSE(pipe.load(bad, pipes.sums()));
      CHECK(pipe.bytes() == 0);
    }
    const FileRange full[] = {{first, 0, kMiB - 4096}, {first, 0, 4096, 2}, {second, 0, 4096}};
    CHECK(pipe.load(full, pipes.sums()));
    CHECK(pipe.bytes() == kMiB);
    pipe.drop();
    const FileRange ends[] = {{first, 0, 4096, 2}, {second, 4 * kMiB - 512, 4096}};
    CHECK(pipes.sums().sum(ends, 0, 4096) == nullptr);  // short
    CHECK(pipes.sums().sum(ends, 0, 512) != nullptr);
    pipes.give(pipe);
  }
}

TEST_CASE("large reads of RAID5 without one column bring the right bytes, cached or not, beside what is not in place") {
  for (const unsigned column : {0U, 1U, 3U}) {
    for (const bool written : {false, true}) {
      CAPTURE(column);
      CAPTURE(written);
      Columns on;
      (written ? on.plan.behind : on.plan.missing) = 1U << column;
      scribble(on.files[column]);
      Rig rig;
      REQUIRE(rig.install(0, on.plan, on.given) == "");
      const Fd client = rig.connect(0);
      const auto holds = [&](std::size_t at, std::size_t length) {
        CAPTURE(at);
        CAPTURE(length);
        Bytes got;
        CHECK(call(client, request(kRead, at, length, 1), length, &got) == 0);
        CHECK((got == part(on.model, at, length)));
      };
      const auto look = [&] {
        for (const std::size_t at : {std::size_t{0}, std::size_t{1}, 3 * kSegment + 4095, on.model.size() - kMiB})
          holds(at, kMiB);
        holds(12345, 40'001);
        holds(column * kSegment, kSegment);
        holds(512, 3 * kMiB);
      };
      look();
      // Dirty rows, rows on their way and rows in place lie next to one another in every large read.
      std::mt19937_64 random(column);
      for (unsigned i = 0; i < 60; i++) {
        const std::size_t length = 1 + random() % (i % 8 == 0 ? 200'000 : 5000);
        const std::size_t at = random() % (on.model.size() - length);
        const Bytes data = pattern(length, i);
        std::copy(data.begin(), data.end(), on.model.begin() + static_cast<std::ptrdiff_t>(at));
        CHECK(call(client, request(kWrite, at, length, 2, i % 16 == 0 ? kFua : 0) + data) == 0);
        holds(std::min(at / kMiB * kMiB, on.model.size() - kMiB), kMiB);
      }
      look();
      CHECK(call(client, request(kFlush, 0, 0, 3)) == 0);
      look();
      // Every other part stays cached.
      for (const TempFile& file : on.files) {
        REQUIRE(::fdatasync(file.plain.get()) == 0);
        for (std::size_t at = 0; at < Columns::kBlocks * 512; at += kMiB)
          ::posix_fadvise(file.plain.get(), static_cast<off_t>(at), kMiB / 2, POSIX_FADV_DONTNEED);
      }
      look();
    }
  }
}

TEST_CASE("what is missing is computed from what the others hold now, without going through the stripe cache") {
  Columns on;
  if (!lends(on.files[0])) return;
  on.plan.missing = 2;
  scribble(on.files[1]);
  Rig rig;
  REQUIRE(rig.install(0, on.plan, on.given) == "");
  const Fd client = rig.connect(0);
  Bytes got;
  CHECK(call(client, request(kRead, 0, kMiB, 1), kMiB, &got) == 0);
  CHECK((got == part(on.model, 0, kMiB)));
  // Segment 1 is column 1's, of line 0. Rows that a read had left in the cache would know nothing of this.
  fill(on.files[2], Bytes(kSegment), kStart);
  Bytes other(kSegment);
  for (const unsigned c : {0U, 3U}) {
    const Bytes column = on.files[c].read(kStart, kSegment);
    for (std::size_t i = 0; i < kSegment; i++) other[i] ^= column[i];
  }
  CHECK(call(client, request(kRead, kSegment, kSegment, 2), kSegment, &got) == 0);
  CHECK((got == other));
}

TEST_CASE("where a source cannot be read, or two columns are out, a large read says so") {
  Columns on;
  on.plan.missing = 2;
  Rig rig;
  REQUIRE(rig.install(0, on.plan, on.given) == "");
  const Fd client = rig.connect(0);
  // Column 2 has become shorter: neither its own data nor the sum of line 90 can be read.
  REQUIRE(::ftruncate(on.files[2].plain.get(), static_cast<off_t>(kStart + 50 * kSegment)) == 0);
  CHECK(call(client, request(kRead, 90 * 3 * kSegment, 3 * kSegment, 1), 3 * kSegment) == kEio);
  Bytes got;
  CHECK(call(client, request(kRead, 0, kMiB, 2), kMiB, &got) == 0);
  CHECK((got == part(on.model, 0, kMiB)));
  on.plan.missing = 6;
  on.plan.generation++;
  REQUIRE(rig.install(0, on.plan, on.given) == "");
  CHECK(call(client, request(kRead, 0, kMiB, 3), kMiB) == kEio);
}
