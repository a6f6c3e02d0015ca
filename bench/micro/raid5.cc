// What RAID5 costs inside the engine: no sockets, one thread, the same load on a file, a stripe and RAID5 of the same
// columns. Prints MB/s and IOPS until everything is answered, and until everything is in place.
//   ninja -C build/native micro_raid5 && build/native/micro_raid5 [DIR [SECONDS [INTERLACE-KIB [KIND...]]]]
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/mailbox.h"
#include "io/uring.h"
#include "md/volume.h"

namespace {

using namespace metadisk;

constexpr std::uint32_t kColumns = 4;
constexpr std::uint64_t kColumnBytes = 192ULL << 20U;
constexpr std::uint64_t kPrewrite = 10240 * 512;

struct Host final : VolumeHost {
  void componentError(const ComponentFault& fault) noexcept override {
    std::fprintf(stderr, "component %u: error %d\n", fault.component, fault.error);
  }
  void componentRepaired(std::uint32_t, std::uint64_t, std::uint64_t) noexcept override {}
  void resyncProgress(std::uint64_t, std::uint64_t, std::uint64_t) noexcept override {}
  void resyncCheckpoint(std::uint64_t, std::uint64_t) noexcept override {}
  void verifyMismatch(std::uint64_t, std::uint64_t, std::uint64_t) noexcept override {}
  void resyncEnded(const ResyncEnd&) noexcept override {}
  void replayed(const Raid5Replayed&) noexcept override {}
  void attend() noexcept override {}
  std::uint64_t now() noexcept override { return monotonicNanos(); }
};

// Counts what is asked of the columns.
struct Counter final : Backend {
  explicit Counter(UringBackend& inner) : inner_(inner) {}
  void start(Io& io) noexcept override {
    count[static_cast<std::size_t>(io.op)]++;
    inner_.start(io);
  }
  void submit() noexcept override { inner_.submit(); }
  unsigned poll() noexcept override {
    inner_.setTime(monotonicNanos());
    return inner_.poll();
  }
  std::uint64_t count[8] = {};

 private:
  UringBackend& inner_;
};

enum Kind : int { file, stripe, raid5, unjournalled, degraded, kinds };
constexpr const char* kNames[kinds] = {"file", "stripe", "raid5", "raid5-nojournal", "raid5-degraded"};

std::shared_ptr<Plan> planOf(Kind kind, std::uint64_t interlace) {
  auto plan = std::make_shared<Plan>();
  if (kind == file) {
    plan->components = {0};
    plan->nodes.emplace_back(ComponentNode{0, 0, 0, kColumnBytes, {}});
    return plan;
  }
  for (std::uint32_t i = 0; i < kColumns; i++) {
    plan->components.push_back(i);
    plan->nodes.emplace_back(ComponentNode{i, i, 0, kColumnBytes, {}});
  }
  if (kind == stripe) {
    StripeNode node;
    Row row;
    row.interlace = interlace;
    row.shift = static_cast<decltype(row.shift)>(std::countr_zero(interlace));
    for (std::uint32_t i = 0; i < kColumns; i++) row.columns.push_back({i, 0, {}});
    row.end = kColumnBytes * kColumns;
    node.size = row.end;
    node.rows.push_back(row);
    plan->nodes.emplace_back(node);
    return plan;
  }
  Raid5Node node;
  node.segment = interlace;
  node.prewrite = kPrewrite;
  node.lines = (kColumnBytes - kPrewrite) / interlace;
  node.originals = node.serving = kColumns;
  node.unit = 5;
  node.epoch = 1;
  for (std::uint32_t i = 0; i < kColumns; i++) node.columns.push_back({i, 0, kPrewrite, {}});
  if (kind == degraded) {
    node.columns[1].service = {false, false, 0};
    node.columns[1].file = kNoFile;
  }
  node.size = interlace * node.lines * (kColumns - 1);
  plan->nodes.emplace_back(node);
  return plan;
}

struct Load {
  const char* name;
  Op op;
  std::uint64_t length;
  unsigned depth;
  bool random;
  std::uint64_t span;  // 0: all
};
constexpr Load kLoads[] = {{"1M write QD8", Op::write, 1U << 20U, 8, false, 0},
                           {"1M read QD8", Op::read, 1U << 20U, 8, false, 0},
                           {"4K random write QD64", Op::write, 4096, 64, true, 0},
                           {"4K write 64M QD64", Op::write, 4096, 64, true, 64U << 20U},
                           {"4K random read QD64", Op::read, 4096, 64, true, 0}};

struct Slot : Request {
  bool busy = false;
};
std::uint64_t finished = 0;

double cpuSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto of = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

void measure(Volume& volume, Counter& backend, Host& host, const char* who, const Load& load, double seconds) {
  std::vector<Slot> slots(load.depth);
  auto* const memory = static_cast<std::byte*>(std::aligned_alloc(4096, load.depth * load.length));
  std::uint64_t x = 88172645463325252ULL;
  for (std::uint64_t i = 0; i < load.depth * load.length; i += 8) {
    x ^= x << 13U, x ^= x >> 7U, x ^= x << 17U;
    std::memcpy(memory + i, &x, 8);
  }
  const auto turn = [&] {
    backend.submit();
    backend.poll();
    if (host.now() >= volume.wakeAt()) volume.tick();
  };
  const std::uint64_t places = (load.span != 0 ? load.span : volume.size()) / load.length;
  std::uint64_t issued = 0;
  finished = 0;
  const auto begin = host.now();
  const double cpu = cpuSeconds();
  std::uint64_t before[8];
  std::copy(std::begin(backend.count), std::end(backend.count), before);
  const auto until = begin + static_cast<std::uint64_t>(seconds * 1e9);
  while (host.now() < until) {
    for (unsigned i = 0; i < load.depth; i++) {
      Slot& slot = slots[i];
      if (slot.busy) continue;
      x ^= x << 13U, x ^= x >> 7U, x ^= x << 17U;
      slot.op = load.op;
      slot.length = load.length;
      slot.data = memory + i * load.length;
      slot.offset = (load.random ? x % places : issued % places) * load.length;
      slot.busy = true;
      slot.done = [](Request& r) noexcept {
        static_cast<Slot&>(r).busy = false;
        finished++;
        if (r.error != 0) std::abort();
      };
      issued++;
      volume.submit(slot);
    }
    turn();
  }
  while (finished != issued) turn();
  const double took = static_cast<double>(host.now() - begin) / 1e9;
  if (load.op == Op::write) {
    Slot flush;
    flush.op = Op::flush;
    flush.busy = true;
    flush.done = [](Request& r) noexcept { static_cast<Slot&>(r).busy = false; };
    volume.submit(flush);
    while (flush.busy || volume.inFlight() != 0) turn();
  }
  const double all = static_cast<double>(host.now() - begin) / 1e9;
  const double used = cpuSeconds() - cpu;
  const auto n = static_cast<double>(issued);
  const auto per = [&](IoOp op) {
    return static_cast<double>(backend.count[static_cast<std::size_t>(op)] - before[static_cast<std::size_t>(op)]);
  };
  std::printf("%-16s %-21s %7.0f MB/s %8.0f IOPS  in place %7.0f MB/s  %6.2f us/op  Ios/op %.2fr %.2fw  syncs/s %.0f\n",
              who, load.name, n * static_cast<double>(load.length) / 1e6 / took, n / took,
              n * static_cast<double>(load.length) / 1e6 / all, used * 1e6 / n, per(IoOp::read) / n,
              per(IoOp::write) / n, per(IoOp::sync) / all);
  std::fflush(stdout);
  std::free(memory);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string dir = argc > 1 ? argv[1] : "/dev/shm";
  const double seconds = argc > 2 ? std::atof(argv[2]) : 1;
  const std::uint64_t interlace = (argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 64) << 10U;
  const auto wanted = [&](const char* name) {
    for (int i = 4; i < argc; i++) {
      if (std::strcmp(argv[i], name) == 0) return true;
    }
    return argc <= 4;
  };
  Mailbox mailbox;
  UringBackend uring(mailbox);
  Counter backend(uring);
  Host host;
  std::vector<std::unique_ptr<ComponentFile>> files;
  const std::vector<std::byte> zeroes(1U << 20U);
  for (std::uint32_t i = 0; i < kColumns; i++) {
    const std::string name = dir + "/micro-raid5-" + std::to_string(::getpid()) + "-" + std::to_string(i);
    const int fd = ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return std::perror(name.c_str()), 1;
    ::unlink(name.c_str());
    for (std::uint64_t at = 0; at < kColumnBytes; at += zeroes.size()) {
      if (::pwrite(fd, zeroes.data(), zeroes.size(), static_cast<off_t>(at)) < 0) return std::perror("write"), 1;
    }
    ComponentSpec spec;
    spec.component = i;
    spec.fd = fd;
    spec.size = kColumnBytes;
    files.push_back(std::make_unique<ComponentFile>());
    if (const std::string error = openComponent(spec, *files.back()); !error.empty())
      return std::puts(error.c_str()), 1;
  }
  for (int k = 0; k < kinds; k++) {
    if (!wanted(kNames[k])) continue;
    const auto kind = static_cast<Kind>(k);
    const std::shared_ptr<const Plan> plan = planOf(kind, interlace);
    std::vector<ComponentFile*> open;
    for (std::size_t i = 0; i < plan->components.size(); i++) open.push_back(files[i].get());
    MirrorState state;
    if (kind >= raid5) {
      state.raid5 = std::make_unique<Raid5State>();
      state.raid5->options.journal = kind != unjournalled;
      if (const char* const mebibytes = std::getenv("CACHE")) {
        state.raid5->options.cacheBytes = std::strtoull(mebibytes, nullptr, 10) << 20U;
      }
    }
    Volume volume(plan, open, backend, host, state);
    volume.begin();
    const char* const only = std::getenv("LOAD");  // "1M write", ...
    for (const Load& load : kLoads) {
      if (only == nullptr || std::strstr(load.name, only) != nullptr) {
        measure(volume, backend, host, kNames[k], load, seconds);
      }
    }
    volume.quiesce();
    while (volume.inFlight() != 0) {
      backend.submit();
      backend.poll();
    }
  }
  return 0;
}
