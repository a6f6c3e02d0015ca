// Request headers, their validation, errors and reply headers, byte by byte.
#include "engine_rig.h"
#include "nbd/reply.h"
#include "nbd/request.h"

using namespace metadisk;
using namespace metadisk::nbd;
using metadisk::test::operator+;

namespace {

constexpr std::uint64_t kSize = 1U << 20U;

Header header(std::uint16_t command, std::uint64_t offset, std::uint64_t length, std::uint16_t flags = 0) {
  return {flags, command, 7, offset, length};
}

}  // namespace

TEST_CASE("a request header is read field by field, and a wrong magic is refused") {
  Terms terms;
  Header out;
  const test::Bytes bytes = test::request(kWrite, 0x1122334455667788, 0x99aabbcc, 0x0102030405060708, kFua);
  REQUIRE(parseHeader(bytes, terms, out));
  CHECK(out.command == kWrite);
  CHECK(out.flags == kFua);
  CHECK(out.cookie == 0x0102030405060708);
  CHECK(out.offset == 0x1122334455667788);
  CHECK(out.length == 0x99aabbcc);
  terms.extended = true;
  CHECK_FALSE(parseHeader(bytes + test::Bytes(4), terms, out));
  const test::Bytes longer = test::request(kTrim, 1, 0x1ffffffffULL, 9, 0, true);
  REQUIRE(parseHeader(longer, terms, out));
  CHECK(out.length == 0x1ffffffffULL);
  terms.extended = false;
  CHECK_FALSE(parseHeader(longer, terms, out));
}

TEST_CASE("validation answers what the protocol asks for") {
  Terms terms;
  terms.maxRequest = 65536;
  CHECK(validate(header(kRead, 0, 4096), terms, kSize) == kOk);
  CHECK(validate(header(kRead, kSize - 1, 1), terms, kSize) == kOk);
  CHECK(validate(header(kRead, kSize - 1, 2), terms, kSize) == kEinval);
  CHECK(validate(header(kRead, UINT64_MAX, 2), terms, kSize) == kEinval);
  CHECK(validate(header(kWrite, kSize, 1), terms, kSize) == kEnospc);
  CHECK(validate(header(kWriteZeroes, kSize - 1, 2), terms, kSize) == kEnospc);
  CHECK(validate(header(kTrim, kSize - 1, 2), terms, kSize) == kEinval);
  CHECK(validate(header(kRead, 0, 65537), terms, kSize) == kEinval);
  CHECK(validate(header(kTrim, 0, kSize), terms, kSize) == kOk);  // no payload: not bound by it
  CHECK(validate(header(kRead, 0, 0), terms, kSize) == kEinval);
  CHECK(validate(header(kFlush, 0, 0), terms, kSize) == kOk);
  CHECK(validate(header(kFlush, 512, 512), terms, kSize) == kEinval);
  CHECK(validate(header(8, 0, 1), terms, kSize) == kEinval);
  CHECK(validate(header(kRead, 0, 1, 0x8000), terms, kSize) == kEinval);
  CHECK(validate(header(kRead, 0, 1, kDontFragment), terms, kSize) == kEinval);
  CHECK(validate(header(kWrite, 0, 1, kNoHole), terms, kSize) == kEinval);
  CHECK(validate(header(kWriteZeroes, 0, 1, kNoHole | kFastZero | kFua), terms, kSize) == kOk);
  CHECK(validate(header(kBlockStatus, 0, 1), terms, kSize) == kEinval);
  terms.structured = true;
  terms.contexts.push_back({3, ContextKind::allocation});
  CHECK(validate(header(kBlockStatus, 0, 1, kReqOne), terms, kSize) == kOk);
  CHECK(validate(header(kRead, 0, 1, kDontFragment), terms, kSize) == kOk);
  terms.minBlock = 512;
  CHECK(validate(header(kRead, 512, 512), terms, kSize) == kOk);
  CHECK(validate(header(kRead, 511, 512), terms, kSize) == kEinval);
  CHECK(validate(header(kWrite, 512, 513), terms, kSize) == kEinval);
  terms.readOnly = true;
  CHECK(validate(header(kWrite, 0, 512), terms, kSize) == kEperm);
  CHECK(validate(header(kTrim, 0, 512), terms, kSize) == kEperm);
  CHECK(validate(header(kRead, 0, 512), terms, kSize) == kOk);
}

TEST_CASE("extended headers: only the payload flag announces a payload") {
  Terms terms;
  CHECK(payloadBytes(header(kWrite, 0, 10), terms) == 10);
  CHECK(payloadBytes(header(kRead, 0, 10), terms) == 0);
  terms.extended = true;
  CHECK(payloadBytes(header(kWrite, 0, 10), terms) == 0);
  CHECK(payloadBytes(header(kWrite, 0, 10, kPayloadLength), terms) == 10);
  CHECK(payloadBytes(header(kTrim, 0, 10, kPayloadLength), terms) == 10);
  CHECK(validate(header(kWrite, 0, 10), terms, kSize) == kEinval);
  CHECK(validate(header(kTrim, 0, 10, kPayloadLength), terms, kSize) == kEinval);
  CHECK(validate(header(kWrite, 0, 10, kPayloadLength), terms, kSize) == kOk);
}

TEST_CASE("every errno has a wire error, and no failure becomes success") {
  CHECK(wireError(0) == kOk);
  CHECK(wireError(EROFS) == kEperm);
  CHECK(wireError(EDQUOT) == kEnospc);
  CHECK(wireError(ENOTSUP) == kEnotsup);
  CHECK(wireError(ESHUTDOWN) == kEshutdown);
  for (int e = 1; e < 140; ++e) CHECK(wireError(e) != kOk);
}

TEST_CASE("reply headers of the three kinds") {
  std::byte out[kReplyHeaderMax];
  Terms terms;
  CHECK(writeSuccess(out, terms, header(kRead, 5, 9), 9) == 16);
  CHECK(loadBig<std::uint32_t>(out) == 0x67446698);
  CHECK(loadBig<std::uint32_t>(out + 4) == 0);
  CHECK(loadBig<std::uint64_t>(out + 8) == 7);

  terms.structured = true;
  CHECK(writeSuccess(out, terms, header(kRead, 5, 9), 9) == 28);
  CHECK(loadBig<std::uint32_t>(out) == 0x668e33ef);
  CHECK(loadBig<std::uint16_t>(out + 4) == 1);
  CHECK(loadBig<std::uint16_t>(out + 6) == 1);
  CHECK(loadBig<std::uint32_t>(out + 16) == 17);
  CHECK(loadBig<std::uint64_t>(out + 20) == 5);
  CHECK(writeError(out, terms, header(kRead, 5, 9), kEio) == 26);
  CHECK(loadBig<std::uint16_t>(out + 6) == 0x8001);
  CHECK(loadBig<std::uint32_t>(out + 16) == 6);
  CHECK(loadBig<std::uint32_t>(out + 20) == 5);

  CHECK(writeState(out, terms, header(kBlockStatus, 0, 9), 4, 1, false) == 32);
  CHECK(loadBig<std::uint16_t>(out + 4) == 0);
  CHECK(loadBig<std::uint32_t>(out + 20) == 4);
  CHECK(loadBig<std::uint32_t>(out + 24) == 9);
  CHECK(loadBig<std::uint32_t>(out + 28) == 1);
  CHECK(writeState(out, terms, header(kBlockStatus, 0, 9), 4, 1, true) == 32);
  CHECK(loadBig<std::uint16_t>(out + 4) == 1);

  const auto room = [] {
    alignas(Extent) static std::byte bytes[3 * sizeof(Extent)];
    const Extent extents[] = {{0x1000, true}, {5, false}, {0x80000000ULL, true}};
    std::memcpy(bytes, extents, sizeof extents);
    return bytes;
  };
  std::uint64_t data = 0;
  std::byte* wire = room();
  CHECK(writeAllocation(out, terms, header(kBlockStatus, 0, 9), 3, wire, 3, data) == 24);
  CHECK(data == 24);
  CHECK(loadBig<std::uint16_t>(out + 4) == 1);
  CHECK(loadBig<std::uint16_t>(out + 6) == 5);
  CHECK(loadBig<std::uint32_t>(out + 16) == 28);
  CHECK(loadBig<std::uint32_t>(out + 20) == 3);
  CHECK(loadBig<std::uint32_t>(wire) == 0x1000);
  CHECK(loadBig<std::uint32_t>(wire + 4) == 3);
  CHECK(loadBig<std::uint32_t>(wire + 8) == 5);
  CHECK(loadBig<std::uint32_t>(wire + 12) == 0);
  CHECK(loadBig<std::uint32_t>(wire + 16) == 0x80000000U);

  terms.extended = true;
  CHECK(writeSuccess(out, terms, header(kWrite, 5, 9), 0) == 32);
  CHECK(loadBig<std::uint32_t>(out) == 0x6e8a278c);
  CHECK(loadBig<std::uint64_t>(out + 16) == 5);
  CHECK(writeState(out, terms, header(kBlockStatus, 0, 0x200000000ULL), 4, 1, false) == 56);
  CHECK(loadBig<std::uint16_t>(out + 6) == 6);
  CHECK(loadBig<std::uint64_t>(out + 40) == 0x200000000ULL);
  wire = room();
  CHECK(writeAllocation(out, terms, header(kBlockStatus, 0, 9), 3, wire, 3, data) == 40);
  CHECK(data == 48);
  CHECK(loadBig<std::uint64_t>(out + 24) == 56);
  CHECK(loadBig<std::uint32_t>(out + 36) == 3);
  CHECK(loadBig<std::uint64_t>(wire + 8) == 3);
  CHECK(loadBig<std::uint64_t>(wire + 16) == 5);
  CHECK(loadBig<std::uint64_t>(wire + 32) == 0x80000000ULL);
}
