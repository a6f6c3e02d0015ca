// libFuzzer target of the transmission phase: any bytes, cut anywhere, end in answers or in a closed connection.
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Inative native/fuzz/request_fuzz.cc
//     native/nbd/*.cc native/core/*.cc -lisal -o build/request_fuzz
// The first bytes choose what the handshake agreed on; scripts/sanitize fuzz runs this. The property test in
// test/property/native does the same with streams whose answers are known.
#include "fuzz/connection_rig.h"

using namespace metadisk;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 4) return 0;
  nbd::Terms terms;
  terms.structured = (data[0] & 1U) != 0;
  terms.extended = (data[0] & 3U) == 3;
  terms.readOnly = (data[0] & 4U) != 0;
  terms.minBlock = (data[0] & 8U) != 0 ? 512 : 1;
  terms.maxRequest = 65536;
  if (terms.structured && (data[0] & 16U) != 0) terms.contexts.push_back({1, nbd::ContextKind::allocation});
  fuzz::Random random(data[1] | data[2] << 8U);
  nbd::Connection::Options options;
  options.queueDepth = 1U + (data[3] & 7U);
  options.maxBufferBytes = 4096U << (data[3] >> 5U);
  BufferPool pool(1U << 20U);
  {
    fuzz::Line line(random, pool, terms, 256 * 1024, options);
    std::span<const std::byte> rest(reinterpret_cast<const std::byte*>(data) + 4, size - 4);
    for (int idle = 0; idle < 4;) {
      const std::size_t sent = line.send(rest.first(fuzz::below(random, rest.size() + 1)));
      rest = rest.subspan(sent);
      line.turn(fuzz::below(random, 2) == 0);
      line.listen(65536);
      line.answers.clear();
      idle = rest.empty() || line.ended() || sent == 0 ? idle + 1 : 0;
    }
    line.hangUp(true);
    while (!line.ended()) {
      line.turn(true);
      if (!line.ended()) line.connection().hangup();
    }
  }
  fuzz::require(pool.lent() == 0, "every buffer comes back");
  return 0;
}
