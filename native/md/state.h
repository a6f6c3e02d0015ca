// What a mirror or RAID5 device remembers across its plans: one per device, on its owner thread. Volumes come and
// go with plans and use it by reference.
#pragma once

#include <memory>

#include "core/regions.h"
#include "md/hold.h"
#include "md/raid5_state.h"
#include "md/repairqueue.h"
#include "md/stale.h"

namespace metadisk {

struct MirrorState {
  Hold hold;
  Regions* regions = nullptr;   // null: no log
  StaleSides* stale = nullptr;  // null: no side is behind
  // A write was answered with an error after it may have changed some sides and not others: from now on
  // no region may be called clean, so that the next start makes the sides equal.
  bool unequal = false;
  RepairQueue repairs;
  Raid5Options raid5Options;
  // From the first RAID5 plan on.
  std::unique_ptr<Raid5State> raid5;
};

}  // namespace metadisk
