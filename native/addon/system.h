// System calls Node does not offer, for the control plane.
#pragma once

#include <napi.h>

namespace metadisk {

void defineSystem(Napi::Env env, Napi::Object exports);

}  // namespace metadisk
