#include "store.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace faultdisk {

namespace {

int readAll(int fd, char* into, std::uint64_t length, std::uint64_t offset) {
  for (std::uint64_t done = 0; done < length;) {
    const ssize_t n = ::pread(fd, into + done, length - done, static_cast<off_t>(offset + done));
    if (n < 0) return errno;
    if (n == 0) return EIO;
    done += static_cast<std::uint64_t>(n);
  }
  return 0;
}

int writeAll(int fd, const char* from, std::uint64_t length, std::uint64_t offset) {
  for (std::uint64_t done = 0; done < length;) {
    const ssize_t n = ::pwrite(fd, from + done, length - done, static_cast<off_t>(offset + done));
    if (n < 0) return errno;
    done += static_cast<std::uint64_t>(n);
  }
  return 0;
}

}  // namespace

std::string Store::open(const std::string& image) {
  fd_ = ::open(image.c_str(), O_RDWR | O_CLOEXEC);
  struct stat st {};
  if (fd_ < 0 || ::fstat(fd_, &st) != 0) return image + ": " + std::strerror(errno);
  size_ = static_cast<std::uint64_t>(st.st_size);
  return {};
}

int Store::read(std::uint64_t offset, std::vector<char>& into) {
  const int error = readAll(fd_, into.data(), into.size(), offset);
  if (error != 0 || unsynced_.empty()) return error;
  const std::uint64_t end = offset + into.size();
  for (std::uint64_t sector = offset / kSector; sector * kSector < end; sector++) {
    const auto found = unsynced_.find(sector);
    if (found == unsynced_.end()) continue;
    const std::uint64_t from = std::max(offset, sector * kSector);
    const std::uint64_t to = std::min(end, (sector + 1) * kSector);
    std::memcpy(into.data() + (from - offset), found->second.data() + (from - sector * kSector), to - from);
  }
  return 0;
}

int Store::keep(std::uint64_t offset, const char* data, std::uint64_t length) {
  const std::uint64_t end = offset + length;
  for (std::uint64_t sector = offset / kSector; sector * kSector < end; sector++) {
    const std::uint64_t from = std::max(offset, sector * kSector);
    const std::uint64_t to = std::min(end, (sector + 1) * kSector);
    auto [entry, fresh] = unsynced_.try_emplace(sector);
    if (fresh && to - from < kSector) {
      const std::uint64_t bytes = std::min(kSector, size_ - sector * kSector);
      const int error = readAll(fd_, entry->second.data(), bytes, sector * kSector);
      if (error != 0) return error;
    }
    std::memcpy(entry->second.data() + (from - sector * kSector), data + (from - offset), to - from);
  }
  return 0;
}

int Store::write(std::uint64_t offset, const char* data, std::uint64_t length) {
  return volatile_ ? keep(offset, data, length) : writeAll(fd_, data, length, offset);
}

int Store::zero(std::uint64_t offset, std::uint64_t length, bool punch) {
  if (volatile_) {
    const std::vector<char> zeroes(length);
    return keep(offset, zeroes.data(), length);
  }
  const int mode = (punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
  return ::fallocate(fd_, mode, static_cast<off_t>(offset), static_cast<off_t>(length)) == 0 ? 0 : errno;
}

int Store::sync() {
  for (const auto& [sector, data] : unsynced_) {
    const int error = writeAll(fd_, data.data(), std::min(kSector, size_ - sector * kSector), sector * kSector);
    if (error != 0) return error;
  }
  unsynced_.clear();
  return 0;
}

int Store::setVolatile(bool on) {
  volatile_ = on;
  return on ? 0 : sync();
}

int Store::powerCut(std::uint64_t seed) {
  int failed = 0;
  for (const auto& [sector, data] : unsynced_) {
    // By sector, so that the order of the map does not matter to a seed.
    std::uint64_t x = (seed + sector) * 0x9e3779b97f4a7c15U;
    x ^= x >> 29U;
    x *= 0xbf58476d1ce4e5b9U;
    if ((x >> 40U & 1U) == 0) continue;
    const int error = writeAll(fd_, data.data(), std::min(kSector, size_ - sector * kSector), sector * kSector);
    if (error != 0) failed = error;
  }
  unsynced_.clear();
  return failed;
}

}  // namespace faultdisk
