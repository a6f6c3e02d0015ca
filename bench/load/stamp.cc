#include "stamp.h"

#include <array>
#include <cstring>

namespace metadisk::load {
namespace {

constexpr std::uint64_t kMagic = 0x6d65746164736b31;  // metadsk1
constexpr std::size_t kWords = kSector / 8;

struct Head {
  std::uint64_t magic;
  std::uint64_t offset;
  std::uint64_t seed;
  std::uint32_t generation;
  std::uint32_t crc;  // of the sector with this field zero
};
static_assert(sizeof(Head) == 32);

constexpr auto kTables = [] {
  std::array<std::array<std::uint32_t, 256>, 8> t{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int k = 0; k < 8; ++k) c = (c & 1) != 0 ? 0x82f63b78u ^ (c >> 1) : c >> 1;
    t[0][i] = c;
  }
  for (std::uint32_t i = 0; i < 256; ++i)
    for (std::size_t k = 1; k < 8; ++k) t[k][i] = (t[k - 1][i] >> 8) ^ t[0][t[k - 1][i] & 255];
  return t;
}();

using Words = std::array<std::uint64_t, kWords>;

std::uint32_t crc32c(const Words& words) noexcept {
  std::uint32_t crc = ~0u;
  for (const std::uint64_t word : words) {
    const std::uint64_t w = word ^ crc;
    crc = 0;
    for (std::size_t k = 0; k < 8; ++k) crc ^= kTables[7 - k][(w >> (8 * k)) & 255];
  }
  return ~crc;
}

std::uint64_t mix(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// The sector without its checksum.
void fill(Words& words, std::uint64_t offset, std::uint64_t seed, std::uint32_t generation) noexcept {
  const Head head{kMagic, offset, seed, generation, 0};
  std::memcpy(words.data(), &head, sizeof head);
  std::uint64_t state = mix(offset ^ mix(seed + generation));
  for (std::size_t i = sizeof(Head) / 8; i < kWords; ++i) {
    state += 0x9e3779b97f4a7c15;
    words[i] = state ^ (state >> 29);
  }
}

}  // namespace

void stamp(std::span<std::byte> data, std::uint64_t offset, std::uint64_t seed, std::uint32_t generation) noexcept {
  Words words;
  for (std::size_t at = 0; at < data.size(); at += kSector) {
    fill(words, offset + at, seed, generation);
    const std::uint32_t crc = crc32c(words);
    std::memcpy(data.data() + at, words.data(), kSector);
    std::memcpy(data.data() + at + offsetof(Head, crc), &crc, sizeof crc);
  }
}

SectorView inspect(std::span<const std::byte, kSector> sector, std::uint64_t offset, std::uint64_t seed) noexcept {
  Words found;
  std::memcpy(found.data(), sector.data(), kSector);
  Head head;
  std::memcpy(&head, found.data(), sizeof head);
  if (head.magic != kMagic) {
    std::uint64_t any = 0;
    for (const std::uint64_t word : found) any |= word;
    return {any == 0 ? Damage::blank : Damage::foreign, 0, 0};
  }
  if (head.seed != seed) return {Damage::foreign, 0, head.offset};
  const std::uint32_t crc = head.crc;
  head.crc = 0;
  std::memcpy(found.data(), &head, sizeof head);
  if (crc32c(found) != crc) return {Damage::flipped, head.generation, head.offset};
  if (head.offset != offset) return {Damage::misplaced, head.generation, head.offset};
  Words expected;
  fill(expected, offset, seed, head.generation);
  if (expected != found) return {Damage::flipped, head.generation, head.offset};
  return {Damage::none, head.generation, head.offset};
}

const char* damageName(Damage damage) noexcept {
  switch (damage) {
    case Damage::none: return "good";
    case Damage::blank: return "zeroes";
    case Damage::foreign: return "foreign";
    case Damage::misplaced: return "misplaced";
    case Damage::flipped: return "flipped";
  }
  return "?";
}

}  // namespace metadisk::load
