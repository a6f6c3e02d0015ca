// Closing component files where a close that hangs stops nobody.
//
// A file system that asks somebody else (FUSE, NFS) may take for ever to close a file. The last user of a file
// may be an I/O thread or the control thread, so the file is given to a thread of its own.
// Invariants: any thread may call anything; a close that hangs holds its thread until the process ends.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "io/file.h"

namespace metadisk {

class Closer {
 public:
  Closer();
  // Waits for what afterwards() still has to call.
  ~Closer();
  Closer(const Closer&) = delete;
  Closer& operator=(const Closer&) = delete;

  // The file, to be closed aside when its last user lets go.
  std::shared_ptr<ComponentFile> share(std::unique_ptr<ComponentFile> file);
  bool closing(std::uint32_t component) const;
  // Calls `then`, on this thread or another, when what is being closed now is closed, at the latest after a second.
  void afterwards(std::function<void()> then);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace metadisk
