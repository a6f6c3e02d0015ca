// Reply headers, written into the slot of their request; pure.
//
// Payload of a read is not copied: the header says how long it is and the sender puts it behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "md/request.h"
#include "nbd/request.h"

namespace metadisk::nbd {

// The longest answer without data: one extended block status chunk, and the head of another.
inline constexpr std::size_t kReplyHeaderMax = kExtendedReplyBytes + 24 + kExtendedReplyBytes + 8;

// Of base:allocation, in one answer; and the memory they need before and after writeAllocation().
inline constexpr std::uint32_t kExtentsMax = 256;
inline constexpr std::size_t kExtentRoom = kExtentsMax * sizeof(Extent);
static_assert(sizeof(Extent) >= 16, "an extent on the wire fits into its own memory");

// Each returns the bytes written.
// `data`: bytes of the read that follow; 0 for every other command.
std::size_t writeSuccess(std::byte* out, const Terms& terms, const Header& header, std::uint64_t data) noexcept;
std::size_t writeError(std::byte* out, const Terms& terms, const Header& header, WireError error) noexcept;
// Block status is a chunk for each context, one of them the last.
// metadisk:state, which is one extent.
std::size_t writeState(std::byte* out, const Terms& terms, const Header& header, std::uint32_t context,
                       std::uint32_t flags, bool last) noexcept;
// base:allocation, always last: the head of its chunk. `room` begins with `count` Extents; their wire form takes their
// place, `data` bytes of it, to be sent after the head.
std::size_t writeAllocation(std::byte* out, const Terms& terms, const Header& header, std::uint32_t context,
                            std::byte* room, std::uint32_t count, std::uint64_t& data) noexcept;

}  // namespace metadisk::nbd
