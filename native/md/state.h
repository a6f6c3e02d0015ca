// What a mirror remembers across its plans: one per device, on its owner thread. Volumes come and go
// with plans and use it by reference.
#pragma once

#include "core/regions.h"
#include "md/hold.h"
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
};

}  // namespace metadisk
