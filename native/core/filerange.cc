#include "core/filerange.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace metadisk {

namespace {

constexpr std::uint64_t kPage = 4096;

// cachestat(2); neither its number nor its structures are in the headers of older systems.
constexpr long kCachestat = 451;
struct CachestatRange {
  std::uint64_t offset;
  std::uint64_t length;
};
struct Cachestat {
  std::uint64_t cached, dirty, writeback, evicted, recentlyEvicted;
};

std::atomic<bool> cachestatWorks{true};

}  // namespace

bool cached(const FileRange& range) noexcept {
  if (!cachestatWorks.load(std::memory_order_relaxed)) return false;
  CachestatRange asked{range.offset, range.length};
  Cachestat found{};
  if (::syscall(kCachestat, range.fd, &asked, &found, 0U) != 0) {
    if (errno == ENOSYS || errno == EPERM) cachestatWorks.store(false, std::memory_order_relaxed);
    return false;
  }
  return found.cached == (range.offset + range.length - 1) / kPage - range.offset / kPage + 1;
}

}  // namespace metadisk
