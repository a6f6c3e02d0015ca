#include "engine/regionlog.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace metadisk {

namespace {

// As SVM's last close does it: a few passes at once, then some a second apart.
constexpr unsigned kHurry = 13;
constexpr unsigned kAtOnce = 3;
constexpr std::uint64_t kSecond = 1'000'000'000;

bool okay(const Node& node) noexcept {
  const auto* const part = std::get_if<ComponentNode>(&node);
  if (part != nullptr) return part->service.readable;
  const auto* const stripe = std::get_if<StripeNode>(&node);
  return stripe == nullptr || std::all_of(stripe->rows.begin(), stripe->rows.end(), [](const Row& row) {
           return std::all_of(row.columns.begin(), row.columns.end(),
                              [](const Column& c) { return c.service.readable; });
         });
}

bool everySideInStep(const Plan& plan, const MirrorNode& mirror) noexcept {
  return std::all_of(mirror.sides.begin(), mirror.sides.end(),
                     [](const MirrorSide& side) { return side.readable && side.writable && !side.stale; }) &&
         std::all_of(plan.nodes.begin(), plan.nodes.end(), okay);
}

const MirrorNode* mirrorOf(const Plan& plan) noexcept { return std::get_if<MirrorNode>(&plan.root()); }

}  // namespace

RegionLog::RegionLog(std::uint32_t device, std::uint64_t sweepNanos, Owner owner)
    : device_(device), sweepNanos_(sweepNanos), owner_(std::move(owner)) {}

void RegionLog::load(std::span<const std::byte> dirty) {
  loaded_.resize(dirty.size());
  std::transform(dirty.begin(), dirty.end(), loaded_.begin(),
                 [](std::byte b) { return std::to_integer<std::uint8_t>(b); });
}

bool RegionLog::mountable(const Plan& plan) const noexcept {
  const MirrorNode* const mirror = mirrorOf(plan);
  if (regions_ == nullptr || !regions_->ticketOut()) return true;
  if (mirror == nullptr || mirror->region == 0) return false;
  const std::uint64_t count = (mirror->size + mirror->region - 1) / mirror->region;
  return mirror->region == regions_->regionBytes() && count == regions_->count();
}

void RegionLog::mount(const Plan& plan) {
  const MirrorNode* const mirror = mirrorOf(plan);
  const std::uint64_t region = mirror != nullptr ? mirror->region : 0;
  const bool first = !std::exchange(mounted_, true);
  // Nothing is in flight and no ticket of another shape is out: a refusal would mean that this is not so,
  // and going on would lose marks.
  bool done = true;
  if (region == 0) {
    // The log ends: its records may go, and what the next one begins with is all clean.
    done = regions_ == nullptr || regions_->doubt();
    regions_.reset();
  } else if (regions_ == nullptr) {
    regions_ = std::make_unique<Regions>(mirror->size, region);
    regions_->whenWanted([](void* log) noexcept { static_cast<RegionLog*>(log)->owner_.attend(); }, this);
    regions_->load(Bitmap::fromBytes(std::exchange(loaded_, {}), regions_->count()));
    // What was loaded for an earlier plan, which had no log, is certain no more.
    if (!first) done = regions_->doubt();
  } else if (region != regions_->regionBytes() || (mirror->size + region - 1) / region != regions_->count()) {
    done = regions_->grow(mirror->size, region);
  }
  if (!done) std::abort();
  used_ = region != 0;
  inStep_ = used_ && everySideInStep(plan, *mirror);
  stale_.mount(plan, used_ ? regions_->snapshot() : Bitmap(), region, first);
  if (regions_ != nullptr) regions_->allowCleaning(allowed());
  owner_.attend();
}

void RegionLog::allowCleaning(bool allow) noexcept {
  if (allowed_ == allow) return;
  allowed_ = allow;
  if (regions_ != nullptr) regions_->allowCleaning(allowed());
}

void RegionLog::clients(bool any, std::uint64_t now) noexcept {
  hurry_ = any ? 0 : kHurry;
  if (!any) sweepAt_ = now;
  owner_.attend();
}

void RegionLog::ticket(EngineEvent::Kind kind, RegionTicket taken) {
  EngineEvent event;
  event.kind = kind;
  event.device = device_;
  event.ticket = out_ = taken.number;
  event.regions = std::move(taken.regions);
  event.regionBlocks = regions_->regionBytes() / 512;
  owner_.event(std::move(event));
}

void RegionLog::marked(std::uint64_t number, bool ok, int error) noexcept {
  if (regions_ == nullptr || !regions_->settle(number, ok, error)) return;
  owner_.attend();
}

void RegionLog::refuse(int error) noexcept {
  if (regions_ == nullptr) return;
  closing_ = true;
  regions_->allowCleaning(false);
  regions_->settle(out_, false, error);
  while (regions_->wantsMarks()) regions_->settle(regions_->takeMarks().number, false, error);
}

void RegionLog::advance(std::uint64_t now) {
  if (regions_ == nullptr) return;
  if (now >= wakeAt()) sweep(now);
  if (regions_->wantsMarks()) ticket(EngineEvent::Kind::regionsDirty, regions_->takeMarks());
  if (!regions_->wantsIdle()) return;
  RegionTicket idle = regions_->takeIdle();
  if (idle.number != 0) ticket(EngineEvent::Kind::regionsIdle, std::move(idle));
}

void RegionLog::sweep(std::uint64_t now) {
  const bool atOnce = hurry_ > 0;
  if (atOnce) hurry_--;
  sweepAt_ = now + (!atOnce ? sweepNanos_ : hurry_ > kHurry - kAtOnce ? 0 : kSecond);
  if (!regions_->sweep(atOnce)) return;
  flushing_ = true;
  owner_.flush([this](int error) {
    flushing_ = false;
    if (regions_ != nullptr) regions_->flushed(error == 0);
    owner_.attend();
  });
}

std::uint64_t RegionLog::wakeAt() const noexcept {
  const bool due = regions_ != nullptr && regions_->anyToClean() && !flushing_ && !closing_ && !regions_->ticketOut();
  return due ? sweepAt_ : UINT64_MAX;
}

}  // namespace metadisk
