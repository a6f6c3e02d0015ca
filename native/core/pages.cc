#include "core/pages.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace metadisk {

namespace {

constexpr std::uint64_t kPage = 4096;
constexpr int kPipeBytes = 1024 * 1024;  // what everybody may have (fs.pipe-max-size)

}  // namespace

bool PagePipe::open() noexcept {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return false;
  out_ = Fd(ends[0]);
  in_ = Fd(ends[1]);
  const int size = ::fcntl(ends[1], F_SETPIPE_SZ, kPipeBytes);
  capacity_ = static_cast<std::size_t>(size > 0 ? size : ::fcntl(ends[1], F_GETPIPE_SZ));
  return true;
}

bool PagePipe::load(std::span<const FileRange> ranges, FileSum& sums) noexcept {
  if (!in_ && !open()) return false;
  std::uint64_t pages = 0;
  for (auto rest = ranges; !rest.empty();) {
    const auto piece = nextPiece(rest);
    if (piece.empty()) return false;
    const std::uint64_t first = piece.size() == 1 ? piece[0].offset % kPage : 0;
    pages += (first + piece[0].length + kPage - 1) / kPage;
    if (pages * kPage > capacity_ || !std::all_of(piece.begin(), piece.end(), cached)) return false;
  }
  for (auto rest = ranges; !rest.empty();) {
    const auto piece = nextPiece(rest);
    if (piece.size() == 1 ? splice(piece[0]) : compute(piece, sums)) continue;
    drop();
    return false;
  }
  return true;
}

bool PagePipe::splice(const FileRange& range) noexcept {
  auto at = static_cast<loff_t>(range.offset);
  for (std::size_t left = range.length; left > 0;) {
    const ssize_t n = ::splice(range.fd, &at, in_.get(), nullptr, left, SPLICE_F_NONBLOCK);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    left -= static_cast<std::size_t>(n);
    bytes_ += static_cast<std::size_t>(n);
  }
  return true;
}

// In blocks of whole pages but for the last one, so that no more pages are taken than were counted.
bool PagePipe::compute(std::span<const FileRange> piece, FileSum& sums) noexcept {
  for (std::uint64_t done = 0; done < piece[0].length;) {
    const auto length = static_cast<std::size_t>(std::min<std::uint64_t>(FileSum::kBlock, piece[0].length - done));
    const std::byte* const data = sums.sum(piece, done, length);
    if (data == nullptr) return false;
    for (std::size_t written = 0; written < length;) {
      const ssize_t n = ::write(in_.get(), data + written, length - written);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      written += static_cast<std::size_t>(n);
      bytes_ += static_cast<std::size_t>(n);
    }
    done += length;
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
