#include "core/pages.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace metadisk {

namespace {

constexpr std::uint64_t kPage = 4096;
constexpr int kPipeBytes = 1024 * 1024;  // what everybody may have (fs.pipe-max-size)

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

bool PagePipe::open() noexcept {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return false;
  out_ = Fd(ends[0]);
  in_ = Fd(ends[1]);
  const int size = ::fcntl(ends[1], F_SETPIPE_SZ, kPipeBytes);
  capacity_ = static_cast<std::size_t>(size > 0 ? size : ::fcntl(ends[1], F_GETPIPE_SZ));
  return true;
}

bool PagePipe::load(std::span<const FileRange> ranges) noexcept {
  if (!in_ && !open()) return false;
  std::uint64_t pages = 0;
  for (const FileRange& range : ranges) {
    pages += (range.offset + range.length - 1) / kPage - range.offset / kPage + 1;
    if (pages * kPage > capacity_ || !cached(range)) return false;
  }
  for (const FileRange& range : ranges) {
    auto at = static_cast<loff_t>(range.offset);
    std::size_t left = range.length;
    while (left > 0) {
      const ssize_t n = ::splice(range.fd, &at, in_.get(), nullptr, left, SPLICE_F_NONBLOCK);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        drop();
        return false;
      }
      left -= static_cast<std::size_t>(n);
      bytes_ += static_cast<std::size_t>(n);
    }
  }
  return true;
}

ssize_t PagePipe::send(int socket) noexcept {
  const ssize_t n = ::splice(out_.get(), nullptr, socket, nullptr, bytes_, SPLICE_F_NONBLOCK);
  if (n > 0) bytes_ -= static_cast<std::size_t>(n);
  return n;
}

void PagePipe::drop() noexcept {
  if (bytes_ == 0) return;
  in_.reset();
  out_.reset();
  bytes_ = 0;
}

PagePipes::PagePipes() noexcept {
  for (std::size_t i = 0; i < kPipes; ++i) free_[i] = &pipes_[i];
}

PagePipe* PagePipes::take() noexcept { return count_ == 0 ? nullptr : free_[--count_]; }

void PagePipes::give(PagePipe& pipe) noexcept {
  pipe.drop();
  free_[count_++] = &pipe;
}

}  // namespace metadisk
