// Pages of files on their way into a socket without being copied: spliced from the page cache into a pipe, and
// out of it. What is the sum of several files is computed into pages of the pipe's own, between them.
//
// Invariants: used by one thread. load() is all or nothing, so an error of the file is met while the request can
// still be answered otherwise. The bytes stay the file's until the socket's reader has taken them: a write
// meanwhile may show in them, as it may in any read that has not been answered yet, and the storage must not become
// something else (engine/lent.h). Held pages are bounded by kPipes times the capacity of a pipe, and the sockets.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/fd.h"
#include "core/filerange.h"
#include "core/filesum.h"

namespace metadisk {

class PagePipe {
 public:
  // Of an empty pipe. False, and nothing held, unless all of it, and of what is summed, is cached and fits.
  bool load(std::span<const FileRange> ranges, FileSum& sums) noexcept;
  // As send() on a socket that does not block: bytes moved, or -1 with errno.
  ssize_t send(int socket) noexcept;
  std::size_t bytes() const noexcept { return bytes_; }
  void drop() noexcept;

 private:
  bool open() noexcept;
  bool splice(const FileRange& range) noexcept;
  bool compute(std::span<const FileRange> piece, FileSum& sums) noexcept;

  Fd in_;
  Fd out_;
  std::size_t capacity_ = 0;
  std::size_t bytes_ = 0;
};

class PagePipes {
 public:
  static constexpr std::size_t kPipes = 8;

  PagePipes() noexcept;
  // Null when all are lent.
  PagePipe* take() noexcept;
  void give(PagePipe& pipe) noexcept;
  std::size_t lent() const noexcept { return kPipes - count_; }
  // For load().
  FileSum& sums() noexcept { return sums_; }

 private:
  std::array<PagePipe, kPipes> pipes_;
  std::array<PagePipe*, kPipes> free_{};
  std::size_t count_ = kPipes;
  FileSum sums_;
};

}  // namespace metadisk
