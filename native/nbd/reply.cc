#include "nbd/reply.h"

#include <algorithm>

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

std::size_t writeBlockStatus(std::byte* out, const Terms& terms, const Header& header,
                             std::span<const Extent> extents) noexcept {
  std::byte* at = out;
  for (std::size_t i = 0; i < extents.size(); ++i) {
    const Extent& extent = extents[i];
    const std::uint16_t flags = i + 1 == extents.size() ? kReplyDone : 0;
    if (terms.extended) {
      at = chunk(at, terms, header, flags, kBlockStatusExtReply, 24);
      at = storeBig(at, extent.context);
      at = storeBig(at, std::uint32_t{1});
      at = storeBig(at, extent.length);
      at = storeBig(at, std::uint64_t{extent.flags});
    } else {
      at = chunk(at, terms, header, flags, kBlockStatusReply, 12);
      at = storeBig(at, extent.context);
      at = storeBig(at, static_cast<std::uint32_t>(std::min<std::uint64_t>(extent.length, 0xfffff000)));
      at = storeBig(at, extent.flags);
    }
  }
  return static_cast<std::size_t>(at - out);
}

}  // namespace metadisk::nbd
