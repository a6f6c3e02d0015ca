// The data of one disk: an image file, and in front of it, if asked for, a cache that loses power.
//
// Invariant of the volatile cache: the image holds exactly what was synced; a sector written since is
// in `unsynced_` only. A power cut writes some of those sectors (by seed) and forgets the others: each
// 512-byte sector is old or new, and nothing that was synced changes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace faultdisk {

class Store {
 public:
  // Empty on success.
  std::string open(const std::string& image);
  std::uint64_t size() const { return size_; }
  // 0 or an errno. Ranges are inside the size.
  int read(std::uint64_t offset, std::vector<char>& into);
  int write(std::uint64_t offset, const char* data, std::uint64_t length);
  int zero(std::uint64_t offset, std::uint64_t length, bool punch);
  int sync();
  // Turning it off syncs.
  int setVolatile(bool on);
  int powerCut(std::uint64_t seed);
  std::size_t unsynced() const { return unsynced_.size(); }

 private:
  static constexpr std::uint64_t kSector = 512;
  using Sector = std::array<char, kSector>;
  int keep(std::uint64_t offset, const char* data, std::uint64_t length);

  int fd_ = -1;
  std::uint64_t size_ = 0;
  bool volatile_ = false;
  std::unordered_map<std::uint64_t, Sector> unsynced_;
};

}  // namespace faultdisk
