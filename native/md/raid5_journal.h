// The journal of a RAID5 device as bytes: how a group of writes is laid out in the prewrite area of every column,
// and which groups a restart must carry out again. No I/O. docs/raid5.md says why it is safe.
//
// A group takes the same blocks of the ring on all columns. On each column that takes part lies its part: a header
// with its entries, then the data of the entries, in whole blocks. Groups are numbered one after another; one is
// written when all parts of the one before are on stable storage.
// Invariants:
// - A block of the ring begins with the magic if and only if a header was written there: data that looks like one is
//   stored with its first word changed (Entry::flip), so that no client can forge a group.
// - A header is believed only at the place it names, of the unit asked for and of no older epoch, inside all bounds,
//   with its entries in rising order and apart, and under one checksum with them. Any bytes may be given to read it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace metadisk {

// Of one column; bit by column.
using ColumnSet = std::uint64_t;

namespace journal {

inline constexpr std::uint32_t kBlock = 512;
inline constexpr std::uint32_t kMagic = 0x314a444d;  // "MDJ1"
inline constexpr std::uint16_t kVersion = 1;
inline constexpr std::uint32_t kHeaderBytes = 96;
inline constexpr std::uint32_t kEntryBytes = 24;

struct Entry {
  std::uint64_t block = 0;  // in the data of the column
  std::uint32_t blocks = 0;
  std::uint32_t flip = 0;  // XORed to the first word of every block while it lies in the ring
  std::uint32_t crc = 0;   // CRC-32C of the data as it lies in the ring
};

struct Header {
  std::uint64_t unit = 0;
  std::uint64_t epoch = 0;
  std::uint64_t sequence = 0;  // from 1 in every epoch
  std::uint64_t tail = 0;      // no group before this one needs to be carried out again
  ColumnSet mask = 0;          // columns that have a part
  std::uint16_t column = 0;
  std::uint32_t position = 0;  // block of the ring
  std::uint32_t span = 0;      // blocks the group takes on every column
  std::uint32_t blocks = 0;    // of this part, header included
  std::uint32_t entries = 0;
};

// What a header must agree with.
struct Place {
  std::uint64_t unit = 0;
  std::uint64_t epoch = 0;  // this one or a later one
  std::uint16_t column = 0;
  std::uint32_t columns = 0;
  std::uint32_t ringBlocks = 0;
  std::uint64_t dataBlocks = 0;  // of the column
};

constexpr std::uint32_t headerBlocks(std::uint64_t entries) noexcept {
  return static_cast<std::uint32_t>((kHeaderBytes + entries * kEntryBytes + kBlock - 1) / kBlock);
}

// What makes none of the blocks begin with the magic, as Entry::flip; nearly always 0.
std::uint32_t flipFor(std::span<const std::byte> data) noexcept;
// Changes the data of one entry so, and back.
void unflip(std::span<std::byte> data, std::uint32_t flip) noexcept;
// `head`: the beginning of a part, with room for its header and all its entries.
void putEntry(std::span<std::byte> head, std::uint32_t i, const Entry& entry) noexcept;
// Completes the header of the entries that were put there; `head`: headerBlocks(header.entries) blocks.
void seal(std::span<std::byte> head, const Header& header) noexcept;

enum class Reading : std::uint8_t {
  none,   // no header of this place
  cut,    // one may begin here, but needs more bytes than were given
  found,  // believed; its data is not looked at
};
// A header at block `position` of the ring, whose bytes are `bytes` from there on.
Reading read(std::span<const std::byte> bytes, const Place& place, std::uint32_t position, Header& out) noexcept;
// Of a header that was found in these bytes.
Entry entryAt(std::span<const std::byte> bytes, std::uint32_t i) noexcept;
// Whether the data of all entries is what was written; `part`: header.blocks blocks.
bool whole(std::span<const std::byte> part, const Header& header) noexcept;

std::uint32_t crc(std::span<const std::byte> bytes, std::uint32_t seed = 0) noexcept;

// Whether a read fails so because of what was to be read, and not because of the disk. A disk that hangs is another
// matter.
bool isBadBlock(int error) noexcept;

// ---- what a restart does

struct Group {
  std::uint64_t sequence = 0;
  // A later group was begun, so every part of this one was on stable storage. The last group of all is carried out
  // only if all its parts on usable columns are whole: otherwise nothing of it was written in place.
  bool certain = false;
  ColumnSet mask = 0;   // all that had a part
  ColumnSet found = 0;  // whose header was read
  bool torn = false;    // headers contradict each other, or none is left
  std::uint32_t position = 0;
  std::uint32_t span = 0;
};

// Of the headers that were found those of the newest epoch stay, which is returned; no headers: `epoch`.
std::uint64_t newestEpoch(std::vector<Header>& found, std::uint64_t epoch);
// The groups that are live, oldest first, from the headers that were found on the usable columns, in any order.
std::vector<Group> liveGroups(std::span<const Header> found);
// Whether the group is carried out; `good`: columns whose part was read and is whole.
bool replays(const Group& group, ColumnSet usable, ColumnSet good) noexcept;

}  // namespace journal
}  // namespace metadisk
