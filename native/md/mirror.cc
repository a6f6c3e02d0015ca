#include "md/mirror.h"

#include <algorithm>
#include <span>
#include <utility>

#include "md/stripe.h"

namespace metadisk {

ReadBalance::ReadBalance(const MirrorNode& mirror, std::uint32_t sides) noexcept : policy_(mirror.read) {
  for (std::uint32_t i = 0; i < mirror.sides.size() && i < readable_.size(); i++) {
    if ((sides >> i & 1U) != 0) readable_[count_++] = i;
  }
  if (count_ > 0) {
    zone_ = (mirror.size + count_ - 1) / count_;
    last_ = count_ - 1;
  }
}

std::uint32_t ReadBalance::choose(std::uint64_t offset, std::uint64_t length) noexcept {
  if (count_ == 1) return readable_[0];
  switch (policy_) {
    case ReadPolicy::first: return readable_[0];
    case ReadPolicy::geometric: return readable_[offset / zone_];
    case ReadPolicy::roundrobin: break;
  }
  return roundrobin(offset, length);
}

// SVM's round robin advances on every request and so makes every disk seek for one sequential reader.
// Here a read that continues a recent one (or skips a little, because several are in flight) stays on
// its side; only new streams and random reads take turns.
std::uint32_t ReadBalance::roundrobin(std::uint64_t offset, std::uint64_t length) noexcept {
  for (Stream& stream : streams_) {
    if (offset >= stream.end && offset - stream.end <= 2 * length) {
      stream.end = offset + length;
      return stream.side;
    }
  }
  last_ = last_ + 1 == count_ ? 0 : last_ + 1;
  Stream& stream = streams_[evict_];
  evict_ = (evict_ + 1) % static_cast<std::uint32_t>(streams_.size());
  stream = {offset + length, readable_[last_]};
  return stream.side;
}

ReadSources::ReadSources(const Plan& plan, const MirrorNode& mirror, const StaleSides* stale)
    : plan_(plan), mirror_(mirror), stale_(stale), avoided_(plan.components.size()) {
  for (const MirrorSide& side : mirror.sides) anyStale_ = anyStale_ || (side.readable && side.stale);
  recompute();
}

void ReadSources::avoid(std::uint32_t file, bool avoided) {
  if (avoided_[file] == avoided) return;
  avoided_[file] = avoided;
  recompute();
}

void ReadSources::recompute() {
  fast_ = 0;
  for (std::size_t i = 0; i < mirror_.sides.size(); i++) {
    if (fastSide(mirror_.sides[i])) fast_ |= 1U << i;
  }
  balance_.emplace(mirror_, fast_);
  ahead_ = {};
}

// Stale regions are looked at for each request; what lies beyond the mirror's size does not count.
bool ReadSources::fastSide(const MirrorSide& side) const noexcept {
  if (!side.readable) return false;
  const auto good = [this](const Service& service, std::uint32_t file) { return service.okay() && !avoided_[file]; };
  const Node& node = plan_.nodes[side.child];
  if (const auto* part = std::get_if<ComponentNode>(&node)) return good(part->service, part->file);
  const auto& rows = std::get<StripeNode>(node).rows;
  return std::all_of(rows.begin(), rows.end(), [&](const Row& row) {
    return row.base >= mirror_.size || std::all_of(row.columns.begin(), row.columns.end(), [&](const Column& column) {
             return good(column.service, column.file);
           });
  });
}

std::uint32_t ReadSources::choose(std::uint64_t offset, std::uint64_t length) noexcept {
  const Ahead made = std::exchange(ahead_, {});
  return made.length != 0 && made.offset == offset && made.length == length ? made.side
                                                                            : balance_->choose(offset, length);
}

int ReadSources::lookAhead(std::uint64_t offset, std::uint64_t length) noexcept {
  if (fast_ == 0) return -1;
  const std::uint32_t chosen = choose(offset, length);
  ahead_ = {offset, length, chosen};
  return anyStale_ && staleAt(mirror_.sides[chosen], offset, length) ? -1 : static_cast<int>(chosen);
}

int ReadSources::fast(std::uint64_t offset, std::uint64_t length) noexcept {
  if (fast_ == 0) return -1;
  const std::uint32_t chosen = choose(offset, length);
  if (!anyStale_ || !staleAt(mirror_.sides[chosen], offset, length)) return static_cast<int>(chosen);
  for (std::uint32_t side = 0; side < mirror_.sides.size(); side++) {
    if ((fast_ >> side & 1U) != 0 && !staleAt(mirror_.sides[side], offset, length)) return static_cast<int>(side);
  }
  return -1;
}

ReadSources::Source ReadSources::at(std::uint64_t offset, std::uint64_t length, std::uint32_t tried) const noexcept {
  constexpr int kNone = 5;
  Source best{-1, length};
  int bestClass = kNone;
  std::uint32_t bestErred = 0;
  if (anyStale_ && stale_ != nullptr) {
    best.length = std::min(best.length, stale_->regionBytes() - (offset & (stale_->regionBytes() - 1)));
  }
  for (std::uint32_t i = 0; i < mirror_.sides.size(); i++) {
    const MirrorSide& side = mirror_.sides[i];
    if (!side.readable || (tried >> i & 1U) != 0) continue;
    Fragment part;
    std::uint64_t covered = 0;
    mapNode(plan_.nodes[side.child], offset, best.length, {&part, 1}, covered);
    // Every side's boundary cuts, so that a better source further on is not missed.
    best.length = covered;
    if (!part.service->readable) continue;
    const bool okay = part.service->okay();
    const bool stale = staleAt(side, offset, 1);
    const int rank = stale && !okay ? kNone : avoided_[part.file] ? 4 : stale ? 3 : okay ? 1 : 2;
    if ((tried & kInStep) != 0 && rank > 2) continue;
    if (rank < bestClass || (rank == 2 && bestClass == 2 && part.service->lastErred > bestErred)) {
      best.side = static_cast<int>(i);
      bestClass = rank;
      bestErred = part.service->lastErred;
    }
  }
  return best;
}

bool ReadSources::cover(std::uint64_t offset, std::uint64_t length, std::uint32_t tried) const noexcept {
  while (length > 0) {
    const Source source = at(offset, length, tried);
    if (source.side < 0) return false;
    offset += source.length;
    length -= source.length;
  }
  return true;
}

bool ReadSources::unsureAt(std::uint64_t offset, std::uint64_t length) const noexcept {
  bool any = false;
  for (std::uint32_t side = 0; side < mirror_.sides.size(); side++) any = any || unsure(side, offset, length);
  return any;
}

bool ReadSources::mayRead(std::uint32_t side, std::uint64_t offset, std::uint64_t length) const noexcept {
  const MirrorSide& asked = mirror_.sides[side];
  if (!asked.readable || staleAt(asked, offset, length)) return false;
  bool all = true;
  mapExtents(plan_.nodes[asked.child], offset, length,
             [&](const Fragment& part) { all = all && part.service->readable && !avoided_[part.file]; });
  return all;
}

bool ReadSources::mayMend(std::uint32_t side, std::uint64_t offset, std::uint64_t length) const noexcept {
  if (!mirror_.sides[side].writable || !mayRead(side, offset, length)) return false;
  bool all = true;
  mapExtents(plan_.nodes[mirror_.sides[side].child], offset, length,
             [&](const Fragment& part) { all = all && part.service->writable; });
  return all;
}

bool ReadSources::anyBesides(std::uint32_t side) const noexcept {
  for (std::uint32_t i = 0; i < mirror_.sides.size(); i++) {
    if (i != side && mirror_.sides[i].readable) return true;
  }
  return false;
}

}  // namespace metadisk
