// libFuzzer target of the plan decoder: any bytes are refused or give a plan that maps inside itself.
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Inative native/fuzz/decode_fuzz.cc
//     native/plan/decode.cc native/md/stripe.cc -o build/decode_fuzz
// The checksum is made right first, or no input would get past it; scripts/sanitize fuzz runs this.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "md/stripe.h"
#include "plan/constants.h"
#include "plan/plan.h"

using namespace metadisk;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  if (size >= layout::kHeaderBytes) {
    const auto total = static_cast<std::uint32_t>(size);
    std::memcpy(bytes.data() + layout::kOffsetTotal, &total, 4);
    std::memset(bytes.data() + layout::kOffsetCrc, 0, 4);
    const std::uint32_t crc = crc32c(bytes);
    std::memcpy(bytes.data() + layout::kOffsetCrc, &crc, 4);
  }
  const DecodedPlan decoded = decodePlan(bytes);
  require((decoded.plan == nullptr) == !decoded.reason.empty());
  if (decoded.plan == nullptr) return 0;
  for (const Node& node : decoded.plan->nodes) {
    if (std::holds_alternative<MirrorNode>(node) || std::holds_alternative<Raid5Node>(node)) continue;
    const std::uint64_t end = nodeSize(node);
    for (const std::uint64_t at : {std::uint64_t{0}, end / 2, end - 1}) {
      Fragment fragment;
      std::uint64_t covered = 0;
      require(mapNode(node, at, 1, {&fragment, 1}, covered) == 1);
      require(covered == 1);
      require(fragment.file == kNoFile || fragment.file < decoded.plan->components.size());
    }
  }
  return 0;
}
