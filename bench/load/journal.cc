#include "journal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "wire.h"

namespace metadisk::load {
namespace {
constexpr std::uint64_t kMagic = 0x6e62646c6f616431;  // nbdload1
}

Journal::~Journal() {
  if (head_ != nullptr) ::munmap(head_, bytes_);
}

bool Journal::map(int fd, std::size_t bytes, std::string& why) {
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) {
    why = std::string("journal: ") + std::strerror(errno);
    return false;
  }
  bytes_ = bytes;
  head_ = static_cast<Head*>(at);
  records_ = reinterpret_cast<BlockRecord*>(head_ + 1);
  return true;
}

bool Journal::create(const std::string& path, std::uint64_t seed, std::uint32_t blockBytes, std::uint64_t offset,
                     std::uint64_t blocks, std::string& why) {
  const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  const std::size_t bytes = sizeof(Head) + blocks * sizeof(BlockRecord);
  if (fd.get() < 0 || ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    why = path + ": " + std::strerror(errno);
    return false;
  }
  if (!map(fd.get(), bytes, why)) return false;
  *head_ = Head{kMagic, seed, offset, blocks, blockBytes, 0, {}};
  return true;
}

bool Journal::open(const std::string& path, std::string& why) {
  const Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  struct stat st {};
  if (fd.get() < 0 || ::fstat(fd.get(), &st) != 0) {
    why = path + ": " + std::strerror(errno);
    return false;
  }
  const auto bytes = static_cast<std::size_t>(st.st_size);
  if (bytes < sizeof(Head)) {
    why = path + ": not a journal";
    return false;
  }
  if (!map(fd.get(), bytes, why)) return false;
  if (head_->magic != kMagic || bytes != sizeof(Head) + head_->blocks * sizeof(BlockRecord)) {
    why = path + ": not a journal";
    return false;
  }
  return true;
}

}  // namespace metadisk::load
