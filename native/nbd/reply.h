// Reply headers, written into the slot of their request; pure.
//
// Payload of a read is not copied: the header says how long it is and the sender puts it behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "nbd/request.h"

namespace metadisk::nbd {

// The longest answer without data: two extended block status chunks.
inline constexpr std::size_t kReplyHeaderMax = 2 * (kExtendedReplyBytes + 24);

// One extent of a metadata context.
struct Extent {
  std::uint32_t context = 0;
  std::uint64_t length = 0;
  std::uint32_t flags = 0;
};

// Each returns the bytes written.
// `data`: bytes of the read that follow; 0 for every other command.
std::size_t writeSuccess(std::byte* out, const Terms& terms, const Header& header, std::uint64_t data) noexcept;
std::size_t writeError(std::byte* out, const Terms& terms, const Header& header, WireError error) noexcept;
std::size_t writeBlockStatus(std::byte* out, const Terms& terms, const Header& header,
                             std::span<const Extent> extents) noexcept;

}  // namespace metadisk::nbd
