// A volume whose root is RAID5: what its plan asks for, a replay or service, begins when it takes over.
#include <utility>

#include "md/volume_impl.h"

namespace metadisk {

void Volume::Impl::begin() noexcept {
  if (raid5Node_ == nullptr) return;
  if (raid5Node_->replay) {
    const auto over = [](void* impl, const Raid5Replayed& result) noexcept {
      static_cast<Impl*>(impl)->host_.replayed(result);
    };
    replay_ = std::make_unique<Raid5Replay>(*plan_, files_, backend_, host_, over, this);
    return replay_->start();
  }
  if (state_.raid5 == nullptr) {
    state_.raid5 = std::make_unique<Raid5State>();
    state_.raid5->options = state_.raid5Options;
  }
  raid5Error_ = Raid5Io::prepare(*raid5Node_, *state_.raid5);
  if (raid5Error_ == 0) {
    raid5_ = std::make_unique<Raid5Io>(*plan_, files_, backend_, host_, state_.hold, *state_.raid5);
    raid5_->repairInto(state_.repairs);
    raid5Repairs_ = std::make_unique<Raid5Repairs>(*plan_, files_, backend_, host_, *raid5_, state_.repairs);
    raid5Jobs_ = std::make_unique<Raid5Jobs>(*plan_, files_, backend_, host_, *raid5_);
  }
}

unsigned Volume::Impl::inFlight() const noexcept {
  if (raid5_ != nullptr)
    return raid5_->inFlight() + (raid5Jobs_->running() ? 1U : 0U) + (raid5Repairs_->running() ? 1U : 0U);
  return requests_ + (working() ? 1U : 0U) + (replay_ != nullptr ? replay_->inFlight() : 0U);
}

int Volume::Impl::startRaid5(const Raid5Job& job) noexcept {
  return raid5Jobs_ == nullptr ? EINVAL : raid5Jobs_->start(job);
}

}  // namespace metadisk
