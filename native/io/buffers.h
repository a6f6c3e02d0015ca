// The memory of an Io, however it was given, and the sizes in which the backend works.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "io/backend.h"
#include "io/file.h"

namespace metadisk {

inline constexpr std::uint64_t kWindow = 256 * 1024;      // of a bounce buffer
inline constexpr std::uint64_t kZeroChunk = 1024 * 1024;  // of the shared zeroes
inline constexpr unsigned kBounces = 16;
inline constexpr std::uint64_t kPage = 4096;

inline std::uint64_t down(std::uint64_t n, std::uint64_t unit) noexcept { return n / unit * unit; }
inline std::uint64_t up(std::uint64_t n, std::uint64_t unit) noexcept { return (n + unit - 1) / unit * unit; }

// The memory of an Io as a list, whichever way it was given.
inline std::span<const iovec> memory(const Io& io, const iovec& one) noexcept {
  return io.iov != nullptr ? std::span(io.iov, io.iovCount) : std::span(&one, 1);
}

inline bool aligned(const Io& io) noexcept {
  const std::uint64_t mask = io.file->align - 1;
  std::uint64_t bits = io.offset | io.length;
  const iovec one{io.data, io.length};
  for (const iovec& v : memory(io, one)) {
    bits |= reinterpret_cast<std::uintptr_t>(v.iov_base) | v.iov_len;
  }
  return (bits & mask) == 0;
}

// The contiguous memory at byte `done` of an Io: to the end of the list's entry that holds it.
inline std::span<std::byte> pieceAt(const Io& io, std::uint64_t done) noexcept {
  const iovec one{io.data, io.length};
  for (const iovec& v : memory(io, one)) {
    if (done < v.iov_len) return {static_cast<std::byte*>(v.iov_base) + done, v.iov_len - done};
    done -= v.iov_len;
  }
  return {};
}

inline void scatter(const Io& io, std::uint64_t done, const std::byte* from, std::uint64_t length) noexcept {
  while (length > 0) {
    const auto piece = pieceAt(io, done);
    const std::uint64_t n = std::min<std::uint64_t>(piece.size(), length);
    std::memcpy(piece.data(), from, n);
    from += n;
    done += n;
    length -= n;
  }
}

inline void gather(const Io& io, std::uint64_t done, std::byte* to, std::uint64_t length) noexcept {
  while (length > 0) {
    const auto piece = pieceAt(io, done);
    const std::uint64_t n = std::min<std::uint64_t>(piece.size(), length);
    std::memcpy(to, piece.data(), n);
    to += n;
    done += n;
    length -= n;
  }
}

}  // namespace metadisk
