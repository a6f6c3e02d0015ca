// A volume whose root is RAID5: what its plan asks for, a replay or service, begins when it takes over.
#include <utility>

#include "md/volume_impl.h"

namespace metadisk {

void Volume::Impl::newRaid5State() noexcept {
  state_.raid5 = std::make_unique<Raid5State>();
  state_.raid5->options = state_.raid5Options;
}

// With a plan that may not write: the picture, for the plans that follow.
void Volume::Impl::beginReplay() noexcept {
  const auto over = [](void* self, const Raid5Replayed& result) noexcept {
    Impl& impl = *static_cast<Impl*>(self);
    if (impl.plan_->readOnly) {
      impl.state_.raid5->picture = true;
      if (result.error != 0) impl.state_.raid5.reset();
    }
    impl.host_.replayed(result);
  };
  if (state_.raid5 != nullptr && state_.raid5->picture) state_.raid5.reset();
  if (plan_->readOnly) {
    // What is in memory is newer than the journal.
    int error = state_.raid5 != nullptr && state_.raid5->epoch == raid5Node_->epoch ? EBUSY : 0;
    if (error == 0) {
      newRaid5State();
      error = Raid5Io::prepare(*raid5Node_, *state_.raid5);
    }
    if (error != 0) return host_.replayed(Raid5Replayed{error});
  }
  replay_ = std::make_unique<Raid5Replay>(*plan_, files_, backend_, host_, over, this,
                                          plan_->readOnly ? state_.raid5.get() : nullptr);
  replay_->start();
}

void Volume::Impl::begin() noexcept {
  if (raid5Node_ == nullptr) return;
  if (raid5Node_->replay) return beginReplay();
  if (state_.raid5 == nullptr) newRaid5State();
  // In this epoch nothing but the picture may be shown: the journal is still to be replayed.
  raid5Error_ = state_.raid5->picture && !plan_->readOnly ? EBUSY : Raid5Io::prepare(*raid5Node_, *state_.raid5);
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
