// The journal's format: what is written is read, what is damaged is not believed, and which groups are carried out.
#include "md/raid5_journal.h"

#include <doctest/doctest.h>

#include <cstring>
#include <random>

#include "plan/plan.h"

using namespace metadisk;
using namespace metadisk::journal;

namespace {

constexpr Place kPlace{.unit = 77, .epoch = 5, .column = 2, .columns = 5, .ringBlocks = 200, .dataBlocks = 1000};

struct Part {
  std::vector<std::byte> bytes;
  Header header;
  std::vector<std::byte> data;
};

Part make(std::mt19937_64& random, std::uint32_t count, std::uint32_t position, bool forged = false) {
  std::vector<Entry> entries;
  std::uint64_t at = random() % 10;
  std::uint32_t blocks = 0;
  for (std::uint32_t i = 0; i < count; i++) {
    const auto n = static_cast<std::uint32_t>(1 + random() % 3);
    entries.push_back({.block = at, .blocks = n});
    at += n + random() % 4;
    blocks += n;
  }
  Part part;
  part.header = {.unit = 77, .epoch = 5, .sequence = 9, .tail = 7, .mask = 0b10110, .column = 2};
  part.header.position = position;
  part.header.blocks = headerBlocks(count) + blocks;
  part.header.span = part.header.blocks + 2;
  part.header.entries = count;
  part.bytes.resize(part.header.blocks * std::size_t{512});
  for (std::byte& b : part.bytes) b = static_cast<std::byte>(random());
  const std::size_t head = headerBlocks(count) * std::size_t{512};
  for (std::size_t b = head; forged && b < part.bytes.size(); b += 512) {
    const std::uint32_t word = kMagic ^ static_cast<std::uint32_t>(random() % 3);
    std::memcpy(part.bytes.data() + b, &word, 4);
  }
  part.data.assign(part.bytes.begin() + static_cast<std::ptrdiff_t>(head), part.bytes.end());
  const std::span all(part.bytes);
  std::size_t from = head;
  for (std::uint32_t i = 0; i < count; i++) {
    const auto data = all.subspan(from, entries[i].blocks * std::size_t{512});
    entries[i].flip = flipFor(data);
    unflip(data, entries[i].flip);
    entries[i].crc = journal::crc(data);
    putEntry(all, i, entries[i]);
    from += data.size();
  }
  seal(all.first(head), part.header);
  return part;
}

Header head(std::uint64_t sequence, std::uint64_t tail, std::uint16_t column, ColumnSet mask,
            std::uint32_t position = 4) {
  return {.sequence = sequence, .tail = tail, .mask = mask, .column = column, .position = position, .span = 3};
}

}  // namespace

TEST_CASE("raid5 journal: the checksum is CRC-32C") {
  std::mt19937_64 random(1);
  std::vector<std::byte> bytes(1000);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  for (const std::size_t n : {0, 1, 7, 512, 1000}) {
    CHECK(journal::crc(std::span(bytes).first(n)) == crc32c(std::span(bytes).first(n)));
  }
  CHECK(journal::crc(std::span(bytes).subspan(4), journal::crc(std::span(bytes).first(4))) == crc32c(bytes));
}

TEST_CASE("raid5 journal: a part is read back, whatever its data") {
  std::mt19937_64 random(2);
  for (int round = 0; round < 300; round++) {
    const bool forged = round % 3 == 0;
    const auto count = static_cast<std::uint32_t>(random() % 45);
    Part part = make(random, count, 30, forged);
    Header header;
    REQUIRE(read(part.bytes, kPlace, 30, header) == Reading::found);
    CHECK(header.sequence == 9);
    CHECK(header.tail == 7);
    CHECK(header.mask == 0b10110);
    CHECK(header.blocks == part.header.blocks);
    CHECK(header.span == part.header.span);
    REQUIRE(header.entries == count);
    REQUIRE(whole(part.bytes, header));
    // Nothing but the header begins with the magic, and the data comes back as it was.
    for (std::size_t at = 512; at < part.bytes.size(); at += 512) {
      std::uint32_t word = 0;
      std::memcpy(&word, part.bytes.data() + at, 4);
      CHECK((word != kMagic || at < headerBlocks(count) * 512UL));
    }
    std::size_t at = headerBlocks(count) * 512UL;
    for (std::uint32_t i = 0; i < count; i++) {
      const Entry entry = entryAt(part.bytes, i);
      CHECK((forged || entry.flip == 0));
      unflip(std::span(part.bytes).subspan(at, entry.blocks * 512UL), entry.flip);
      at += entry.blocks * 512UL;
    }
    CHECK(std::equal(part.data.begin(), part.data.end(),
                     part.bytes.begin() + static_cast<std::ptrdiff_t>(headerBlocks(count) * 512UL)));
  }
}

TEST_CASE("raid5 journal: of several epochs the newest one counts") {
  std::vector<Header> found{{.epoch = 5, .sequence = 1}, {.epoch = 7, .sequence = 2}, {.epoch = 5, .sequence = 3}};
  CHECK(newestEpoch(found, 5) == 7);
  REQUIRE(found.size() == 1);
  CHECK(found[0].sequence == 2);
  CHECK(newestEpoch(found, 7) == 7);
  CHECK(found.size() == 1);
  found.clear();
  CHECK(newestEpoch(found, 9) == 9);
}

TEST_CASE("raid5 journal: a header is believed only in its place") {
  std::mt19937_64 random(3);
  const Part part = make(random, 30, 30);
  Header header;
  REQUIRE(read(part.bytes, kPlace, 30, header) == Reading::found);
  CHECK(read(part.bytes, kPlace, 31, header) == Reading::none);
  const auto with = [](auto change) {
    Place place = kPlace;
    change(place);
    return place;
  };
  CHECK(read(part.bytes, with([](Place& p) { p.unit = 78; }), 30, header) == Reading::none);
  CHECK(read(part.bytes, with([](Place& p) { p.epoch = 6; }), 30, header) == Reading::none);
  // Of a record that is out of date.
  CHECK(read(part.bytes, with([](Place& p) { p.epoch = 4; }), 30, header) == Reading::found);
  CHECK(header.epoch == 5);
  CHECK(read(part.bytes, with([](Place& p) { p.column = 1; }), 30, header) == Reading::none);
  CHECK(read(part.bytes, with([](Place& p) { p.columns = 4; }), 30, header) == Reading::none);
  CHECK(read(part.bytes, with([](Place& p) { p.ringBlocks = 40; }), 30, header) == Reading::none);
  CHECK(read(part.bytes, with([](Place& p) { p.dataBlocks = 60; }), 30, header) == Reading::none);
  CHECK(read(std::span(part.bytes).first(512), kPlace, 30, header) == Reading::cut);
  CHECK(read(std::span(part.bytes).first(100), kPlace, 30, header) == Reading::cut);
}

TEST_CASE("raid5 journal: every flipped bit of a part is noticed") {
  std::mt19937_64 random(4);
  Part part = make(random, 25, 10);
  Header header;
  const std::size_t used = kHeaderBytes + 25UL * kEntryBytes;
  for (std::size_t i = 0; i < part.bytes.size(); i += i < used ? 1 : 37) {
    part.bytes[i] ^= std::byte{1} << (i % 8);
    const bool believed = read(part.bytes, kPlace, 10, header) == Reading::found && whole(part.bytes, header);
    CHECK(!believed);
    part.bytes[i] ^= std::byte{1} << (i % 8);
  }
}

TEST_CASE("raid5 journal: a torn part is noticed, whichever sectors are missing") {
  std::mt19937_64 random(5);
  for (int round = 0; round < 500; round++) {
    const Part part = make(random, 1 + static_cast<std::uint32_t>(random() % 30), 10);
    Part torn = part;
    bool changed = false;
    for (std::size_t at = 0; at < torn.bytes.size(); at += 512) {
      if (random() % 4 != 0) continue;
      changed = true;
      for (std::size_t i = 0; i < 512; i++) torn.bytes[at + i] = static_cast<std::byte>(random());
    }
    Header header;
    const bool believed = read(torn.bytes, kPlace, 10, header) == Reading::found && whole(torn.bytes, header);
    CHECK(believed == !changed);
  }
}

TEST_CASE("raid5 journal: bytes that have a right checksum and nothing else right are harmless") {
  std::mt19937_64 random(6);
  unsigned found = 0;
  for (int round = 0; round < 60000; round++) {
    Part part = make(random, 1 + static_cast<std::uint32_t>(random() % 4), 10);
    for (std::uint64_t n = random() % 3; n > 0; n--) {
      const std::size_t at = 8 + random() % 160;
      const std::uint64_t values[] = {0, 1, 2, 200, 1000, 0xffffffff, UINT64_MAX, random()};
      std::memcpy(part.bytes.data() + at, &values[random() % std::size(values)], random() % 2 != 0 ? 4 : 8);
    }
    std::memset(part.bytes.data() + 4, 0, 4);
    const std::uint32_t sum = crc32c(std::span(part.bytes).first(512));
    std::memcpy(part.bytes.data() + 4, &sum, 4);
    Header header;
    if (read(part.bytes, kPlace, 10, header) != Reading::found) continue;
    found++;
    CHECK(header.position + header.span <= kPlace.ringBlocks);
    CHECK(header.blocks <= header.span);
    if (header.blocks * 512UL <= part.bytes.size()) whole(part.bytes, header);
    std::uint64_t end = 0;
    for (std::uint32_t i = 0; i < header.entries; i++) {
      const Entry entry = entryAt(part.bytes, i);
      CHECK(entry.block >= end);
      end = entry.block + entry.blocks;
    }
    CHECK(end <= kPlace.dataBlocks);
  }
  CHECK(found > 1000);
}

TEST_CASE("raid5 journal: the live groups") {
  CHECK(liveGroups({}).empty());
  // Older than the newest tail: dead, although its parts are still there.
  const Header some[] = {head(4, 2, 0, 3), head(4, 2, 1, 3), head(3, 2, 0, 3), head(3, 2, 1, 3), head(1, 1, 0, 3)};
  auto groups = liveGroups(some);
  REQUIRE(groups.size() == 2 + 1);
  CHECK(groups[0].sequence == 2);  // none of its headers is left
  CHECK(groups[0].torn);
  CHECK(groups[1].sequence == 3);
  CHECK(groups[1].certain);
  CHECK(groups[1].found == 3);
  CHECK(groups[2].sequence == 4);
  CHECK(!groups[2].certain);
  CHECK(!groups[2].torn);
  // The tail of a group that is itself not whole counts: what it calls dead may be overwritten by it.
  const Header torn[] = {head(3, 1, 0, 3), head(3, 1, 1, 3), head(4, 4, 0, 3)};
  groups = liveGroups(torn);
  REQUIRE(groups.size() == 1);
  CHECK(groups[0].sequence == 4);
  CHECK(groups[0].found == 1);
  const Header contrary[] = {head(3, 3, 0, 3), head(3, 3, 1, 7)};
  CHECK(liveGroups(contrary)[0].torn);
  const Header twice[] = {head(3, 3, 0, 3), head(3, 3, 0, 3)};
  CHECK(liveGroups(twice)[0].torn);
  const Header far[] = {head(UINT64_MAX, 1, 0, 3)};
  CHECK(liveGroups(far).size() == 2);
}

TEST_CASE("raid5 journal: a group is carried out when it was certainly written") {
  Group last{.sequence = 4, .mask = 0b111};
  CHECK(replays(last, 0b111, 0b111));
  CHECK(!replays(last, 0b111, 0b110));  // torn: nothing was written in place
  CHECK(replays(last, 0b110, 0b110));   // the column was lost with the crash
  CHECK(!replays(last, 0b110, 0b100));
  last.certain = true;
  CHECK(replays(last, 0b111, 0b110));  // written once, and rotten since
  last.torn = true;
  CHECK(!replays(last, 0b111, 0b111));
}
