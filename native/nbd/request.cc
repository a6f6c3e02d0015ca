#include "nbd/request.h"

#include <cerrno>

namespace metadisk::nbd {

bool parseHeader(std::span<const std::byte> bytes, const Terms& terms, Header& out) noexcept {
  const std::byte* const at = bytes.data();
  if (loadBig<std::uint32_t>(at) != (terms.extended ? kExtendedRequestMagic : kRequestMagic)) return false;
  out.flags = loadBig<std::uint16_t>(at + 4);
  out.command = loadBig<std::uint16_t>(at + 6);
  out.cookie = loadBig<std::uint64_t>(at + 8);
  out.offset = loadBig<std::uint64_t>(at + 16);
  out.length = terms.extended ? loadBig<std::uint64_t>(at + 24) : loadBig<std::uint32_t>(at + 24);
  return true;
}

std::uint64_t payloadBytes(const Header& header, const Terms& terms) noexcept {
  if (terms.extended) return (header.flags & kPayloadLength) != 0 ? header.length : 0;
  return header.command == kWrite ? header.length : 0;
}

namespace {

// Flags a client may set with each command; anything else is EINVAL.
int allowedFlags(const Header& header, const Terms& terms) noexcept {
  switch (header.command) {
    case kRead: return kFua | (terms.structured || terms.extended ? kDontFragment : 0);
    case kWrite: return kFua | (terms.extended ? kPayloadLength : 0);
    case kWriteZeroes: return kFua | kNoHole | kFastZero;
    case kBlockStatus: return kFua | kReqOne;
    default: return kFua;
  }
}

}  // namespace

WireError validate(const Header& header, const Terms& terms, std::uint64_t size) noexcept {
  if (header.command > kBlockStatus || header.command == kDisconnect) return kEinval;
  if ((header.flags & ~allowedFlags(header, terms)) != 0) return kEinval;
  if (header.command == kWrite && terms.extended && (header.flags & kPayloadLength) == 0) return kEinval;
  const bool changes = header.command == kWrite || header.command == kTrim || header.command == kWriteZeroes;
  if (changes && terms.readOnly) return kEperm;
  if (header.command == kBlockStatus && terms.contexts.empty()) return kEinval;
  if (header.command == kFlush) return header.offset == 0 && header.length == 0 ? kOk : kEinval;
  if (header.length == 0) return kEinval;
  if (header.offset > size || header.length > size - header.offset) {
    return header.command == kWrite || header.command == kWriteZeroes ? kEnospc : kEinval;
  }
  if ((header.command == kRead || header.command == kWrite) && header.length > terms.maxRequest) return kEinval;
  if (((header.offset | header.length) & (terms.minBlock - 1)) != 0) return kEinval;
  return kOk;
}

WireError wireError(int error) noexcept {
  switch (error) {
    case 0: return kOk;
    case EPERM:
    case EROFS:
    case EACCES: return kEperm;
    case ENOMEM: return kEnomem;
    case EINVAL: return kEinval;
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return kEnospc;
    case EOVERFLOW: return kEoverflow;
    case ENOTSUP: return kEnotsup;
    case ESHUTDOWN: return kEshutdown;
    default: return kEio;
  }
}

}  // namespace metadisk::nbd
