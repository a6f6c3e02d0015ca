// An event of the engine as the object that src/plan/events.ts describes.
#pragma once

#include <napi.h>

#include "engine/events.h"

namespace metadisk {

Napi::Object eventObject(Napi::Env env, const EngineEvent& event);

}  // namespace metadisk
