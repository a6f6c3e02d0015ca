// libFuzzer target of the RAID5 journal: any bytes of a ring are no header, or one that stays inside its bounds.
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Inative native/fuzz/journal_fuzz.cc
//     native/md/raid5_journal.cc -lisal -o build/journal_fuzz
// The checksum is made right first, or no input would get past it; scripts/sanitize fuzz runs this.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "md/raid5_journal.h"

using namespace metadisk::journal;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  Place place{.columns = 5, .ringBlocks = 200, .dataBlocks = 1000};
  std::uint32_t position = 0;
  if (size >= kHeaderBytes) {
    std::uint32_t entries = 0;
    std::memcpy(bytes.data(), &kMagic, 4);
    std::memcpy(&place.column, bytes.data() + 10, 2);
    std::memcpy(&place.unit, bytes.data() + 16, 8);
    std::memcpy(&place.epoch, bytes.data() + 24, 8);
    std::memcpy(&position, bytes.data() + 56, 4);
    std::memcpy(&entries, bytes.data() + 68, 4);
    const std::size_t head = std::min<std::size_t>(headerBlocks(entries) * std::size_t{kBlock}, size);
    std::memset(bytes.data() + 4, 0, 4);
    const std::uint32_t sum = crc(std::span(bytes).first(head));
    std::memcpy(bytes.data() + 4, &sum, 4);
  }
  Header header;
  if (read(bytes, place, position, header) != Reading::found) return 0;
  if (header.position + header.span > place.ringBlocks || header.blocks > header.span) std::abort();
  for (std::uint32_t i = 0; i < header.entries; i++) {
    const Entry entry = entryAt(bytes, i);
    if (entry.block + entry.blocks > place.dataBlocks) std::abort();
  }
  if (header.blocks * std::size_t{kBlock} <= size) whole(bytes, header);
  if (liveGroups({&header, 1}).empty()) std::abort();
  return 0;
}
