// Bytes -> Plan. The checks, their order and their reasons are those of src/plan/verify.ts.
//
// Invariants: nothing is read before the span is known to hold it; arithmetic cannot wrap, because
// every block count is at most 2^53 - 1 before it is added or multiplied.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <utility>

#include "plan/constants.h"
#include "plan/plan.h"

namespace metadisk {

namespace {

using namespace layout;

static_assert(std::endian::native == std::endian::little, "plans are read in place");
constexpr std::uint64_t kBlockBytes = 512;
static_assert(kMaxBlocks <= UINT64_MAX / kBlockBytes);

constexpr auto kCrcTable = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; i++) {
    std::uint32_t c = i;
    for (int bit = 0; bit < 8; bit++) c = (c & 1) != 0 ? (c >> 1) ^ 0x82f63b78U : c >> 1;
    table[i] = c;
  }
  return table;
}();

template <typename T>
T load(std::span<const std::byte> bytes, std::uint64_t at) noexcept {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

struct Ref {
  std::uint32_t node;
  std::uint32_t flags;
};

class Decoder {
 public:
  explicit Decoder(std::span<const std::byte> bytes) : bytes_(bytes) {}

  DecodedPlan run() {
    auto plan = std::make_shared<Plan>();
    if (!header(*plan)) return refused();
    plan->nodes.reserve(nodes_);
    sizes_.reserve(nodes_);
    used_.assign(nodes_, false);
    for (std::uint32_t i = 0; i < nodes_; i++) {
      if (!node(*plan, i)) return refused();
    }
    if (nextRow_ != rows_ || nextRef_ != refs_) return refuse("unused table entries"), refused();
    if (usedCount_ != nodes_ - 1) return refuse("node without a parent"), refused();
    if (!service(*plan) || !number(*plan)) return refused();
    return {std::move(plan), {}};
  }

 private:
  DecodedPlan refused() { return {nullptr, std::move(reason_)}; }
  bool refuse(std::string reason) {
    reason_ = std::move(reason);
    return false;
  }
  bool refuse(const char* what, std::uint64_t which, const char* why) {
    return refuse(std::string(what) + " " + std::to_string(which) + ": " + why);
  }

  bool header(Plan& plan) {
    if (bytes_.size() < kHeaderBytes) return refuse("too short");
    if (load<std::uint32_t>(bytes_, 0) != kMagic) return refuse("not a plan");
    if (load<std::uint16_t>(bytes_, kOffsetVersion) != kVersion) return refuse("unknown version");
    if (load<std::uint16_t>(bytes_, kOffsetHeaderBytes) != kHeaderBytes ||
        load<std::uint32_t>(bytes_, kOffsetTotal) != bytes_.size()) {
      return refuse("length does not match");
    }
    constexpr std::array<std::byte, 4> zero{};
    std::uint32_t crc = crc32c(bytes_.first(kOffsetCrc));
    crc = crc32c(zero, crc);
    crc = crc32c(bytes_.subspan(kOffsetCrc + 4), crc);
    if (load<std::uint32_t>(bytes_, kOffsetCrc) != crc) return refuse("checksum does not match");
    plan.generation = load<std::uint64_t>(bytes_, kOffsetGeneration);
    const auto flags = load<std::uint32_t>(bytes_, kOffsetFlags);
    if ((flags & ~kFlagsKnown) != 0 || load<std::uint64_t>(bytes_, kOffsetZero) != 0) return refuse("unknown flags");
    plan.labelled = (flags & kFlagLabelled) != 0;
    plan.readOnly = (flags & kFlagReadOnly) != 0;
    if (plan.generation > kMaxBlocks) return refuse("generation out of range");
    nodes_ = load<std::uint32_t>(bytes_, kOffsetNodes);
    rows_ = load<std::uint32_t>(bytes_, kOffsetRows);
    refs_ = load<std::uint32_t>(bytes_, kOffsetRefs);
    if (nodes_ < 1 || nodes_ > kMaxNodes || rows_ > kMaxRows || refs_ > kMaxRefs) return refuse("too many entries");
    rowsAt_ = kHeaderBytes + nodes_ * kNodeBytes;
    refsAt_ = rowsAt_ + rows_ * kRowBytes;
    if (refsAt_ + refs_ * kRefBytes != bytes_.size()) return refuse("tables do not fit");
    return true;
  }

  bool node(Plan& plan, std::uint32_t i) {
    const std::uint64_t at = kHeaderBytes + i * kNodeBytes;
    const auto kind = load<std::uint8_t>(bytes_, at + kNodeKind);
    const auto read = load<std::uint8_t>(bytes_, at + kNodeRead);
    const auto write = load<std::uint8_t>(bytes_, at + kNodeWrite);
    const auto component = load<std::uint32_t>(bytes_, at + kNodeComponent);
    const auto start = load<std::uint64_t>(bytes_, at + kNodeStart);
    const auto blocks = load<std::uint64_t>(bytes_, at + kNodeBlocks);
    const auto first = load<std::uint32_t>(bytes_, at + kNodeFirst);
    const auto count = load<std::uint32_t>(bytes_, at + kNodeCount);
    const auto flags = load<std::uint8_t>(bytes_, at + kNodeFlags);
    if (blocks < 1 || blocks > kMaxBlocks) return refuse("node", i, "size out of range");
    sizes_.push_back(blocks);
    if (kind == kKindComponent) {
      if (read != 0 || write != 0 || count != 0) return refuse("node", i, "unused field is set");
      if (start > kMaxBlocks - blocks) return refuse("node", i, "end out of range");
      if ((flags & ~kComponentFlags) != 0) return refuse("node", i, "unknown flags");
      const Service state{(flags & kComponentReadable) != 0, (flags & kComponentWritable) != 0, first};
      if ((state.readable && !state.writable) || (!state.readable && first != 0)) {
        return refuse("node", i, "flags contradict each other");
      }
      plan.nodes.emplace_back(ComponentNode{component, kNoFile, start * kBlockBytes, blocks * kBlockBytes, state});
      return true;
    }
    if (kind == kKindStripe) {
      if (read != 0 || write != 0 || flags != 0 || component != 0 || start != 0)
        return refuse("node", i, "unused field is set");
      return stripe(plan, i, first, count, blocks);
    }
    if (kind == kKindMirror) {
      if (flags != 0 || component != 0) return refuse("node", i, "unused field is set");
      if (read > kReadFirst || write > kWriteSerial) return refuse("node", i, "unknown policy");
      const bool region = start >= kMinRegionBlocks && start <= kMaxBlocks && std::has_single_bit(start);
      if (start != 0 && (!region || (blocks - 1) / start >= kMaxRegions)) {
        return refuse("node", i, "region size out of range");
      }
      MirrorNode mirror{blocks * kBlockBytes,
                        static_cast<ReadPolicy>(read),
                        static_cast<WritePolicy>(write),
                        {},
                        start * kBlockBytes};
      return sides(plan, i, first, count, blocks, std::move(mirror));
    }
    if (kind == kKindRaid5) {
      if (read != 0 || write != 0) return refuse("node", i, "unused field is set");
      if ((flags & ~kRaidFlags) != 0) return refuse("node", i, "unknown flags");
      if (start < 1 || start > kMaxBlocks) return refuse("node", i, "epoch out of range");
      Raid5Node raid;
      raid.size = blocks * kBlockBytes;
      raid.originals = component;
      raid.epoch = start;
      raid.replay = (flags & kRaidReplay) != 0;
      return raid5(plan, i, first, count, blocks, std::move(raid));
    }
    return refuse("node", i, "unknown kind");
  }

  bool stripe(Plan& plan, std::uint32_t i, std::uint32_t first, std::uint32_t count, std::uint64_t blocks) {
    if (count < 1 || first != nextRow_ || count > rows_ - first) return refuse("node", i, "rows out of order");
    StripeNode stripe;
    stripe.size = blocks * kBlockBytes;
    stripe.rows.reserve(count);
    std::uint64_t sum = 0;
    for (std::uint32_t r = first; r < first + count; r++) {
      const std::uint64_t at = rowsAt_ + r * kRowBytes;
      const auto interlace = load<std::uint64_t>(bytes_, at + kRowInterlace);
      const auto rowBlocks = load<std::uint64_t>(bytes_, at + kRowBlocks);
      const auto firstRef = load<std::uint32_t>(bytes_, at + kRowFirst);
      const auto columns = load<std::uint32_t>(bytes_, at + kRowCount);
      if (interlace < kMinInterlace || interlace > kMaxInterlace) return refuse("row", r, "interlace out of range");
      if (rowBlocks < 1 || rowBlocks > kMaxBlocks - sum) return refuse("row", r, "size out of range");
      if (columns < 1) return refuse("row", r, "no columns");
      const std::uint64_t per = rowBlocks / columns;
      if (rowBlocks % columns != 0 || (columns > 1 && per % interlace != 0)) {
        return refuse("row", r, "size is not whole interlaces in every column");
      }
      Row row;
      row.base = sum * kBlockBytes;
      row.end = (sum + rowBlocks) * kBlockBytes;
      row.interlace = interlace * kBlockBytes;
      row.shift = std::has_single_bit(row.interlace) ? std::countr_zero(row.interlace) : -1;
      const auto refs = take("row", r, i, firstRef, columns);
      if (!refs) return false;
      row.columns.reserve(columns);
      for (const Ref& ref : *refs) {
        if (ref.flags != 0) return refuse("row", r, "unknown flags");
        const auto* child = std::get_if<ComponentNode>(&plan.nodes[ref.node]);
        if (child == nullptr) return refuse("row", r, "child is not a component");
        if (sizes_[ref.node] < per) return refuse("row", r, "component is too small");
        // `file` holds the node until number() knows the components.
        row.columns.push_back({ref.node, child->start, child->service});
      }
      sum += rowBlocks;
      stripe.rows.push_back(std::move(row));
    }
    nextRow_ += count;
    if (blocks > sum) return refuse("node", i, "larger than its rows");
    plan.nodes.emplace_back(std::move(stripe));
    return true;
  }

  bool raid5(Plan& plan, std::uint32_t i, std::uint32_t first, std::uint32_t count, std::uint64_t blocks,
             Raid5Node raid) {
    if (count != 2 || first != nextRow_ || count > rows_ - first) return refuse("node", i, "rows out of order");
    const std::uint64_t at = rowsAt_ + first * kRowBytes;
    const auto interlace = load<std::uint64_t>(bytes_, at + kRowInterlace);
    const auto lines = load<std::uint64_t>(bytes_, at + kRowBlocks);
    const auto columns = load<std::uint32_t>(bytes_, at + kRowCount);
    const std::uint64_t second = at + kRowBytes;
    const auto prewrite = load<std::uint64_t>(bytes_, second + kRowInterlace);
    raid.unit = load<std::uint64_t>(bytes_, second + kRowBlocks);
    raid.serving = load<std::uint32_t>(bytes_, second + kRowFirst);
    const auto copied = load<std::uint32_t>(bytes_, second + kRowCount);
    if (interlace < kMinRaidInterlace || interlace > kMaxInterlace) {
      return refuse("row", first, "interlace out of range");
    }
    if (columns < raid.originals || columns > kMaxRaidColumns || raid.originals < kMinRaidColumns) {
      return refuse("row", first, "number of columns out of range");
    }
    if (lines < 1 || lines > kMaxBlocks / interlace / (columns - 1)) return refuse("row", first, "size out of range");
    const std::uint64_t least = kPrewriteSpare + kPrewriteGroups * (1 + std::min<std::uint64_t>(8, interlace));
    if (prewrite < least || prewrite > kMaxPrewrite) {
      return refuse("row", first + 1, "prewrite area out of range");
    }
    if (raid.unit < 1 || raid.unit > kMaxBlocks) return refuse("row", first + 1, "unit out of range");
    if (raid.serving < raid.originals || raid.serving > columns) {
      return refuse("row", first + 1, "number of columns out of range");
    }
    if (copied != 0) {
      if (copied > raid.serving) return refuse("row", first + 1, "copied column out of range");
      if (columns != raid.serving + 1) return refuse("row", first + 1, "copy is not alone");
      raid.copied = copied - 1;
    }
    raid.segment = interlace * kBlockBytes;
    raid.lines = lines;
    raid.prewrite = prewrite * kBlockBytes;
    const auto refs = take("row", first, i, load<std::uint32_t>(bytes_, at + kRowFirst), columns);
    if (!refs) return false;
    for (const Ref& ref : *refs) {
      if (ref.flags != 0) return refuse("row", first, "unknown flags");
      const auto* child = std::get_if<ComponentNode>(&plan.nodes[ref.node]);
      if (child == nullptr) return refuse("row", first, "child is not a component");
      if (sizes_[ref.node] < prewrite || sizes_[ref.node] - prewrite < lines * interlace) {
        return refuse("row", first, "component is too small");
      }
      if (raid.columns.size() >= raid.serving && child->service.readable) {
        return refuse("row", first, "joining column is readable");
      }
      raid.columns.push_back({ref.node, child->start, child->start + raid.prewrite, child->service});
    }
    nextRow_ += 2;
    if (blocks > lines * interlace * (raid.serving - 1)) return refuse("node", i, "larger than its rows");
    plan.nodes.emplace_back(std::move(raid));
    return true;
  }

  bool sides(Plan& plan, std::uint32_t i, std::uint32_t first, std::uint32_t count, std::uint64_t blocks,
             MirrorNode mirror) {
    if (count < 1 || count > kMaxSides) return refuse("node", i, "number of sides out of range");
    const auto refs = take("node", i, i, first, count);
    if (!refs) return false;
    std::uint32_t nextSlot = 0;
    for (const Ref& ref : *refs) {
      if ((ref.flags & ~kRefKnown) != 0) return refuse("node", i, "unknown flags");
      const std::uint32_t slot = ref.flags >> kRefSlotShift;
      if (slot < nextSlot) return refuse("node", i, "slots out of order");
      nextSlot = slot + 1;
      const MirrorSide side{ref.node, (ref.flags & kRefReadable) != 0, (ref.flags & kRefWritable) != 0,
                            (ref.flags & kRefStale) != 0, slot};
      if (!side.writable && (side.readable || side.stale)) {
        return refuse("node", i, "flags contradict each other");
      }
      if (std::holds_alternative<MirrorNode>(plan.nodes[ref.node])) return refuse("node", i, "side is a mirror");
      if (std::holds_alternative<Raid5Node>(plan.nodes[ref.node])) return refuse("node", i, "side is a RAID5 device");
      if (sizes_[ref.node] < blocks) return refuse("node", i, "side is too small");
      mirror.sides.push_back(side);
    }
    plan.nodes.emplace_back(std::move(mirror));
    return true;
  }

  std::optional<std::vector<Ref>> take(const char* what, std::uint64_t which, std::uint32_t node, std::uint32_t first,
                                       std::uint32_t count) {
    if (first != nextRef_ || count > refs_ - first) {
      refuse(what, which, "references out of order");
      return std::nullopt;
    }
    nextRef_ += count;
    std::vector<Ref> refs;
    refs.reserve(count);
    for (std::uint32_t k = 0; k < count; k++) {
      const std::uint64_t at = refsAt_ + (first + k) * kRefBytes;
      const Ref ref{load<std::uint32_t>(bytes_, at + kRefNode), load<std::uint32_t>(bytes_, at + kRefFlags)};
      if (ref.node >= node) {
        refuse(what, which, "child does not come before its parent");
        return std::nullopt;
      }
      if (used_[ref.node]) {
        refuse(what, which, "child has two parents");
        return std::nullopt;
      }
      used_[ref.node] = true;
      usedCount_++;
      refs.push_back(ref);
    }
    return refs;
  }

  // Only what is redundant has another place to read from.
  bool service(const Plan& plan) {
    if (std::holds_alternative<MirrorNode>(plan.root()) || std::holds_alternative<Raid5Node>(plan.root())) return true;
    for (std::uint32_t i = 0; i < plan.nodes.size(); i++) {
      const auto* part = std::get_if<ComponentNode>(&plan.nodes[i]);
      if (part != nullptr && !part->service.okay()) return refuse("node", i, "out of service without redundancy");
    }
    return true;
  }

  // Overlaps, then the dense numbering of files.
  bool number(Plan& plan) {
    std::vector<ComponentNode*> parts;
    for (Node& node : plan.nodes) {
      auto* part = std::get_if<ComponentNode>(&node);
      if (part != nullptr && part->service.writable) parts.push_back(part);
    }
    std::sort(parts.begin(), parts.end(), [](const ComponentNode* a, const ComponentNode* b) {
      return std::pair(a->component, a->start) < std::pair(b->component, b->start);
    });
    const ComponentNode* before = nullptr;
    for (ComponentNode* part : parts) {
      if (before != nullptr && before->component == part->component && before->start + before->size > part->start) {
        return refuse("component", part->component, "ranges overlap");
      }
      if (before == nullptr || before->component != part->component) plan.components.push_back(part->component);
      part->file = static_cast<std::uint32_t>(plan.components.size() - 1);
      before = part;
    }
    for (Node& node : plan.nodes) {
      const auto fileOf = [&](std::uint32_t at) { return std::get<ComponentNode>(plan.nodes[at]).file; };
      if (auto* raid = std::get_if<Raid5Node>(&node)) {
        for (Raid5Column& column : raid->columns) column.file = fileOf(column.file);
      }
      auto* stripe = std::get_if<StripeNode>(&node);
      if (stripe == nullptr) continue;
      for (Row& row : stripe->rows) {
        for (Column& column : row.columns) column.file = fileOf(column.file);
      }
    }
    return true;
  }

  std::span<const std::byte> bytes_;
  std::string reason_;
  std::uint32_t nodes_ = 0;
  std::uint32_t rows_ = 0;
  std::uint32_t refs_ = 0;
  std::uint64_t rowsAt_ = 0;
  std::uint64_t refsAt_ = 0;
  std::uint32_t nextRow_ = 0;
  std::uint32_t nextRef_ = 0;
  std::uint32_t usedCount_ = 0;
  std::vector<bool> used_;
  std::vector<std::uint64_t> sizes_;  // blocks, of the nodes so far
};

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t seed) noexcept {
  std::uint32_t c = ~seed;
  for (const std::byte byte : bytes) {
    c = kCrcTable[(c ^ std::to_integer<std::uint32_t>(byte)) & 0xff] ^ (c >> 8);
  }
  return ~c;
}

std::uint64_t nodeSize(const Node& node) noexcept {
  return std::visit([](const auto& n) { return n.size; }, node);
}

std::uint64_t Plan::size() const noexcept { return nodeSize(root()); }

DecodedPlan decodePlan(std::span<const std::byte> bytes) { return Decoder(bytes).run(); }

std::string checkSizes(const Plan& plan, std::span<const std::uint64_t> sizes) {
  if (sizes.size() != plan.components.size()) return "number of components does not match";
  for (const Node& node : plan.nodes) {
    const auto* part = std::get_if<ComponentNode>(&node);
    if (part != nullptr && part->file != kNoFile && part->start + part->size > sizes[part->file]) {
      return "component " + std::to_string(part->component) + ": smaller than the plan says";
    }
  }
  return {};
}

}  // namespace metadisk
