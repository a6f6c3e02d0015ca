#include "core/filesum.h"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/xorsum.h"

namespace metadisk {

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kUnit = 64;  // what is summed: less than that of a buffer is summed with what follows there

}  // namespace

const std::byte* FileSum::sum(std::span<const FileRange> ranges, std::uint64_t at, std::size_t length) noexcept {
  if (memory_ == nullptr) {
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kPage, kBlocks * kBlock)));
    if (memory_ == nullptr) return nullptr;
    std::memset(memory_.get(), 0, kBlocks * kBlock);
  }
  std::byte* const total = memory_.get();
  nowait_ = true;
  if (!read(ranges[0], at, length, total)) return nullptr;
  for (auto rest = ranges.subspan(1); !rest.empty();) {
    const std::size_t count = std::min(rest.size(), kBlocks - 1);
    XorSum all;
    all.add(total);
    for (std::size_t i = 0; i < count; i++) {
      std::byte* const block = total + (i + 1) * kBlock;
      if (!read(rest[i], at, length, block)) return nullptr;
      all.add(block);
    }
    all.into(total, 0, (length + kUnit - 1) / kUnit * kUnit);
    rest = rest.subspan(count);
  }
  return total;
}

bool FileSum::read(const FileRange& range, std::uint64_t at, std::size_t length, std::byte* to) noexcept {
  for (std::size_t done = 0; done < length;) {
    iovec rest{to + done, length - done};
    const ssize_t n =
        ::preadv2(range.fd, &rest, 1, static_cast<off_t>(range.offset + at + done), nowait_ ? RWF_NOWAIT : 0);
    if (n > 0) {
      done += static_cast<std::size_t>(n);
    } else if (n < 0 && errno == EOPNOTSUPP && nowait_) {
      nowait_ = false;
    } else if (n == 0 || errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace metadisk
