// From the bytes of a request header to what is to be done: pure, so that it can be fuzzed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nbd/protocol.h"

namespace metadisk::nbd {

enum class ContextKind : std::uint8_t { allocation, state };

struct Context {
  std::uint32_t id = 0;
  ContextKind kind = ContextKind::allocation;
};

// What the handshake agreed on.
struct Terms {
  bool structured = false;
  bool extended = false;
  bool readOnly = false;
  std::uint32_t minBlock = 1;
  std::uint64_t maxRequest = 32 * 1024 * 1024;
  std::vector<Context> contexts;  // at most two
};

struct Header {
  std::uint16_t flags = 0;
  std::uint16_t command = 0;
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

inline std::size_t headerBytes(const Terms& terms) noexcept {
  return terms.extended ? kExtendedRequestBytes : kRequestBytes;
}

// `bytes`: headerBytes(terms) of them. False on a wrong magic: the connection cannot be followed any more.
bool parseHeader(std::span<const std::byte> bytes, const Terms& terms, Header& out) noexcept;

// Bytes that follow the header on the wire, whatever the answer will be.
std::uint64_t payloadBytes(const Header& header, const Terms& terms) noexcept;

// 0 when the request may be carried out on an export of `size` bytes, else the error to answer.
WireError validate(const Header& header, const Terms& terms, std::uint64_t size) noexcept;

// The wire error that stands for an errno.
WireError wireError(int error) noexcept;

}  // namespace metadisk::nbd
