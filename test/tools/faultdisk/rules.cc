#include "rules.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <map>
#include <optional>
#include <sstream>

namespace faultdisk {

namespace {

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<unsigned> opsOf(const std::string& text) {
  static const std::map<std::string, unsigned> names = {
      {"read", kRead}, {"write", kWrite}, {"sync", kSync}, {"zero", kZero}, {"all", kAll}};
  unsigned ops = 0;
  std::istringstream in(text);
  for (std::string name; std::getline(in, name, ',');) {
    const auto found = names.find(name);
    if (found == names.end()) return std::nullopt;
    ops |= found->second;
  }
  return ops == 0 ? std::nullopt : std::optional(ops);
}

std::optional<int> errnoOf(const std::string& text) {
  static const std::map<std::string, int> names = {{"EIO", EIO},     {"ENOSPC", ENOSPC}, {"ENODATA", ENODATA},
                                                   {"EROFS", EROFS}, {"ENXIO", ENXIO},   {"ETIMEDOUT", ETIMEDOUT}};
  const auto found = names.find(text);
  return found == names.end() ? std::nullopt : std::optional(found->second);
}

// The options after the fixed words; false when one is unknown.
bool options(Rule& rule, const std::vector<std::string>& words, std::size_t at) {
  std::optional<std::uint64_t> bytes;
  for (; at < words.size(); at++) {
    const std::string& word = words[at];
    const auto equals = word.find('=');
    const std::string name = word.substr(0, equals);
    if (word == "until-written") {
      rule.untilWritten = true;
      continue;
    }
    if (equals == std::string::npos) return false;
    const auto value = number(std::string_view(word).substr(equals + 1));
    if (!value) return false;
    if (name == "from") {
      rule.first = *value;
    } else if (name == "bytes") {
      bytes = value;
    } else if (name == "count") {
      rule.count = *value;
    } else {
      return false;
    }
  }
  if (bytes) rule.end = rule.first + *bytes;
  return true;
}

}  // namespace

std::vector<std::string> wordsOf(std::string_view line) {
  std::istringstream in{std::string(line)};
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

std::string Rules::add(const std::vector<std::string>& words) {
  const std::string verb = words.empty() ? "" : words[0];
  if (verb == "ok" && words.size() == 1) {
    clear();
    return {};
  }
  Rule rule;
  std::size_t next = 1;
  const auto word = [&] { return next < words.size() ? words[next++] : std::string(); };
  if (verb == "delay") {
    const auto millis = number(word());
    if (!millis) return "delay MILLIS OPS";
    rule.action = Action::delay;
    rule.millis = static_cast<unsigned>(*millis);
  } else if (verb == "hang") {
    rule.action = Action::hang;
  } else if (verb == "short") {
    rule.action = Action::cut;
  } else if (verb != "fail") {
    return "unknown command " + verb;
  }
  const auto ops = opsOf(word());
  if (!ops) return "which operations?";
  rule.ops = *ops;
  if (verb == "fail") {
    const auto error = errnoOf(word());
    if (!error) return "which error?";
    rule.error = *error;
  }
  if (!options(rule, words, next)) return "unknown option";
  rules_.push_back(rule);
  return {};
}

Rule Rules::decide(Op op, std::uint64_t offset, std::uint64_t length) {
  Rule pass;
  pass.action = Action::pass;
  const std::uint64_t end = offset + length;
  if (op == kWrite || op == kZero) {
    std::erase_if(rules_, [&](const Rule& r) { return r.untilWritten && offset <= r.first && end >= r.end; });
  }
  for (Rule& rule : rules_) {
    const bool touches = op == kSync || (offset < rule.end && rule.first < end);
    if ((rule.ops & op) == 0 || rule.count == 0 || !touches) continue;
    if (rule.count != UINT64_MAX) rule.count--;
    return rule;
  }
  return pass;
}

}  // namespace faultdisk
