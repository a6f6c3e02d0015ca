// What one run does. Parsed once, never changed afterwards.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace metadisk::load {

enum class Mix : std::uint8_t { read, write, mixed };

struct Options {
  std::string unixPath, tcpHost, tcpPort = "10809", exportName;
  bool handshakeGo = true, structured = false;

  Mix mix = Mix::read;
  std::uint32_t readPercent = 70;
  bool sequential = false, fua = false;
  std::uint32_t blockBytes = 4096, depth = 1, connections = 1, threads = 1;
  std::uint64_t spanBytes = 0;  // 0: to the end of the export
  std::uint64_t offsetBytes = 0;
  std::uint64_t scatterBytes = 0;  // one block of every so many bytes, each once and none beside the one before
  double seconds = 3, warmup = 0.5;
  std::uint64_t count = 0;       // requests in all; 0: run for `seconds`
  std::uint64_t flushEvery = 0;  // one FLUSH after so many writes of a connection
  std::uint64_t seed = 1;
  double stallSeconds = 30;  // no reply for so long is a failure

  std::string journal;                      // verifying mode
  bool initialise = false, verify = false;  // write every block once; or only read and judge
  bool settle = false;                      // verify: what was read becomes the only permitted value
  std::string file;                         // verify this file instead of an export
  std::uint64_t fileOffset = 0;

  bool tolerateDisconnect = false, tolerateErrors = false;
  std::vector<pid_t> serverPids;
  std::string readyFile;  // created when the first request is about to be sent
};

// Prints to stderr and exits with status 2 when the words make no sense.
Options parseOptions(int argc, char** argv);

}  // namespace metadisk::load
