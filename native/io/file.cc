#include "io/file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace metadisk {

namespace {

// Calls under way on one component of an unknown file system.
constexpr unsigned kForeignThreads = 8;

}  // namespace

void RangeLock::List::append(RangeClaim& c) noexcept {
  c.prev = tail;
  c.next = nullptr;
  (tail != nullptr ? tail->next : head) = &c;
  tail = &c;
}

void RangeLock::List::remove(RangeClaim& c) noexcept {
  (c.prev != nullptr ? c.prev->next : head) = c.next;
  (c.next != nullptr ? c.next->prev : tail) = c.prev;
  c.prev = c.next = nullptr;
}

namespace {

bool anyOverlap(const RangeClaim* list, const RangeClaim& claim, const RangeClaim* upTo) noexcept {
  for (; list != nullptr && list != upTo; list = list->next) {
    if ((list->exclusive || claim.exclusive) && list->start < claim.end && claim.start < list->end) return true;
  }
  return false;
}

}  // namespace

bool RangeLock::blocked(const RangeClaim& claim, const RangeClaim* waitingUpTo) const noexcept {
  if (anyOverlap(exclusive_.head, claim, nullptr) || anyOverlap(waiting_.head, claim, waitingUpTo)) return true;
  return claim.exclusive && anyOverlap(plain_.head, claim, nullptr);
}

bool RangeLock::claim(RangeClaim& claim) noexcept {
  const std::lock_guard lock(mutex_);
  claim.held = !blocked(claim, nullptr);
  if (claim.held) {
    (claim.exclusive ? exclusive_ : plain_).append(claim);
  } else {
    waiting_.append(claim);
  }
  return claim.held;
}

void RangeLock::release(RangeClaim& claim) noexcept {
  const std::lock_guard lock(mutex_);
  (claim.exclusive ? exclusive_ : plain_).remove(claim);
  claim.held = false;
  for (RangeClaim* w = waiting_.head; w != nullptr;) {
    RangeClaim* const following = w->next;
    if (!blocked(*w, w)) {
      waiting_.remove(*w);
      (w->exclusive ? exclusive_ : plain_).append(*w);
      w->held = true;
      // Under the lock: granted() only posts to the thread of the claim.
      w->granted(*w);
    }
    w = following;
  }
}

FileSystem fileSystemOf(unsigned long magic) noexcept {
  switch (magic) {
    case TMPFS_MAGIC: return FileSystem::memory;
    case EXT4_SUPER_MAGIC:  // ext2 and ext3 as well
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC: return FileSystem::local;
    default: return FileSystem::unknown;
  }
}

bool harmlessWriteError(int error) noexcept {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EINVAL:
    case EOPNOTSUPP:
    case ENOMEM:
    case EAGAIN:
    case EINTR: return true;
    default: return false;
  }
}

std::string openComponent(const ComponentSpec& spec, ComponentFile& out) {
  struct stat st {};
  if (::fstat(spec.fd, &st) != 0)
    return std::string("component ") + std::to_string(spec.component) + ": " + std::strerror(errno);
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
    return "component " + std::to_string(spec.component) + ": neither a file nor a block device";
  }
  if (spec.direct && (spec.align < 512 || spec.align > 4096 || !std::has_single_bit(spec.align))) {
    return "component " + std::to_string(spec.component) + ": alignment " + std::to_string(spec.align);
  }
  out.fd = Fd::duplicate(spec.fd);
  if (!out.fd) return std::string("component ") + std::to_string(spec.component) + ": " + std::strerror(errno);
  out.component = spec.component;
  out.given = spec.fd;
  out.direct = spec.direct;
  out.blockDevice = S_ISBLK(st.st_mode);
  out.align = spec.direct ? spec.align : 1;
  out.device = out.blockDevice ? st.st_rdev : st.st_dev;
  out.inode = out.blockDevice ? 0 : st.st_ino;
  out.size.store(spec.size, std::memory_order_relaxed);
  out.limitNanos.store(spec.timeoutMillis * 1'000'000ULL, std::memory_order_relaxed);
  struct statfs fs {};
  out.fileSystem =
      ::fstatfs(spec.fd, &fs) == 0 ? fileSystemOf(static_cast<unsigned long>(fs.f_type)) : FileSystem::unknown;
  if (!out.blockDevice && out.fileSystem == FileSystem::unknown) {
    try {
      out.workers = std::make_unique<Workers>(kForeignThreads);
    } catch (const std::system_error& e) {
      return std::string("component ") + std::to_string(spec.component) + ": " + e.what();
    }
  }
  if (out.dsync() && !out.memory()) {
    const std::string self = "/proc/self/fd/" + std::to_string(out.fd.get());
    out.witness = Fd(::open(self.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  }
  return {};
}

}  // namespace metadisk
