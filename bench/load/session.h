// One connected client after the handshake: socket and what the server said of the export.
#pragma once

#include <string>

#include "options.h"
#include "wire.h"

namespace metadisk::load {

struct Session {
  Fd fd;
  std::uint64_t sizeBytes = 0;
  std::uint16_t flags = 0;
  bool structured = false;
};

// False with a reason in `why`.
bool openSession(const Options& options, Session& into, std::string& why);

}  // namespace metadisk::load
