// What each sector of a device may hold: a register that several clients read and write at once.
//
// Of a write the model keeps when it began and when it was answered, in ticks of its own. A sector reads as any
// version that nothing is known to have replaced before the read began: a write that was answered well replaces all
// that were answered before it began; one that was answered with an error may have happened or not, but not later. What
// was read while nothing was written is what the sector holds. A crash may bring back whatever was not replaced
// before the last flush began.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

namespace metadisk::test {

class Versions {
 public:
  using Sector = std::array<std::byte, 512>;
  static constexpr std::uint64_t kNever = UINT64_MAX;

  void add(const Sector& data) { sectors_.push_back({{.data = data, .begun = 0, .done = 0, .start = true}}); }
  std::uint64_t size() const { return sectors_.size(); }
  std::uint64_t tick() { return ++tick_; }

  // What it holds, if there is only one possibility and nobody writes it.
  const Sector* sole(std::uint64_t s) const {
    const Version* found = nullptr;
    for (const Version& v : sectors_[s]) {
      if (v.replaced != kNever) continue;
      if (found != nullptr || v.done == kNever) return nullptr;
      found = &v;
    }
    return &found->data;
  }

  void writeBegins(std::uint64_t s, const Sector& data, std::uint64_t begun) {
    sectors_[s].push_back({.data = data, .begun = begun});
    open_.insert(s);
  }
  void writeEnds(std::uint64_t s, std::uint64_t begun, bool ok, bool durable) {
    const std::uint64_t now = tick();
    for (Version& v : sectors_[s]) {
      if (v.begun == begun) v.done = now;
    }
    if (!ok) return;
    for (Version& v : sectors_[s]) {
      if (v.done > begun) continue;
      if (v.replaced == kNever) v.replaced = now;
      v.gone = v.gone || durable;
    }
  }
  // Whether `count` bytes from `from` on may be what a read finds that began then.
  bool reads(std::uint64_t s, std::size_t from, std::size_t count, const std::byte* data, std::uint64_t begun) {
    const auto same = [&](const Version& v) { return std::memcmp(v.data.data() + from, data, count) == 0; };
    bool right = false;
    bool written = false;  // meanwhile
    bool fromStart = true;
    for (const Version& v : sectors_[s]) {
      written = written || v.done > begun;
      if (v.replaced <= begun || !same(v)) continue;
      right = true;
      fromStart = fromStart && v.start;
    }
    if (!right || count != Sector{}.size()) return right;
    for (Version& v : sectors_[s]) {
      if (same(v)) continue;
      if (!written && v.replaced == kNever) v.replaced = begun;
      // What a start found stays what it found.
      if (fromStart && v.start) v.gone = true;
      if (fromStart && v.start && v.replaced == kNever) v.replaced = begun;
    }
    return true;
  }
  // `oldest`: when the oldest request began that is not answered yet.
  void flushed(std::uint64_t begun, std::uint64_t oldest) {
    for (auto at = open_.begin(); at != open_.end();) {
      auto& versions = sectors_[*at];
      for (Version& v : versions) v.gone = v.gone || v.replaced <= begun;
      std::erase_if(versions, [&](const Version& v) { return v.gone && v.replaced < oldest; });
      at = versions.size() == 1 && versions[0].done != kNever ? open_.erase(at) : std::next(at);
    }
  }
  // After a crash, and nothing is under way.
  void started() {
    for (const std::uint64_t s : open_) {
      std::erase_if(sectors_[s], [](const Version& v) { return v.gone; });
      for (Version& v : sectors_[s]) v = {.data = v.data, .begun = 0, .done = 0, .start = true};
    }
  }
  // At rest, on the columns.
  bool rests(std::uint64_t s, const Sector& data) const {
    for (const Version& v : sectors_[s]) {
      if (v.replaced == kNever && v.data == data) return true;
    }
    return false;
  }

 private:
  struct Version {
    Sector data;
    std::uint64_t begun = 0;
    std::uint64_t done = kNever;
    std::uint64_t replaced = kNever;
    bool gone = false;   // no crash brings it back
    bool start = false;  // it was there when the device was started, or another one of these
  };

  std::vector<std::vector<Version>> sectors_;
  std::set<std::uint64_t> open_;  // with more than one version, maybe
  std::uint64_t tick_ = 0;
};

}  // namespace metadisk::test
