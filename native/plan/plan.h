// A plan as the engine holds it: immutable, decoded once, checked completely, shared by all threads.
//
// Invariants (decodePlan refuses anything else): children come before parents and every node but the
// root (the last one) has exactly one parent; stripes stand on components, mirrors on stripes or
// components; RAID5 is a root on components; component nodes of one component never overlap; all byte values fit in
// 62 bits; outside a mirror or RAID5 every component is in service.
// `components` lists the distinct numbers of the components that are written, ascending;
// ComponentNode::file, Column::file and Raid5Column::file index it, and whoever opens a volume passes its files in that
// order. A component that is not written is not open: its file is kNoFile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace metadisk {

using NodeIndex = std::uint32_t;
inline constexpr std::uint32_t kNoFile = UINT32_MAX;

// What may be done with a component. Okay: both; resyncing: writable only; Maintenance: neither. Last
// Erred is Okay with a number: of two, the greater one erred later.
struct Service {
  bool readable = true;  // implies writable
  bool writable = true;
  std::uint32_t lastErred = 0;  // not 0 implies readable

  bool okay() const noexcept { return readable && lastErred == 0; }
};

struct ComponentNode {
  std::uint32_t component = 0;  // number chosen by the control plane
  std::uint32_t file = 0;       // index into Plan::components
  std::uint64_t start = 0;      // bytes inside the component
  std::uint64_t size = 0;       // bytes
  Service service = {};
};

// One component of a row, with what mapping needs at hand.
struct Column {
  std::uint32_t file = 0;
  std::uint64_t start = 0;  // bytes inside the component
  Service service = {};
};

struct Row {
  std::uint64_t base = 0;       // bytes of the stripe before this row
  std::uint64_t end = 0;        // base + size of the row
  std::uint64_t interlace = 0;  // bytes
  int shift = -1;               // log2(interlace) when it is a power of two
  std::vector<Column> columns;
};

struct StripeNode {
  std::uint64_t size = 0;  // external, bytes
  std::vector<Row> rows;
};

enum class ReadPolicy : std::uint8_t { roundrobin, geometric, first };
enum class WritePolicy : std::uint8_t { parallel, serial };

struct MirrorSide {
  NodeIndex child = 0;
  bool readable = false;   // attached, in a full resync, offline, coming online: not; implies writable
  bool writable = true;    // attached, offline: not
  bool stale = false;      // an optimized resync is outstanding; implies writable
  std::uint32_t slot = 0;  // 0 to 3, ascending; names the side across plans
};

struct MirrorNode {
  std::uint64_t size = 0;  // bytes
  ReadPolicy read = ReadPolicy::roundrobin;
  WritePolicy write = WritePolicy::parallel;
  std::vector<MirrorSide> sides;
  std::uint64_t region = 0;  // bytes of a dirty region, a power of two; 0: no log
};

// One column of a RAID5 device: its prewrite area, and the data right behind it.
struct Raid5Column {
  std::uint32_t file = 0;
  std::uint64_t prewrite = 0;  // bytes inside the component
  std::uint64_t start = 0;     // of the data
  Service service = {};
};

// See docs/raid5.md and src/plan/types.ts.
struct Raid5Node {
  static constexpr std::uint32_t kNone = UINT32_MAX;
  std::uint64_t size = 0;     // external, bytes
  std::uint64_t segment = 0;  // bytes
  std::uint64_t lines = 0;    // segments in a column
  std::uint32_t originals = 0;
  std::uint32_t serving = 0;   // columns of the device; those behind are only to be initialised, and never readable
  std::uint64_t prewrite = 0;  // bytes of the prewrite area
  std::uint64_t unit = 0;
  std::uint64_t epoch = 0;
  bool replay = false;
  std::uint32_t copied = kNone;  // the last column, behind those that serve, is becoming a copy of this one
  std::vector<Raid5Column> columns;
};

using Node = std::variant<ComponentNode, StripeNode, MirrorNode, Raid5Node>;

struct Plan {
  std::uint64_t generation = 0;
  bool labelled = false;
  bool readOnly = false;
  std::vector<Node> nodes;
  std::vector<std::uint32_t> components;

  const Node& root() const noexcept { return nodes.back(); }
  std::uint64_t size() const noexcept;  // bytes of the metadevice
};

std::uint64_t nodeSize(const Node& node) noexcept;

struct DecodedPlan {
  std::shared_ptr<const Plan> plan;  // null when refused
  std::string reason;                // why, for the log and the rejected promise
};

// Any bytes are allowed; never throws for bad input, never reads outside the span.
DecodedPlan decodePlan(std::span<const std::byte> bytes);

// Whether every component node lies inside its storage: sizes (bytes) in the order of
// Plan::components. Empty when it fits, else the reason.
std::string checkSizes(const Plan& plan, std::span<const std::uint64_t> sizes);

// CRC-32C (Castagnoli) as used in the plan header.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t seed = 0) noexcept;

}  // namespace metadisk
