// Pages of files on their way into a socket without being copied: spliced from the page cache into a pipe, and
// out of it.
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

namespace metadisk {

// Bytes of an open file.
struct FileRange {
  int fd = -1;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

// Whether the page cache holds all of it. False also where the kernel cannot tell (before Linux 6.5).
bool cached(const FileRange& range) noexcept;

class PagePipe {
 public:
  // Of an empty pipe. False, and nothing held, unless all of it is cached and fits.
  bool load(std::span<const FileRange> ranges) noexcept;
  // As send() on a socket that does not block: bytes moved, or -1 with errno.
  ssize_t send(int socket) noexcept;
  std::size_t bytes() const noexcept { return bytes_; }
  void drop() noexcept;

 private:
  bool open() noexcept;

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

 private:
  std::array<PagePipe, kPipes> pipes_;
  std::array<PagePipe*, kPipes> free_{};
  std::size_t count_ = kPipes;
};

}  // namespace metadisk
