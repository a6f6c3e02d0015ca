// Self-describing sectors: each 512 bytes say which journal, place and generation they belong to, and
// every byte follows from those three, so lost, misplaced, stale, torn and flipped data are told apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace metadisk::load {

inline constexpr std::size_t kSector = 512;

enum class Damage : std::uint8_t { none, blank, foreign, misplaced, flipped };

struct SectorView {
  Damage damage = Damage::none;
  std::uint32_t generation = 0;   // when damage is none; 0 for a sector of zeroes (blank)
  std::uint64_t foundOffset = 0;  // what the sector says of itself
};

// `offset` is the byte offset of the first sector on the export.
void stamp(std::span<std::byte> data, std::uint64_t offset, std::uint64_t seed, std::uint32_t generation) noexcept;
SectorView inspect(std::span<const std::byte, kSector> sector, std::uint64_t offset, std::uint64_t seed) noexcept;

const char* damageName(Damage damage) noexcept;

}  // namespace metadisk::load
