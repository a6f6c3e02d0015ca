// Numbers of the NBD transmission phase, and big-endian access to bytes.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace metadisk::nbd {

inline constexpr std::uint32_t kRequestMagic = 0x25609513;
inline constexpr std::uint32_t kExtendedRequestMagic = 0x21e41c71;
inline constexpr std::uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr std::uint32_t kStructuredReplyMagic = 0x668e33ef;
inline constexpr std::uint32_t kExtendedReplyMagic = 0x6e8a278c;

inline constexpr std::size_t kRequestBytes = 28;
inline constexpr std::size_t kExtendedRequestBytes = 32;
inline constexpr std::size_t kSimpleReplyBytes = 16;
inline constexpr std::size_t kStructuredReplyBytes = 20;
inline constexpr std::size_t kExtendedReplyBytes = 32;

enum Command : std::uint16_t {
  kRead = 0,
  kWrite = 1,
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kCache = 5,
  kWriteZeroes = 6,
  kBlockStatus = 7,
};

enum CommandFlag : std::uint16_t {
  kFua = 1 << 0,
  kNoHole = 1 << 1,
  kDontFragment = 1 << 2,
  kReqOne = 1 << 3,
  kFastZero = 1 << 4,
  kPayloadLength = 1 << 5,
};

inline constexpr std::uint16_t kReplyDone = 1;

// Of base:allocation.
enum AllocationFlag : std::uint32_t {
  kHole = 1 << 0,
  kZero = 1 << 1,
};

enum ReplyType : std::uint16_t {
  kNone = 0,
  kOffsetData = 1,
  kOffsetHole = 2,
  kBlockStatusReply = 5,
  kBlockStatusExtReply = 6,
  kError = 0x8001,
};

enum WireError : std::uint32_t {
  kOk = 0,
  kEperm = 1,
  kEio = 5,
  kEnomem = 12,
  kEinval = 22,
  kEnospc = 28,
  kEoverflow = 75,
  kEnotsup = 95,
  kEshutdown = 108,
};

template <typename T>
T loadBig(const std::byte* at) noexcept {
  T value;
  std::memcpy(&value, at, sizeof value);
  if constexpr (sizeof(T) == 2) return static_cast<T>(__builtin_bswap16(value));
  if constexpr (sizeof(T) == 4) return static_cast<T>(__builtin_bswap32(value));
  if constexpr (sizeof(T) == 8) return static_cast<T>(__builtin_bswap64(value));
}

template <typename T>
std::byte* storeBig(std::byte* at, T value) noexcept {
  if constexpr (sizeof(T) == 2) value = static_cast<T>(__builtin_bswap16(value));
  if constexpr (sizeof(T) == 4) value = static_cast<T>(__builtin_bswap32(value));
  if constexpr (sizeof(T) == 8) value = static_cast<T>(__builtin_bswap64(value));
  std::memcpy(at, &value, sizeof value);
  return at + sizeof value;
}

static_assert(std::endian::native == std::endian::little, "loadBig and storeBig swap");

}  // namespace metadisk::nbd
