// Judging a block against its record; shared by reads under load, the verify pass and offline files.
#pragma once

#include <array>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "journal.h"
#include "options.h"
#include "stamp.h"

namespace metadisk::load {

// Counters per way of being wrong; the first few are kept in words.
class Findings {
 public:
  void add(const std::string& text, const char* what);
  [[nodiscard]] std::uint64_t total() const noexcept { return total_; }
  [[nodiscard]] std::string json() const;

 private:
  mutable std::mutex lock_;
  std::uint64_t total_ = 0;
  std::vector<std::pair<std::string, std::uint64_t>> kinds_;
  std::vector<std::string> examples_;
};

struct Judgement {
  bool good = true;
  bool torn = false;
  std::uint32_t lowest = 0, highest = 0;  // generations found
};

// `floor` and `ceiling` are the permitted generations.
Judgement judge(std::span<const std::byte> data, std::uint64_t offset, std::uint64_t seed, std::uint32_t floor,
                std::uint32_t ceiling, Findings& findings);

// What the verify pass learned, whichever way it read.
struct VerifyTotals {
  std::uint64_t blocks = 0, exact = 0, uncertain = 0, torn = 0, ackedMissing = 0;
  void count(const BlockRecord& record, const Judgement& judgement) noexcept;
  void merge(const VerifyTotals& other) noexcept;
};

// Makes what was read the only permitted value.
void settle(BlockRecord& record, const Judgement& judgement) noexcept;

// Reads the journal's span from a file; status as of the program.
int verifyFile(const Options& options, Journal& journal);

}  // namespace metadisk::load
