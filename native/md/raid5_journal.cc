#include "md/raid5_journal.h"

#include <isa-l.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

namespace metadisk::journal {

namespace {

static_assert(std::endian::native == std::endian::little, "headers are written in place");

constexpr std::size_t kAtMagic = 0;
constexpr std::size_t kAtCrc = 4;
constexpr std::size_t kAtVersion = 8;
constexpr std::size_t kAtColumn = 10;
constexpr std::size_t kAtUnit = 16;
constexpr std::size_t kAtEpoch = 24;
constexpr std::size_t kAtSequence = 32;
constexpr std::size_t kAtTail = 40;
constexpr std::size_t kAtMask = 48;
constexpr std::size_t kAtPosition = 56;
constexpr std::size_t kAtSpan = 60;
constexpr std::size_t kAtBlocks = 64;
constexpr std::size_t kAtEntries = 68;

template <typename T>
T load(std::span<const std::byte> bytes, std::size_t at) noexcept {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}
template <typename T>
void store(std::span<std::byte> bytes, std::size_t at, T value) noexcept {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

}  // namespace

std::uint32_t crc(std::span<const std::byte> bytes, std::uint32_t seed) noexcept {
  auto* const data = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(bytes.data()));
  return ~crc32_iscsi(data, static_cast<int>(bytes.size()), ~seed);
}

void unflip(std::span<std::byte> data, std::uint32_t flip) noexcept {
  if (flip == 0) return;
  for (std::size_t at = 0; at < data.size(); at += kBlock) store(data, at, load<std::uint32_t>(data, at) ^ flip);
}

std::uint32_t flipFor(std::span<const std::byte> data) noexcept {
  const auto clashes = [&](std::uint32_t flip) {
    for (std::size_t at = 0; at < data.size(); at += kBlock) {
      if ((load<std::uint32_t>(data, at) ^ flip) == kMagic) return true;
    }
    return false;
  };
  std::uint32_t flip = 0;  // there are fewer blocks than numbers
  while (clashes(flip)) flip++;
  return flip;
}

void putEntry(std::span<std::byte> head, std::uint32_t i, const Entry& entry) noexcept {
  const std::size_t at = kHeaderBytes + std::size_t{i} * kEntryBytes;
  store(head, at, entry.block);
  store(head, at + 8, entry.blocks);
  store(head, at + 12, entry.flip);
  store(head, at + 16, entry.crc);
  store(head, at + 20, std::uint32_t{0});
}

void seal(std::span<std::byte> head, const Header& header) noexcept {
  const std::size_t used = kHeaderBytes + std::size_t{header.entries} * kEntryBytes;
  std::memset(head.data(), 0, kHeaderBytes);
  std::memset(head.data() + used, 0, head.size() - used);
  store(head, kAtMagic, kMagic);
  store(head, kAtVersion, kVersion);
  store(head, kAtColumn, header.column);
  store(head, kAtUnit, header.unit);
  store(head, kAtEpoch, header.epoch);
  store(head, kAtSequence, header.sequence);
  store(head, kAtTail, header.tail);
  store(head, kAtMask, header.mask);
  store(head, kAtPosition, header.position);
  store(head, kAtSpan, header.span);
  store(head, kAtBlocks, header.blocks);
  store(head, kAtEntries, header.entries);
  store(head, kAtCrc, crc(head));
}

Entry entryAt(std::span<const std::byte> bytes, std::uint32_t i) noexcept {
  const std::size_t at = kHeaderBytes + std::size_t{i} * kEntryBytes;
  return {load<std::uint64_t>(bytes, at), load<std::uint32_t>(bytes, at + 8), load<std::uint32_t>(bytes, at + 12),
          load<std::uint32_t>(bytes, at + 16)};
}

Reading read(std::span<const std::byte> bytes, const Place& place, std::uint32_t position, Header& out) noexcept {
  if (bytes.size() < kBlock) return Reading::cut;
  if (load<std::uint32_t>(bytes, kAtMagic) != kMagic) return Reading::none;
  Header h;
  h.column = load<std::uint16_t>(bytes, kAtColumn);
  h.unit = load<std::uint64_t>(bytes, kAtUnit);
  h.epoch = load<std::uint64_t>(bytes, kAtEpoch);
  h.sequence = load<std::uint64_t>(bytes, kAtSequence);
  h.tail = load<std::uint64_t>(bytes, kAtTail);
  h.mask = load<std::uint64_t>(bytes, kAtMask);
  h.position = load<std::uint32_t>(bytes, kAtPosition);
  h.span = load<std::uint32_t>(bytes, kAtSpan);
  h.blocks = load<std::uint32_t>(bytes, kAtBlocks);
  h.entries = load<std::uint32_t>(bytes, kAtEntries);
  if (load<std::uint16_t>(bytes, kAtVersion) != kVersion || h.unit != place.unit || h.epoch < place.epoch ||
      h.column != place.column || h.column >= place.columns || h.position != position) {
    return Reading::none;
  }
  const bool columnsFit = place.columns >= 64 || h.mask >> place.columns == 0;
  if (!columnsFit || (h.mask >> h.column & 1U) == 0) return Reading::none;
  if (h.sequence == 0 || h.tail == 0 || h.tail > h.sequence) return Reading::none;
  if (position >= place.ringBlocks || h.span > place.ringBlocks - position || h.blocks > h.span) return Reading::none;
  const std::uint32_t head = headerBlocks(h.entries);
  if (head > h.blocks) return Reading::none;
  if (bytes.size() < head * std::size_t{kBlock}) return Reading::cut;
  const auto all = bytes.first(head * std::size_t{kBlock});
  const std::uint32_t zero = 0;
  std::uint32_t sum = crc(all.first(kAtCrc));
  sum = crc(std::as_bytes(std::span(&zero, 1)), sum);
  sum = crc(all.subspan(kAtCrc + 4), sum);
  if (load<std::uint32_t>(bytes, kAtCrc) != sum) return Reading::none;
  std::uint64_t end = 0;
  std::uint64_t data = 0;
  for (std::uint32_t i = 0; i < h.entries; i++) {
    const Entry entry = entryAt(all, i);
    if (entry.blocks == 0 || entry.block < end || entry.block >= place.dataBlocks ||
        entry.blocks > place.dataBlocks - entry.block) {
      return Reading::none;
    }
    end = entry.block + entry.blocks;
    data += entry.blocks;
  }
  if (head + data != h.blocks) return Reading::none;
  out = h;
  return Reading::found;
}

bool whole(std::span<const std::byte> part, const Header& header) noexcept {
  std::size_t at = headerBlocks(header.entries) * std::size_t{kBlock};
  for (std::uint32_t i = 0; i < header.entries; i++) {
    const Entry entry = entryAt(part, i);
    const std::size_t length = entry.blocks * std::size_t{kBlock};
    if (crc(part.subspan(at, length)) != entry.crc) return false;
    at += length;
  }
  return true;
}

bool isBadBlock(int error) noexcept { return error == EIO || error == ENODATA || error == EILSEQ; }

std::uint64_t newestEpoch(std::vector<Header>& found, std::uint64_t epoch) {
  for (const Header& h : found) epoch = std::max(epoch, h.epoch);
  std::erase_if(found, [&](const Header& h) { return h.epoch != epoch; });
  return epoch;
}

std::vector<Group> liveGroups(std::span<const Header> found) {
  std::uint64_t last = 0;
  std::uint64_t tail = 0;
  for (const Header& h : found) {
    last = std::max(last, h.sequence);
    tail = std::max(tail, h.tail);
  }
  std::vector<Group> groups;
  if (last == 0) return groups;
  std::vector<const Header*> live;
  for (const Header& h : found) {
    if (h.sequence >= tail) live.push_back(&h);
  }
  std::sort(live.begin(), live.end(), [](const Header* a, const Header* b) { return a->sequence < b->sequence; });
  std::uint64_t next = tail;
  for (const Header* h : live) {
    if (next < h->sequence) {  // no header is left of one or more groups
      groups.push_back({.sequence = next, .certain = true, .torn = true});
      next = h->sequence;
    }
    if (next == h->sequence) {
      groups.push_back({.sequence = h->sequence,
                        .certain = h->sequence != last,
                        .mask = h->mask,
                        .position = h->position,
                        .span = h->span});
      next++;
    }
    Group& group = groups.back();
    const ColumnSet bit = ColumnSet{1} << h->column;
    const bool agrees = h->mask == group.mask && h->position == group.position && h->span == group.span;
    group.torn = group.torn || !agrees || (group.found & bit) != 0;
    group.found |= bit;
  }
  return groups;
}

bool replays(const Group& group, ColumnSet usable, ColumnSet good) noexcept {
  return !group.torn && (group.certain || (group.mask & usable & ~good) == 0);
}

}  // namespace metadisk::journal
