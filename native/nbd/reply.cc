#include "nbd/reply.h"

#include <cstring>

namespace metadisk::nbd {

namespace {

std::byte* chunk(std::byte* at, const Terms& terms, const Header& header, std::uint16_t flags, std::uint16_t type,
                 std::uint64_t payload) noexcept {
  at = storeBig(at, terms.extended ? kExtendedReplyMagic : kStructuredReplyMagic);
  at = storeBig(at, flags);
  at = storeBig(at, type);
  at = storeBig(at, header.cookie);
  if (!terms.extended) return storeBig(at, static_cast<std::uint32_t>(payload));
  at = storeBig(at, header.offset);
  return storeBig(at, payload);
}

std::byte* simple(std::byte* at, const Header& header, std::uint32_t error) noexcept {
  at = storeBig(at, kSimpleReplyMagic);
  at = storeBig(at, error);
  return storeBig(at, header.cookie);
}

}  // namespace

std::size_t writeSuccess(std::byte* out, const Terms& terms, const Header& header, std::uint64_t data) noexcept {
  std::byte* at = out;
  if (terms.extended || terms.structured) {
    if (header.command == kRead) {
      at = chunk(at, terms, header, kReplyDone, kOffsetData, 8 + data);
      at = storeBig(at, header.offset);
    } else {
      at = chunk(at, terms, header, kReplyDone, kNone, 0);
    }
  } else {
    at = simple(at, header, kOk);
  }
  return static_cast<std::size_t>(at - out);
}

std::size_t writeError(std::byte* out, const Terms& terms, const Header& header, WireError error) noexcept {
  std::byte* at = out;
  if (terms.extended || terms.structured) {
    at = chunk(at, terms, header, kReplyDone, kError, 6);
    at = storeBig(at, static_cast<std::uint32_t>(error));
    at = storeBig(at, std::uint16_t{0});  // no message
  } else {
    at = simple(at, header, error);
  }
  return static_cast<std::size_t>(at - out);
}

std::size_t writeState(std::byte* out, const Terms& terms, const Header& header, std::uint32_t context,
                       std::uint32_t flags, bool last) noexcept {
  std::byte* at = out;
  const std::uint16_t done = last ? kReplyDone : 0;
  if (terms.extended) {
    at = chunk(at, terms, header, done, kBlockStatusExtReply, 24);
    at = storeBig(at, context);
    at = storeBig(at, std::uint32_t{1});
    at = storeBig(at, header.length);
    at = storeBig(at, std::uint64_t{flags});
  } else {
    at = chunk(at, terms, header, done, kBlockStatusReply, 12);
    at = storeBig(at, context);
    at = storeBig(at, static_cast<std::uint32_t>(header.length));
    at = storeBig(at, flags);
  }
  return static_cast<std::size_t>(at - out);
}

std::size_t writeAllocation(std::byte* out, const Terms& terms, const Header& header, std::uint32_t context,
                            std::byte* room, std::uint32_t count, std::uint64_t& data) noexcept {
  std::byte* to = room;
  for (std::uint32_t i = 0; i < count; ++i) {
    Extent extent;
    std::memcpy(&extent, room + i * sizeof extent, sizeof extent);
    const std::uint32_t flags = extent.hole ? kHole | kZero : 0;
    if (terms.extended) {
      to = storeBig(to, extent.length);
      to = storeBig(to, std::uint64_t{flags});
    } else {
      to = storeBig(to, static_cast<std::uint32_t>(extent.length));
      to = storeBig(to, flags);
    }
  }
  data = static_cast<std::uint64_t>(to - room);
  std::byte* at = chunk(out, terms, header, kReplyDone, terms.extended ? kBlockStatusExtReply : kBlockStatusReply,
                        data + (terms.extended ? 8 : 4));
  at = storeBig(at, context);
  if (terms.extended) at = storeBig(at, count);
  return static_cast<std::size_t>(at - out);
}

}  // namespace metadisk::nbd
