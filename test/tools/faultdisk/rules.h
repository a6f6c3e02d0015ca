// What a disk does instead of what it was asked to: rules set by a line of text.
//
//   fail OPS ERRNO [from=BYTE] [bytes=N] [count=N] [until-written]   answer with that error
//   short OPS [...]                                                  transfer half of it
//   hang OPS [...]                                                   answer nothing until `ok`
//   delay MILLIS OPS [...]                                           answer that much later
//   ok                                                               forget every rule
// OPS: read,write,sync,zero or all. until-written: a bad sector that a write of the same bytes mends.
// The first rule that fits decides. Nothing here does I/O.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace faultdisk {

enum Op : unsigned { kRead = 1, kWrite = 2, kSync = 4, kZero = 8, kAll = 15 };

enum class Action { pass, fail, cut, hang, delay };

struct Rule {
  Action action = Action::fail;
  unsigned ops = kAll;
  int error = 0;
  unsigned millis = 0;
  std::uint64_t first = 0;
  std::uint64_t end = UINT64_MAX;
  std::uint64_t count = UINT64_MAX;  // how often it still strikes
  bool untilWritten = false;
};

class Rules {
 public:
  // Empty, or what is wrong with the line.
  std::string add(const std::vector<std::string>& words);
  void clear() { rules_.clear(); }
  // The rule that decides this operation, already counted; Action::pass when none does.
  Rule decide(Op op, std::uint64_t offset, std::uint64_t length);

 private:
  std::vector<Rule> rules_;
};

// "a b  c" -> {a, b, c}
std::vector<std::string> wordsOf(std::string_view line);

}  // namespace faultdisk
