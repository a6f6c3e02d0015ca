#include "verify.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "wire.h"

namespace metadisk::load {

void Findings::add(const std::string& text, const char* what) {
  const std::lock_guard hold(lock_);
  ++total_;
  const auto at = std::find_if(kinds_.begin(), kinds_.end(), [&](const auto& k) { return k.first == what; });
  if (at == kinds_.end())
    kinds_.emplace_back(what, 1);
  else
    ++at->second;
  if (examples_.size() < 10) examples_.push_back(text);
}

std::string Findings::json() const {
  const std::lock_guard hold(lock_);
  std::string out = "{\"total\":" + std::to_string(total_) + ",\"kinds\":{";
  for (std::size_t i = 0; i < kinds_.size(); ++i)
    out += (i == 0 ? "\"" : ",\"") + kinds_[i].first + "\":" + std::to_string(kinds_[i].second);
  out += "},\"examples\":[";
  for (std::size_t i = 0; i < examples_.size(); ++i) out += (i == 0 ? "\"" : ",\"") + examples_[i] + "\"";
  return out + "]}";
}

Judgement judge(std::span<const std::byte> data, std::uint64_t offset, std::uint64_t seed, std::uint32_t floor,
                std::uint32_t ceiling, Findings& findings) {
  Judgement result{true, false, UINT32_MAX, 0};
  for (std::size_t at = 0; at < data.size(); at += kSector) {
    const std::uint64_t place = offset + at;
    const SectorView view = inspect(data.subspan(at).first<kSector>(), place, seed);
    const char* what = nullptr;
    if (view.damage == Damage::blank ? floor > 0 : view.damage != Damage::none)
      what = damageName(view.damage);
    else if (view.generation < floor)
      what = "stale";
    else if (view.generation > ceiling)
      what = "neverWritten";
    if (what != nullptr) {
      result.good = false;
      char text[200];
      std::snprintf(text, sizeof text, "byte %llu: %s, generation %u at %llu, permitted %u to %u",
                    static_cast<unsigned long long>(place), what, view.generation,
                    static_cast<unsigned long long>(view.foundOffset), floor, ceiling);
      findings.add(text, what);
    }
    result.lowest = std::min(result.lowest, view.generation);
    result.highest = std::max(result.highest, view.generation);
  }
  result.torn = result.lowest != result.highest;
  return result;
}

void VerifyTotals::count(const BlockRecord& record, const Judgement& judgement) noexcept {
  ++blocks;
  ++(record.flushed == record.ceiling ? exact : uncertain);
  if (judgement.torn) ++torn;
  if (judgement.lowest < record.acked) ++ackedMissing;
}

void VerifyTotals::merge(const VerifyTotals& other) noexcept {
  blocks += other.blocks;
  exact += other.exact;
  uncertain += other.uncertain;
  torn += other.torn;
  ackedMissing += other.ackedMissing;
}

void settle(BlockRecord& record, const Judgement& judgement) noexcept {
  if (!judgement.good) return;
  record.flushed = record.acked = judgement.lowest;
  record.ceiling = judgement.highest;
}

int verifyFile(const Options& o, Journal& journal) {
  const Fd fd(::open(o.file.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) {
    std::fprintf(stderr, "nbdload: %s: %s\n", o.file.c_str(), std::strerror(errno));
    return 2;
  }
  Findings findings;
  VerifyTotals totals;
  const std::uint32_t bytes = journal.blockBytes();
  std::vector<std::byte> buffer(bytes);
  std::uint64_t index = 0;
  for (BlockRecord& record : journal.records()) {
    const std::uint64_t place = journal.offset() + index++ * bytes;
    const ssize_t n = ::pread(fd.get(), buffer.data(), bytes, static_cast<off_t>(o.fileOffset + place));
    if (n != static_cast<ssize_t>(bytes)) {
      findings.add("byte " + std::to_string(place) + ": " + (n < 0 ? std::strerror(errno) : "end of file"),
                   "unreadable");
      continue;
    }
    const Judgement judgement = judge(buffer, place, journal.seed(), record.flushed, record.ceiling, findings);
    totals.count(record, judgement);
    if (o.settle) settle(record, judgement);
  }
  std::printf(
      "{\"verified\":{\"blocks\":%llu,\"exact\":%llu,\"uncertain\":%llu,\"torn\":%llu,\"ackedMissing\":%llu},"
      "\"wrong\":%s}\n",
      static_cast<unsigned long long>(totals.blocks), static_cast<unsigned long long>(totals.exact),
      static_cast<unsigned long long>(totals.uncertain), static_cast<unsigned long long>(totals.torn),
      static_cast<unsigned long long>(totals.ackedMissing), findings.json().c_str());
  return findings.total() == 0 ? 0 : 1;
}

}  // namespace metadisk::load
