// faultdisk MOUNTPOINT NAME=IMAGE...: files that behave like disks that fail on demand.
//
// MOUNTPOINT/NAME is the image, uncached, with the errors that were asked for; what is written to
// MOUNTPOINT/control is carried out before the write returns, a line each: `NAME COMMAND` with the
// commands of rules.h, and besides
//   volatile on|off     writes stay in memory until a sync
//   powercut SEED       unsynced sectors are lost or kept by chance; then everything fails until `ok`
// A refused line makes the write fail with EINVAL. Reading `control` gives a line of counters per disk.
//
// One thread: a held or delayed request is a stored reply, so no disk waits for another. A request that hangs is
// answered when whoever waits for it is killed (FUSE_INTERRUPT), as by NFS and good FUSE file systems; others would
// keep the process until the end of the hang, whatever it does.
#define FUSE_USE_VERSION 35
#include <fuse_lowlevel.h>
#include <linux/falloc.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rules.h"
#include "store.h"

namespace faultdisk {

namespace {

using Clock = std::chrono::steady_clock;

struct Disk {
  std::string name;
  Store store;
  Rules rules;
  bool gone = false;  // after a power cut
  std::uint64_t reads = 0, writes = 0, syncs = 0, zeroes = 0, failed = 0;
  struct Held {
    fuse_req_t request;
    std::function<void()> go;
  };
  std::vector<Held> held;
};

struct Later {
  Clock::time_point when;
  std::function<void()> run;
};

std::vector<std::unique_ptr<Disk>> disks;
std::vector<Later> later;

constexpr fuse_ino_t kControl = 2;
constexpr fuse_ino_t kFirstDisk = 3;

Disk* diskOf(fuse_ino_t ino) {
  return ino >= kFirstDisk && ino - kFirstDisk < disks.size() ? disks[ino - kFirstDisk].get() : nullptr;
}

Disk* diskNamed(std::string_view name) {
  for (const auto& disk : disks) {
    if (disk->name == name) return disk.get();
  }
  return nullptr;
}

bool attributes(fuse_ino_t ino, struct stat& st) {
  st = {};
  st.st_ino = ino;
  st.st_uid = ::getuid();
  st.st_gid = ::getgid();
  if (ino == FUSE_ROOT_ID) {
    st.st_mode = S_IFDIR | 0700;
    st.st_nlink = 2;
    return true;
  }
  st.st_mode = S_IFREG | 0600;
  st.st_nlink = 1;
  if (ino == kControl) return true;
  const Disk* const disk = diskOf(ino);
  if (disk == nullptr) return false;
  st.st_size = static_cast<off_t>(disk->store.size());
  st.st_blocks = st.st_size / 512;
  return true;
}

void lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  fuse_entry_param entry{};
  entry.attr_timeout = entry.entry_timeout = 3600;
  if (parent == FUSE_ROOT_ID) {
    if (std::strcmp(name, "control") == 0) entry.ino = kControl;
    for (std::size_t i = 0; i < disks.size(); i++) {
      if (disks[i]->name == name) entry.ino = kFirstDisk + i;
    }
  }
  if (entry.ino == 0 || !attributes(entry.ino, entry.attr)) {
    fuse_reply_err(req, ENOENT);
    return;
  }
  fuse_reply_entry(req, &entry);
}

void getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  struct stat st {};
  if (attributes(ino, st)) {
    fuse_reply_attr(req, &st, 3600);
  } else {
    fuse_reply_err(req, ENOENT);
  }
}

// open(O_TRUNC) of the control file; a disk has the size it has.
void setattr(fuse_req_t req, fuse_ino_t ino, struct stat*, int toSet, fuse_file_info* info) {
  if (ino != kControl && (toSet & FUSE_SET_ATTR_SIZE) != 0) {
    fuse_reply_err(req, EPERM);
    return;
  }
  getattr(req, ino, info);
}

void open(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  info->direct_io = 1;
  fuse_reply_open(req, info);
}

// The waiting process was killed. Not answered in here: the library holds locks.
void interrupted(fuse_req_t req, void* data) {
  auto* const disk = static_cast<Disk*>(data);
  later.push_back({Clock::now(), [req, disk] {
                     const auto is = [req](const Disk::Held& held) { return held.request == req; };
                     if (std::erase_if(disk->held, is) != 0) fuse_reply_err(req, EINTR);
                   }});
}

// Runs `work` as the rules say: now, later, on `ok`, or not at all. `cut` halves a transfer.
void perform(fuse_req_t req, Disk& disk, Op op, std::uint64_t offset, std::uint64_t length,
             std::function<void(bool cut)> work) {
  if (disk.gone) {
    disk.failed++;
    fuse_reply_err(req, EIO);
    return;
  }
  const Rule rule = disk.rules.decide(op, offset, length);
  switch (rule.action) {
    case Action::pass: return work(false);
    case Action::cut: return work(true);
    case Action::hang:
      disk.held.push_back({req, [work] { work(false); }});
      return fuse_req_interrupt_func(req, interrupted, &disk);
    case Action::delay:
      later.push_back({Clock::now() + std::chrono::milliseconds(rule.millis), [work] { work(false); }});
      return;
    case Action::fail:
      disk.failed++;
      fuse_reply_err(req, rule.error);
      return;
  }
}

std::string counters() {
  std::ostringstream out;
  for (const auto& d : disks) {
    out << d->name << " reads=" << d->reads << " writes=" << d->writes << " syncs=" << d->syncs
        << " zeroes=" << d->zeroes << " failed=" << d->failed << " held=" << d->held.size()
        << " unsynced=" << d->store.unsynced() << "\n";
  }
  return out.str();
}

void read(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t at, fuse_file_info*) {
  const auto offset = static_cast<std::uint64_t>(at);
  if (ino == kControl) {
    const std::string text = counters();
    const std::size_t from = std::min<std::size_t>(offset, text.size());
    fuse_reply_buf(req, text.data() + from, std::min(size, text.size() - from));
    return;
  }
  Disk* const disk = diskOf(ino);
  if (disk == nullptr) {
    fuse_reply_err(req, ENOENT);
    return;
  }
  disk->reads++;
  const std::uint64_t end = std::min(disk->store.size(), offset + size);
  const std::uint64_t length = end > offset ? end - offset : 0;
  perform(req, *disk, kRead, offset, length, [=](bool cut) {
    std::vector<char> data(cut ? length / 2 : length);
    const int error = disk->store.read(offset, data);
    if (error != 0) {
      fuse_reply_err(req, error);
    } else {
      fuse_reply_buf(req, data.data(), data.size());
    }
  });
}

std::uint64_t numberOf(const std::string& word) {
  std::uint64_t n = 0;
  std::from_chars(word.data(), word.data() + word.size(), n);
  return n;
}

bool command(const std::string& line) {
  std::vector<std::string> words = wordsOf(line);
  if (words.empty()) return true;
  Disk* const disk = diskNamed(words[0]);
  if (disk == nullptr || words.size() < 2) return false;
  words.erase(words.begin());
  if (words[0] == "volatile" && words.size() == 2) return disk->store.setVolatile(words[1] == "on") == 0;
  if (words[0] == "powercut" && words.size() == 2) {
    disk->gone = true;
    return disk->store.powerCut(numberOf(words[1])) == 0;
  }
  if (!disk->rules.add(words).empty()) return false;
  if (words[0] == "ok") {
    disk->gone = false;
    for (const auto& held : std::exchange(disk->held, {})) held.go();
  }
  return true;
}

void control(fuse_req_t req, const char* text, std::size_t size) {
  std::istringstream in{std::string(text, size)};
  bool good = true;
  for (std::string line; std::getline(in, line);) good = command(line) && good;
  if (good) {
    fuse_reply_write(req, size);
  } else {
    fuse_reply_err(req, EINVAL);
  }
}

void write(fuse_req_t req, fuse_ino_t ino, const char* text, std::size_t size, off_t at, fuse_file_info*) {
  if (ino == kControl) return control(req, text, size);
  Disk* const disk = diskOf(ino);
  const auto offset = static_cast<std::uint64_t>(at);
  if (disk == nullptr || offset >= disk->store.size()) {
    fuse_reply_err(req, ENOSPC);
    return;
  }
  disk->writes++;
  const std::uint64_t length = std::min<std::uint64_t>(size, disk->store.size() - offset);
  // The request's buffer is gone when a held one is carried out.
  const std::shared_ptr<std::string> data = std::make_shared<std::string>(text, length);
  perform(req, *disk, kWrite, offset, length, [=](bool cut) {
    const std::uint64_t bytes = cut ? length / 2 : length;
    const int error = disk->store.write(offset, data->data(), bytes);
    if (error != 0) {
      fuse_reply_err(req, error);
    } else {
      fuse_reply_write(req, bytes);
    }
  });
}

void fsync(fuse_req_t req, fuse_ino_t ino, int, fuse_file_info*) {
  Disk* const disk = diskOf(ino);
  if (disk == nullptr) {
    fuse_reply_err(req, 0);
    return;
  }
  disk->syncs++;
  perform(req, *disk, kSync, 0, 0, [=](bool) { fuse_reply_err(req, disk->store.sync()); });
}

void fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t at, off_t length, fuse_file_info*) {
  Disk* const disk = diskOf(ino);
  const bool punch = (mode & FALLOC_FL_PUNCH_HOLE) != 0;
  const auto offset = static_cast<std::uint64_t>(at);
  const auto bytes = static_cast<std::uint64_t>(length);
  if (disk == nullptr || (!punch && (mode & FALLOC_FL_ZERO_RANGE) == 0) || offset + bytes > disk->store.size()) {
    fuse_reply_err(req, EOPNOTSUPP);
    return;
  }
  disk->zeroes++;
  perform(req, *disk, kZero, offset, bytes, [=](bool) { fuse_reply_err(req, disk->store.zero(offset, bytes, punch)); });
}

void readdir(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t from, fuse_file_info*) {
  std::vector<std::pair<std::string, fuse_ino_t>> names = {{".", FUSE_ROOT_ID}, {"..", FUSE_ROOT_ID}, {"control", 2}};
  for (std::size_t i = 0; i < disks.size(); i++) names.emplace_back(disks[i]->name, kFirstDisk + i);
  std::vector<char> out(size);
  std::size_t used = 0;
  for (auto i = static_cast<std::size_t>(from); ino == FUSE_ROOT_ID && i < names.size(); i++) {
    struct stat st {};
    attributes(names[i].second, st);
    const std::size_t need =
        fuse_add_direntry(req, out.data() + used, size - used, names[i].first.c_str(), &st, static_cast<off_t>(i + 1));
    if (need > size - used) break;
    used += need;
  }
  fuse_reply_buf(req, out.data(), used);
}

int millisToNext() {
  if (later.empty()) return -1;
  const auto next =
      std::min_element(later.begin(), later.end(), [](auto& a, auto& b) { return a.when < b.when; })->when;
  const auto wait = std::chrono::duration_cast<std::chrono::milliseconds>(next - Clock::now()).count() + 1;
  return static_cast<int>(std::max<long>(0, wait));
}

void runLater() {
  const auto now = Clock::now();
  std::vector<Later> due;
  std::erase_if(later, [&](Later& l) {
    if (l.when > now) return false;
    due.push_back(std::move(l));
    return true;
  });
  for (const Later& l : due) l.run();
}

void serve(fuse_session* session) {
  fuse_buf buffer{};
  while (fuse_session_exited(session) == 0) {
    pollfd fd{fuse_session_fd(session), POLLIN, 0};
    const int ready = ::poll(&fd, 1, millisToNext());
    runLater();
    if (ready <= 0) continue;
    const int got = fuse_session_receive_buf(session, &buffer);
    if (got == -EINTR || got == -EAGAIN) continue;
    if (got <= 0) break;
    fuse_session_process_buf(session, &buffer);
  }
  std::free(buffer.mem);
}

int run(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: faultdisk MOUNTPOINT NAME=IMAGE...\n");
    return 2;
  }
  for (int i = 2; i < argc; i++) {
    const std::string word = argv[i];
    const auto equals = word.find('=');
    auto disk = std::make_unique<Disk>();
    disk->name = word.substr(0, equals);
    const std::string why =
        equals == std::string::npos ? "NAME=IMAGE: " + word : disk->store.open(word.substr(equals + 1));
    if (!why.empty()) {
      std::fprintf(stderr, "faultdisk: %s\n", why.c_str());
      return 2;
    }
    disks.push_back(std::move(disk));
  }
  fuse_lowlevel_ops ops{};
  ops.lookup = lookup;
  ops.getattr = getattr;
  ops.setattr = setattr;
  ops.open = open;
  ops.read = read;
  ops.write = write;
  ops.fsync = fsync;
  ops.fallocate = fallocate;
  ops.readdir = readdir;
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  for (const char* word : {"faultdisk", "-o", "fsname=faultdisk"}) fuse_opt_add_arg(&args, word);
  fuse_session* const session = fuse_session_new(&args, &ops, sizeof ops, nullptr);
  if (session == nullptr || fuse_set_signal_handlers(session) != 0 || fuse_session_mount(session, argv[1]) != 0)
    return 1;
  std::puts("mounted");
  std::fflush(stdout);
  serve(session);
  fuse_session_unmount(session);
  fuse_remove_signal_handlers(session);
  fuse_session_destroy(session);
  fuse_opt_free_args(&args);
  return 0;
}

}  // namespace

}  // namespace faultdisk

int main(int argc, char** argv) { return faultdisk::run(argc, argv); }
