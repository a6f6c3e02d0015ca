// CPU seconds used so far by a set of processes, all their threads and all their descendants.
#pragma once

#include <sys/types.h>

#include <span>

namespace metadisk::load {

double cpuSeconds(std::span<const pid_t> pids);
double ownCpuSeconds();

}  // namespace metadisk::load
