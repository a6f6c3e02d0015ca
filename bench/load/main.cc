// nbdload: makes load for an NBD server, measures it, and in verifying mode proves what the server
// kept. Prints one line of JSON.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

#include "connection.h"
#include "cpu.h"

namespace metadisk::load {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point from) { return std::chrono::duration<double>(Clock::now() - from).count(); }

struct Sample {
  std::uint64_t done = 0, bytes = 0;
  double serverCpu = 0, clientCpu = 0;
  Clock::time_point at;
};

Sample sample(const Options& o, const std::vector<std::unique_ptr<Worker>>& workers) {
  Sample s;
  s.serverCpu = cpuSeconds(o.serverPids);
  s.clientCpu = ownCpuSeconds();
  s.at = Clock::now();
  for (const auto& worker : workers) {
    s.done += worker->counters.done.load(std::memory_order_relaxed);
    s.bytes += worker->counters.bytes.load(std::memory_order_relaxed);
  }
  return s;
}

// Sleeps, but not longer than there is a connection.
void waitFor(double seconds, const Control& control) {
  const auto from = Clock::now();
  while (since(from) < seconds && control.running.load(std::memory_order_relaxed) > 0)
    std::this_thread::sleep_for(std::chrono::duration<double>(std::min(0.01, seconds)));
}

int refuse(const std::string& why) {
  std::fprintf(stderr, "nbdload: %s\n", why.c_str());
  return 2;
}

void touch(const std::string& path) {
  if (!path.empty()) (void)Fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

void report(const Outcome& all, const Findings& findings, const Sample& from, const Sample& to) {
  const double seconds = std::chrono::duration<double>(to.at - from.at).count();
  const auto done = to.done - from.done;
  const double perSecond = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  const double megabytes = seconds > 0 ? static_cast<double>(to.bytes - from.bytes) / 1e6 / seconds : 0;
  const double each = done > 0 ? 1e6 / static_cast<double>(done) : 0;
  const auto us = [&](double q) { return static_cast<double>(all.latency.quantile(q)) / 1e3; };
  const auto n = [](std::uint64_t v) { return static_cast<unsigned long long>(v); };
  std::printf(
      "{\"iops\":%.1f,\"megabytesPerSecond\":%.2f,\"requests\":%llu,\"seconds\":%.4f,"
      "\"latencyMicros\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f},"
      "\"serverCpuMicrosPerRequest\":%.3f,\"clientCpuMicrosPerRequest\":%.3f,\"serverCpuSeconds\":%.3f,"
      "\"reads\":%llu,\"writes\":%llu,\"flushes\":%llu,\"ioErrors\":%llu,\"lastErrno\":%d,\"disconnects\":%llu,"
      "\"unanswered\":%llu,\"broken\":\"%s\","
      "\"verified\":{\"blocks\":%llu,\"exact\":%llu,\"uncertain\":%llu,\"torn\":%llu,\"ackedMissing\":%llu},"
      "\"wrong\":%s}\n",
      perSecond, megabytes, n(done), seconds, us(0.5), us(0.9), us(0.99), us(0.999), us(1.0),
      (to.serverCpu - from.serverCpu) * each, (to.clientCpu - from.clientCpu) * each, to.serverCpu - from.serverCpu,
      n(all.reads), n(all.writes), n(all.flushes), n(all.ioErrors), all.lastErrno, n(all.disconnects),
      n(all.unanswered), all.broken.c_str(), n(all.verified.blocks), n(all.verified.exact), n(all.verified.uncertain),
      n(all.verified.torn), n(all.verified.ackedMissing), findings.json().c_str());
}

int status(const Options& o, const Outcome& all, const Findings& findings) {
  if (findings.total() > 0 || !all.broken.empty()) return 1;
  if (all.ioErrors > 0 && !o.tolerateErrors) return 1;
  if (all.disconnects > 0 && !o.tolerateDisconnect) return 3;
  return 0;
}

Outcome merged(const std::vector<std::unique_ptr<Worker>>& workers) {
  Outcome all;
  for (const auto& worker : workers) {
    const Outcome& one = worker->outcome;
    all.reads += one.reads;
    all.writes += one.writes;
    all.flushes += one.flushes;
    all.ioErrors += one.ioErrors;
    all.disconnects += one.disconnects;
    all.unanswered += one.unanswered;
    if (one.lastErrno != 0) all.lastErrno = one.lastErrno;
    if (!one.broken.empty()) all.broken = one.broken;
    all.latency.merge(one.latency);
    all.verified.merge(one.verified);
  }
  return all;
}

int run(Options o) {
  std::string why;
  Journal journal;
  if (!o.journal.empty() && !o.initialise) {
    if (!journal.open(o.journal, why)) return refuse(why);
    o.blockBytes = journal.blockBytes();
  }
  if (!o.file.empty()) return verifyFile(o, journal);

  std::vector<Session> sessions(o.connections);
  for (Session& session : sessions)
    if (!openSession(o, session, why)) return refuse(why.empty() ? "connection failed" : why);
  const Session& first = sessions.front();
  const bool writes = o.initialise || (!o.verify && o.mix != Mix::read);
  if (writes && (first.flags & kTxReadOnly) != 0) return refuse("export is read-only");
  if ((o.flushEvery > 0 || (writes && !o.journal.empty())) && (first.flags & kTxSendFlush) == 0)
    return refuse("export has no FLUSH");
  if (writes && o.fua && (first.flags & kTxSendFua) == 0) return refuse("export has no FUA");

  const bool fixed = !o.journal.empty() && !o.initialise;
  const std::uint64_t offset = fixed ? journal.offset() : o.offsetBytes;
  if (offset >= first.sizeBytes) return refuse("--offset lies behind the end of the export");
  const std::uint64_t room = (first.sizeBytes - offset) / o.blockBytes;
  const std::uint64_t wanted = o.spanBytes > 0 ? o.spanBytes / o.blockBytes : room;
  const std::uint64_t blocks = fixed ? journal.records().size() : wanted;
  if (blocks > room) return refuse("the export is smaller than the span");
  if (blocks < std::uint64_t{2} * o.depth * o.connections)
    return refuse("span too small for so many requests in flight");
  if (o.initialise && !journal.create(o.journal, o.seed, o.blockBytes, offset, blocks, why)) return refuse(why);

  Control control;
  control.running = o.connections;
  Findings findings;
  const Job job = o.initialise ? Job::initialise : o.verify ? Job::verify : Job::load;
  const Shared shared{o, job, o.journal.empty() ? nullptr : &journal, offset, blocks, control, findings};

  std::vector<std::unique_ptr<Worker>> workers;
  std::uint32_t index = 0;
  for (std::uint32_t t = 0; t < o.threads; ++t) {
    const std::uint32_t take = o.connections / o.threads + (t < o.connections % o.threads ? 1 : 0);
    std::vector<Session> part;
    for (std::uint32_t i = 0; i < take; ++i) part.push_back(std::move(sessions[index + i]));
    workers.push_back(std::make_unique<Worker>(shared, std::move(part), index));
    index += take;
  }
  const bool timed = job == Job::load && o.count == 0 && o.scatterBytes == 0;
  touch(o.readyFile);
  control.measuring = !timed;
  Sample from = sample(o, workers);
  std::vector<std::thread> threads;
  for (const auto& worker : workers) threads.emplace_back([&worker] { worker->run(); });
  Sample to;
  if (timed) {
    waitFor(o.warmup, control);
    from = sample(o, workers);
    control.measuring = true;
    waitFor(o.seconds, control);
    to = sample(o, workers);
    control.measuring = false;
    control.stop = true;
  }
  for (std::thread& thread : threads) thread.join();
  if (!timed) to = sample(o, workers);
  const Outcome all = merged(workers);
  report(all, findings, from, to);
  return status(o, all, findings);
}

}  // namespace
}  // namespace metadisk::load

int main(int argc, char** argv) { return metadisk::load::run(metadisk::load::parseOptions(argc, argv)); }
