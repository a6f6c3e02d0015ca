// One thread and its connections: keeps `depth` requests in flight on each, sends them in batches,
// parses replies in batches, judges contents, and drains and says DISC before it ends.
//
// Invariants: a block of a journal belongs to one connection (index modulo connections) and has at
// most one request in flight, so its generations are ordered. A connection that failed sends nothing
// more; its requests stay unanswered in the journal, which is what a crash means.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <vector>

#include "histogram.h"
#include "session.h"
#include "verify.h"

namespace metadisk::load {

enum class Job : std::uint8_t { load, initialise, verify };

// Set by main, read by workers.
struct Control {
  std::atomic<bool> measuring{false};
  std::atomic<bool> stop{false};
  std::atomic<std::uint32_t> running{0};  // connections still able to work
};

struct Shared {
  const Options& options;
  Job job;
  Journal* journal;  // null without verifying
  std::uint64_t offset, blocks;
  Control& control;
  Findings& findings;
};

// Written by its worker only; main reads them while it runs.
struct Counters {
  std::atomic<std::uint64_t> done{0}, bytes{0};
};

struct Outcome {
  std::uint64_t reads = 0, writes = 0, flushes = 0, ioErrors = 0, disconnects = 0, unanswered = 0;
  int lastErrno = 0;
  std::string broken;  // protocol violation or stall: never tolerated
  Histogram latency;
  VerifyTotals verified;
};

class Connection;

class Worker {
 public:
  Worker(const Shared& shared, std::vector<Session> sessions, std::uint32_t firstIndex);
  ~Worker();
  void run();
  Counters counters;
  Outcome outcome;

 private:
  friend class Connection;
  struct Acked {
    std::uint64_t block;
    std::uint32_t generation;
  };
  bool pump();
  const Shared& shared_;
  bool multiConn_ = false;
  std::vector<Acked> acked_;  // answered since the last FLUSH was sent, all connections (multi-conn only)
  std::vector<std::unique_ptr<Connection>> connections_;
};

}  // namespace metadisk::load
