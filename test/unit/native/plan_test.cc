// The decoder against the fixtures that the TypeScript decoder is tested with, and against mutations.
#include "plan/plan.h"

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "md/stripe.h"
#include "plan/constants.h"

using namespace metadisk;

namespace {

#ifndef METADISK_FIXTURES
#define METADISK_FIXTURES "test/fixtures"
#endif

struct Fixture {
  std::string name;
  std::vector<std::byte> bytes;
  std::string refused;
  std::string plan;
};

std::vector<Fixture> fixtures() {
  std::vector<Fixture> all;
  for (const auto& entry : std::filesystem::directory_iterator(METADISK_FIXTURES "/plan")) {
    std::ifstream in(entry.path());
    std::string line;
    Fixture f;
    f.name = entry.path().filename();
    std::getline(in, line);
    REQUIRE(line.starts_with("bytes "));
    for (std::size_t i = 6; i + 1 < line.size(); i += 2) {
      f.bytes.push_back(static_cast<std::byte>(std::stoul(line.substr(i, 2), nullptr, 16)));
    }
    std::getline(in, line);
    if (line.starts_with("refused ")) {
      f.refused = line.substr(8);
    } else {
      std::stringstream rest;
      rest << in.rdbuf();
      f.plan = rest.str();
    }
    all.push_back(f);
  }
  return all;
}

// The text of describePlan in src/plan/verify.ts, from what the engine made of the bytes. Columns name
// their component nodes again by file and start.
std::string describe(const Plan& plan) {
  constexpr std::uint64_t block = 512;
  std::stringstream out;
  out << "generation " << plan.generation << (plan.labelled ? " labelled" : "") << (plan.readOnly ? " readonly" : "")
      << "\n";
  const auto nodeOf = [&](const Column& column) {
    for (std::size_t i = 0; i < plan.nodes.size(); i++) {
      const auto* part = std::get_if<ComponentNode>(&plan.nodes[i]);
      if (part != nullptr && part->file == column.file && part->start == column.start) return i;
    }
    return plan.nodes.size();
  };
  for (std::size_t i = 0; i < plan.nodes.size(); i++) {
    const std::uint64_t blocks = nodeSize(plan.nodes[i]) / block;
    if (const auto* part = std::get_if<ComponentNode>(&plan.nodes[i])) {
      out << "node " << i << " component " << part->component << " start " << part->start / block << " blocks "
          << blocks << (part->service.readable ? " readable" : "") << (part->service.writable ? " writable" : "");
      if (part->service.lastErred != 0) out << " lastErred " << part->service.lastErred;
      out << "\n";
    } else if (const auto* stripe = std::get_if<StripeNode>(&plan.nodes[i])) {
      out << "node " << i << " stripe blocks " << blocks << "\n";
      for (const Row& row : stripe->rows) {
        out << "  row interlace " << row.interlace / block << " blocks " << (row.end - row.base) / block << " children";
        for (const Column& column : row.columns) out << " " << nodeOf(column);
        out << "\n";
      }
    } else if (const auto* raid = std::get_if<Raid5Node>(&plan.nodes[i])) {
      out << "node " << i << " raid5 blocks " << blocks << " epoch " << raid->epoch << (raid->replay ? " replay" : "")
          << "\n  interlace " << raid->segment / block << " lines " << raid->lines << " originals " << raid->originals
          << " serving " << raid->serving;
      if (raid->copied != Raid5Node::kNone) out << " copied " << raid->copied;
      out << "\n  prewrite " << raid->prewrite / block << " unit " << raid->unit << " columns";
      for (std::size_t c = 0, k = 0; k < raid->columns.size(); c++) {
        // Components come in the order of the columns here, and one that is not written has no file.
        const auto* below = std::get_if<ComponentNode>(&plan.nodes[c]);
        REQUIRE(below != nullptr);
        const Raid5Column& column = raid->columns[k++];
        CHECK(column.file == below->file);
        CHECK(column.prewrite == below->start);
        CHECK(column.start == below->start + raid->prewrite);
        out << " " << c;
      }
      out << "\n";
    } else if (const auto* mirror = std::get_if<MirrorNode>(&plan.nodes[i])) {
      constexpr const char* reads[] = {"roundrobin", "geometric", "first"};
      out << "node " << i << " mirror blocks " << blocks << " " << reads[static_cast<int>(mirror->read)]
          << (mirror->write == WritePolicy::serial ? " serial" : " parallel") << " region " << mirror->region / block
          << "\n";
      for (const MirrorSide& side : mirror->sides) {
        out << "  side " << side.child << " slot " << side.slot << (side.readable ? " readable" : "")
            << (side.writable ? " writable" : "") << (side.stale ? " stale" : "") << "\n";
      }
    }
  }
  return out.str();
}

void fixCrc(std::vector<std::byte>& bytes) {
  if (bytes.size() < layout::kHeaderBytes) return;
  std::memset(bytes.data() + layout::kOffsetCrc, 0, 4);
  const std::uint32_t crc = crc32c(bytes);
  std::memcpy(bytes.data() + layout::kOffsetCrc, &crc, 4);
}

// What the hot path trusts, checked the slow way on a plan that was accepted.
void checkTrusted(const Plan& plan) {
  for (const Node& node : plan.nodes) {
    if (const auto* mirror = std::get_if<MirrorNode>(&node)) {
      CHECK(mirror->sides.size() <= 4);
      for (const MirrorSide& side : mirror->sides) CHECK(nodeSize(plan.nodes[side.child]) >= mirror->size);
      continue;
    }
    if (const auto* raid = std::get_if<Raid5Node>(&node)) {
      CHECK(raid->columns.size() <= layout::kMaxRaidColumns);
      CHECK(raid->size <= raid->segment * raid->lines * (raid->columns.size() - 1));
      for (const Raid5Column& column : raid->columns) {
        CHECK((column.file == kNoFile || column.file < plan.components.size()));
      }
      continue;
    }
    const std::uint64_t size = nodeSize(node);
    for (const std::uint64_t at : {std::uint64_t{0}, size / 3, size / 2, size - 1}) {
      Fragment f;
      std::uint64_t covered = 0;
      REQUIRE(mapNode(node, at, 1, {&f, 1}, covered) == 1);
      REQUIRE((f.file == kNoFile || f.file < plan.components.size()));
      bool inside = false;
      for (const Node& other : plan.nodes) {
        const auto* part = std::get_if<ComponentNode>(&other);
        inside = inside || (part != nullptr && part->file == f.file && f.offset >= part->start &&
                            f.offset < part->start + part->size);
      }
      CHECK(inside);
    }
  }
}

}  // namespace

TEST_CASE("plan: fixtures decode to their description or are refused with their reason") {
  const auto all = fixtures();
  REQUIRE(all.size() >= 30);
  for (const Fixture& f : all) {
    INFO(f.name);
    const DecodedPlan decoded = decodePlan(f.bytes);
    CHECK(decoded.reason == f.refused);
    CHECK((decoded.plan != nullptr) == f.refused.empty());
    if (decoded.plan != nullptr) CHECK(describe(*decoded.plan) == f.plan);
  }
}

TEST_CASE("plan: every truncation and every changed byte is refused") {
  for (const Fixture& f : fixtures()) {
    if (!f.refused.empty()) continue;
    for (std::size_t n = 0; n < f.bytes.size(); n++) {
      CHECK(decodePlan(std::span(f.bytes).first(n)).plan == nullptr);
      auto changed = f.bytes;
      changed[n] ^= std::byte{0x40};
      CHECK(decodePlan(changed).plan == nullptr);
    }
  }
}

TEST_CASE("plan: mutations with a right checksum are refused or harmless") {
  std::mt19937_64 random(20);
  const auto all = fixtures();
  constexpr std::uint64_t interesting[] = {0,          1,          2,          3,          16,         511,
                                           512,        0xffff,     0x7fffffff, 0xffffffff, 1ULL << 52, (1ULL << 53) - 1,
                                           1ULL << 53, 1ULL << 63, UINT64_MAX};
  unsigned accepted = 0;
  for (int round = 0; round < 40000; round++) {
    auto bytes = all[random() % all.size()].bytes;
    for (std::uint64_t n = 1 + random() % 3; n > 0 && !bytes.empty(); n--) {
      const std::size_t at = random() % bytes.size();
      if (random() % 2 == 0) {
        bytes[at] = static_cast<std::byte>(random());
      } else {
        const std::uint64_t value = interesting[random() % std::size(interesting)];
        const std::size_t aligned = at / 4 * 4;
        std::memcpy(bytes.data() + aligned, &value,
                    std::min<std::size_t>(random() % 2 != 0 ? 4 : 8, bytes.size() - aligned));
      }
    }
    if (bytes.size() >= layout::kHeaderBytes && random() % 2 == 0) {
      const auto total = static_cast<std::uint32_t>(bytes.size());
      std::memcpy(bytes.data(), "MDPL", 4);
      std::memcpy(bytes.data() + layout::kOffsetTotal, &total, 4);
    }
    fixCrc(bytes);
    const DecodedPlan decoded = decodePlan(bytes);
    CHECK((decoded.plan == nullptr) == !decoded.reason.empty());
    if (decoded.plan == nullptr) continue;
    accepted++;
    checkTrusted(*decoded.plan);
  }
  CHECK(accepted > 100);  // otherwise the loop tests nothing but the header
}

TEST_CASE("plan: sizes of the components are compared with the nodes") {
  for (const Fixture& f : fixtures()) {
    if (f.name != "concat.txt") continue;
    const DecodedPlan decoded = decodePlan(f.bytes);
    REQUIRE(decoded.plan != nullptr);
    CHECK(decoded.plan->components == std::vector<std::uint32_t>{3, 9});
    CHECK(checkSizes(*decoded.plan, std::vector<std::uint64_t>{100 * 512, 2098 * 512}).empty());
    CHECK(checkSizes(*decoded.plan, std::vector<std::uint64_t>{100 * 512, 2098 * 512 - 1}) ==
          "component 9: smaller than the plan says");
    CHECK(!checkSizes(*decoded.plan, std::vector<std::uint64_t>{100 * 512}).empty());
  }
}

TEST_CASE("plan: crc32c has its known value") {
  const std::string digits = "123456789";
  CHECK(crc32c(std::as_bytes(std::span(digits))) == 0xe3069283U);
}
