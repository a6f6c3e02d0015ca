// What each block of an export may hold, kept in a shared mapping so that it survives this process.
//
// Invariants, per block: flushed <= acked <= ceiling <= next. `next` is the highest generation ever
// used, `ceiling` the highest that may be found, `acked` the highest whose write was answered with
// success, `flushed` the highest that a later successful FLUSH (or FUA) covers. A block whose
// flushed equals its ceiling was never in flight since, and must hold exactly that generation. The
// ceiling is raised before the request is sent; the others after the reply is parsed. Generation 0 is
// a sector of zeroes.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace metadisk::load {

struct BlockRecord {
  std::uint32_t next = 0, ceiling = 0, acked = 0, flushed = 0;
};
static_assert(sizeof(BlockRecord) == 16);

class Journal {
 public:
  Journal() = default;
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;
  ~Journal();

  bool create(const std::string& path, std::uint64_t seed, std::uint32_t blockBytes, std::uint64_t offset,
              std::uint64_t blocks, std::string& why);
  bool open(const std::string& path, std::string& why);

  [[nodiscard]] std::span<BlockRecord> records() const noexcept { return {records_, head_->blocks}; }
  [[nodiscard]] std::uint64_t seed() const noexcept { return head_->seed; }
  [[nodiscard]] std::uint32_t blockBytes() const noexcept { return head_->blockBytes; }
  [[nodiscard]] std::uint64_t offset() const noexcept { return head_->offset; }

 private:
  struct Head {
    std::uint64_t magic, seed, offset, blocks;
    std::uint32_t blockBytes, reserved;
    std::uint64_t padding[3];
  };
  static_assert(sizeof(Head) == 64);
  bool map(int fd, std::size_t bytes, std::string& why);

  Head* head_ = nullptr;
  BlockRecord* records_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace metadisk::load
