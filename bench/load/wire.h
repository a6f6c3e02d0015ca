// NBD on the wire, as far as a client of plain and structured replies needs it, and the two small
// owners (descriptor, errno text) everything else here uses.
#pragma once

#include <endian.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace metadisk::load {

inline constexpr std::uint64_t kInitMagic = 0x4e42444d41474943;  // NBDMAGIC
inline constexpr std::uint64_t kOptMagic = 0x49484156454f5054;   // IHAVEOPT
inline constexpr std::uint64_t kOptReplyMagic = 0x3e889045565a9;
inline constexpr std::uint32_t kRequestMagic = 0x25609513;
inline constexpr std::uint32_t kSimpleMagic = 0x67446698;
inline constexpr std::uint32_t kStructuredMagic = 0x668e33ef;

inline constexpr std::uint16_t kFlagFixedNewstyle = 1, kFlagNoZeroes = 2;
inline constexpr std::uint32_t kOptExportName = 1, kOptGo = 7, kOptStructuredReply = 8;
inline constexpr std::uint32_t kRepAck = 1, kRepInfo = 3;
inline constexpr std::uint16_t kInfoExport = 0;
inline constexpr std::uint16_t kTxReadOnly = 2, kTxSendFlush = 4, kTxSendFua = 8, kTxMultiConn = 256;
inline constexpr std::uint16_t kCmdRead = 0, kCmdWrite = 1, kCmdDisc = 2, kCmdFlush = 3;
inline constexpr std::uint16_t kCmdFlagFua = 1;
inline constexpr std::uint16_t kChunkDone = 1;
inline constexpr std::uint16_t kChunkNone = 0, kChunkData = 1, kChunkHole = 2, kChunkError = 0x8001,
                               kChunkErrorOffset = 0x8002;
inline constexpr std::size_t kRequestBytes = 28, kSimpleBytes = 16, kStructuredBytes = 20;

template <typename T>
inline T bigEndian(T v) noexcept {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8);
  if constexpr (sizeof(T) == 2)
    return static_cast<T>(htobe16(v));
  else if constexpr (sizeof(T) == 4)
    return static_cast<T>(htobe32(v));
  else
    return static_cast<T>(htobe64(v));
}

template <typename T>
inline void put(std::byte*& at, T v) noexcept {
  const T wire = bigEndian(v);
  std::memcpy(at, &wire, sizeof wire);
  at += sizeof wire;
}

template <typename T>
inline T get(const std::byte* at) noexcept {
  T wire;
  std::memcpy(&wire, at, sizeof wire);
  return bigEndian(wire);
}

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) noexcept : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }
  [[nodiscard]] int get() const noexcept { return fd_; }
  void reset() noexcept {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

}  // namespace metadisk::load
