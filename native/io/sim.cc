#include "io/sim.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace metadisk {

namespace {

constexpr std::uint64_t kSector = 512;

bool writes(IoOp op) noexcept { return op == IoOp::write || op == IoOp::discard || op == IoOp::zero; }

// Cut to whole sectors of the component: a sector is written or it is not.
std::uint64_t wholeSectors(const Io& io, std::uint64_t length) noexcept {
  if (length == io.length) return length;
  if (io.offsets != nullptr) return length / kSector * kSector;  // of which the pieces are made, as start() asks for
  const std::uint64_t end = (io.offset + length) / kSector * kSector;
  return end > io.offset ? end - io.offset : 0;
}

// Visits the memory of an Io's first `length` bytes in order: visit(memory, offset in the component).
template <typename Visit>
void eachPiece(const Io& io, std::uint64_t length, Visit visit) {
  std::uint64_t at = 0;
  const auto piece = [&](std::byte* memory, std::uint64_t size, std::uint64_t offset) {
    const std::uint64_t part = std::min(size, length - at);
    if (part > 0) visit(std::span(memory, part), offset);
    at += part;
  };
  if (io.iov == nullptr) return piece(io.data, io.length, io.offset);
  for (std::uint32_t i = 0; i < io.iovCount; i++) {
    const std::uint64_t offset = io.offsets != nullptr ? io.offsets[i] : io.offset + at;
    piece(static_cast<std::byte*>(io.iov[i].iov_base), io.iov[i].iov_len, offset);
  }
}

// Whether visit(first, end) is true for a range of the component that the first `length` bytes of the Io lie in.
template <typename Visit>
bool anyRange(const Io& io, std::uint64_t length, Visit visit) {
  if (io.offsets == nullptr) return visit(io.offset, io.offset + length);
  std::uint64_t at = 0;
  for (std::uint32_t i = 0; i < io.iovCount && at < length; at += io.iov[i++].iov_len) {
    if (visit(io.offsets[i], io.offsets[i] + std::min(io.iov[i].iov_len, length - at))) return true;
  }
  return false;
}

bool overlap(const Io& a, const Io& b) {
  return anyRange(a, a.length, [&](std::uint64_t first, std::uint64_t end) {
    return anyRange(b, b.length, [&](std::uint64_t from, std::uint64_t to) { return from < end && first < to; });
  });
}

}  // namespace

SimBackend::SimBackend(std::uint64_t seed, std::span<const std::uint64_t> sizes, SimOptions options)
    : random_(seed), options_(options), disks_(sizes.size()) {
  for (std::size_t i = 0; i < sizes.size(); i++) {
    disks_[i].seen.resize(sizes[i]);
    for (std::byte& b : disks_[i].seen) b = static_cast<std::byte>(random_());
    disks_[i].durable = disks_[i].seen;
  }
  reopen();
}

std::vector<ComponentFile*> SimBackend::files() const {
  std::vector<ComponentFile*> files;
  for (const auto& file : files_) files.push_back(file.get());
  return files;
}

void SimBackend::reopen() {
  if (!pending_.empty() || !hanging_.empty()) std::abort();
  for (auto& file : files_) closed_.push_back(std::move(file));
  files_.clear();
  for (std::size_t i = 0; i < disks_.size(); i++) {
    files_.push_back(std::make_unique<ComponentFile>());
    files_.back()->component = static_cast<std::uint32_t>(i);
    files_.back()->size = disks_[i].seen.size();
    files_.back()->limitNanos = limit_;
  }
  crashed_ = false;
}

std::uint64_t SimBackend::startedOn(std::uint32_t file, IoOp op) const {
  const auto found = disks_[file].started.find(op);
  return found == disks_[file].started.end() ? 0 : found->second;
}

std::uint64_t SimBackend::bytesOf(std::uint32_t file, IoOp op) const {
  const auto found = disks_[file].bytes.find(op);
  return found == disks_[file].bytes.end() ? 0 : found->second;
}

// `component` is the disk's number here; a test's plan numbers may differ.
std::uint32_t SimBackend::indexOf(const Io& io) const {
  for (std::uint32_t i = 0; i < files_.size(); i++) {
    if (files_[i].get() == io.file) return i;
  }
  std::abort();
}

SimFault* SimBackend::strikes(const Io& io, bool hangs) {
  const std::uint32_t file = indexOf(io);
  for (SimFault& fault : faults_) {
    const bool there = io.op == IoOp::sync || anyRange(io, io.length, [&](std::uint64_t first, std::uint64_t end) {
                         return first < fault.end && fault.first < end;
                       });
    if (fault.hangs != hangs || fault.file != file || fault.op != io.op || !there || fault.times == 0) continue;
    if (fault.skip > 0) {
      fault.skip--;
      continue;
    }
    if (fault.times != UINT32_MAX) fault.times--;
    return &fault;
  }
  return nullptr;
}

void SimBackend::damage(std::uint32_t file, std::uint64_t first, std::uint64_t end, bool worn) {
  for (std::uint64_t s = first / kSector; s * kSector < end; s++) disks_[file].bad[s] = worn;
}

void SimBackend::corrupt(std::uint32_t file, std::uint64_t first, std::uint64_t end) {
  for (std::uint64_t s = first / kSector; s * kSector < end; s++) disks_[file].lying.insert(s);
}

bool SimBackend::unreadable(const Disk& disk, const Io& io) {
  return io.op == IoOp::read && anyRange(io, io.length, [&](std::uint64_t first, std::uint64_t end) {
           const auto bad = disk.bad.lower_bound(first / kSector);
           return bad != disk.bad.end() && bad->first * kSector < end;
         });
}

void SimBackend::limit(std::uint64_t nanos) {
  limit_ = nanos;
  for (const auto& file : files_) file->limitNanos = nanos;
}

std::vector<std::byte> SimBackend::memoryOf(const Io& io) {
  std::vector<std::byte> bytes;
  eachPiece(io, io.length,
            [&](std::span<std::byte> piece, std::uint64_t) { bytes.insert(bytes.end(), piece.begin(), piece.end()); });
  return bytes;
}

void SimBackend::start(Io& io) noexcept {
  Disk& disk = disks_[indexOf(io)];
  started_[static_cast<std::size_t>(io.op)]++;
  disk.started[io.op]++;
  disk.bytes[io.op] += io.length;
  if (crashed_ || Limits::refuses(*io.file)) {
    io.result = crashed_ ? -ENODEV : -ETIMEDOUT;
    return io.complete(io);
  }
  if (io.op != IoOp::sync) {
    // The volume layer promises both; a violation is a bug there, not a fault.
    const auto wrong = [&](std::uint64_t first, std::uint64_t end) {
      return end > disk.seen.size() || (io.offsets != nullptr && (first | end) % kSector != 0);
    };
    if (io.length == 0 || anyRange(io, io.length, wrong)) std::abort();
    if (io.offsets != nullptr && (!options_.scatters || io.iov == nullptr || io.fua)) std::abort();
    std::uint64_t sum = 0;
    for (std::uint32_t i = 0; io.iov != nullptr && i < io.iovCount; i++) sum += io.iov[i].iov_len;
    if (io.iov != nullptr && (sum != io.length || io.iovCount > kIovecsMax)) std::abort();
  }
  if (writes(io.op)) {
    for (const Operation& p : pending_) {
      const Io& other = p->outstanding.io;
      if (other.file == io.file && writes(other.op) && overlap(io, other)) overlapping_++;
    }
  }
  auto operation = std::make_unique<Pending>();
  operation->due = turn_ + 1 + random(options_.latencyMax);
  operation->sequence = sequence_;
  operation->outstanding.operation = operation.get();
  limits_.setTime(clock_);
  limits_.begin(operation->outstanding, io);
  if (strikes(io, true) != nullptr) {
    if (io.op == IoOp::write) operation->written = memoryOf(io);
    return hanging_.push_back(std::move(operation));
  }
  if (random(100) < options_.inlinePercent) return perform(std::move(operation));
  pending_.push_back(std::move(operation));
}

unsigned SimBackend::poll() noexcept {
  turn_++;
  clock_ += options_.turnNanos;
  limits_.setTime(clock_);
  if (limits_.due()) look();
  std::vector<Operation> due;
  for (std::size_t i = 0; i < pending_.size();) {
    if (pending_[i]->due > turn_) {
      i++;
      continue;
    }
    due.push_back(std::move(pending_[i]));
    pending_[i] = std::move(pending_.back());
    pending_.pop_back();
  }
  std::shuffle(due.begin(), due.end(), random_);
  const auto count = static_cast<unsigned>(due.size());
  for (Operation& p : due) perform(std::move(p));
  return count;
}

void SimBackend::look() noexcept {
  limits_.look([](void*) { return false; }, [](void*) {});
}

void SimBackend::letGo(std::uint32_t file) {
  for (Operation& operation : hanging_) {
    if (indexOf(operation->outstanding.io) != file) continue;
    operation->due = turn_ + 1 + random(options_.latencyMax);
    pending_.push_back(std::move(operation));
  }
  std::erase(hanging_, nullptr);
}

void SimBackend::copyOut(const Disk& disk, const Io& io, std::uint64_t length) {
  eachPiece(io, length, [&](std::span<std::byte> memory, std::uint64_t offset) {
    std::memcpy(memory.data(), disk.seen.data() + offset, memory.size());
  });
}

void SimBackend::change(Disk& disk, const Io& io, std::uint64_t length, bool durable) {
  if (length == 0) return;
  if (io.op == IoOp::write) {
    eachPiece(io, length, [&](std::span<std::byte> memory, std::uint64_t offset) {
      std::memcpy(disk.seen.data() + offset, memory.data(), memory.size());
    });
  } else {
    std::fill_n(disk.seen.begin() + static_cast<std::ptrdiff_t>(io.offset), length, std::byte{0});
  }
  sequence_++;
  anyRange(io, length, [&](std::uint64_t first, std::uint64_t end) {
    changeSectors(disk, first, end, durable);
    return false;
  });
}

// Of what is seen between the two.
void SimBackend::changeSectors(Disk& disk, std::uint64_t from, std::uint64_t end, bool durable) {
  for (std::uint64_t s = from / kSector; s * kSector < end; s++) {
    const auto damaged = disk.bad.find(s);
    const bool whole = s * kSector >= from && (s + 1) * kSector <= end;
    if (whole && damaged != disk.bad.end() && !damaged->second) disk.bad.erase(damaged);
    if (disk.lying.contains(s)) disk.seen[s * kSector] ^= std::byte{0x11};
    const auto first = disk.seen.begin() + static_cast<std::ptrdiff_t>(s * kSector);
    const auto last = disk.seen.begin() + static_cast<std::ptrdiff_t>(std::min((s + 1) * kSector, disk.seen.size()));
    if (durable) {
      std::copy(first, last, disk.durable.begin() + (first - disk.seen.begin()));
      disk.unsynced.erase(s);
    } else {
      disk.unsynced[s].push_back({sequence_, {first, last}});
    }
  }
}

void SimBackend::settle(Disk& disk, std::uint64_t upTo) {
  for (auto it = disk.unsynced.begin(); it != disk.unsynced.end();) {
    auto& versions = it->second;
    std::size_t old = 0;
    while (old < versions.size() && versions[old].sequence <= upTo) old++;
    if (old > 0) {
      const auto& data = versions[old - 1].data;
      std::copy(data.begin(), data.end(), disk.durable.begin() + static_cast<std::ptrdiff_t>(it->first * kSector));
      versions.erase(versions.begin(), versions.begin() + static_cast<std::ptrdiff_t>(old));
    }
    it = versions.empty() ? disk.unsynced.erase(it) : std::next(it);
  }
}

void SimBackend::perform(Operation operation) noexcept {
  const Io& io = operation->outstanding.io;
  Disk& disk = disks_[indexOf(io)];
  // The kernel reads a write's memory whenever it likes.
  if (!operation->written.empty() && operation->written != memoryOf(io)) std::abort();
  static constexpr SimFault kBadSector{.error = ENODATA};
  const SimFault* const fault = unreadable(disk, io) ? &kBadSector : strikes(io, false);
  std::uint64_t length = fault != nullptr ? random(io.length + 1) : io.length;
  if (writes(io.op)) length = wholeSectors(io, length);
  switch (io.op) {
    case IoOp::read: copyOut(disk, io, length); break;
    case IoOp::write: change(disk, io, length, io.fua && fault == nullptr); break;
    case IoOp::zero:
    case IoOp::discard: change(disk, io, length, false); break;
    case IoOp::sync:
      if (fault == nullptr) {
        settle(disk, operation->sequence);
      } else {
        disk.unsynced.clear();  // lost, and clean as far as the next sync can see
      }
      break;
    case IoOp::cache: break;
    case IoOp::extents:
      if (operation->outstanding.caller != nullptr) findExtent(disk, *operation->outstanding.caller);
      break;
  }
  const bool promised = io.op == IoOp::sync || io.fua;
  if (fault != nullptr && promised && (io.op == IoOp::sync || !harmlessWriteError(fault->error))) {
    io.file->syncFailed.store(true, std::memory_order_release);
  }
  Io* const caller = limits_.end(operation->outstanding);
  if (caller == nullptr) return;
  caller->result = fault != nullptr ? -fault->error : 0;
  caller->complete(*caller);
}

// Zeroes are holes here, by whole sectors; not those that a failed sync has lost, which are only seen.
void SimBackend::findExtent(const Disk& disk, Io& io) {
  const auto zeroed = [&](std::uint64_t at) {
    const auto first = static_cast<std::ptrdiff_t>(at / kSector * kSector);
    const auto end = std::min(first + static_cast<std::ptrdiff_t>(kSector), std::ssize(disk.seen));
    const auto zero = [&](const std::vector<std::byte>& bytes) {
      return std::all_of(bytes.begin() + first, bytes.begin() + end, [](std::byte b) { return b == std::byte{0}; });
    };
    return zero(disk.seen) && (disk.unsynced.contains(at / kSector) || zero(disk.durable));
  };
  const std::uint64_t end = io.offset + io.length;
  std::uint64_t at = io.offset;
  io.hole = zeroed(at);
  while (at < end && zeroed(at) == io.hole) at = std::min(end, (at / kSector + 1) * kSector);
  io.run = at - io.offset;
}

void SimBackend::crash() {
  for (Operation& operation : std::exchange(hanging_, {})) pending_.push_back(std::move(operation));
  for (const Operation& p : pending_) {
    const Io& io = p->outstanding.io;
    if (!writes(io.op)) continue;
    change(disks_[indexOf(io)], io, wholeSectors(io, random(io.length + 1)), false);
  }
  for (Disk& disk : disks_) {
    for (const auto& [sector, versions] : disk.unsynced) {
      const std::size_t kept = random(versions.size() + 1);
      if (kept == versions.size()) continue;
      const auto& data = versions[kept].data;
      std::copy(data.begin(), data.end(), disk.durable.begin() + static_cast<std::ptrdiff_t>(sector * kSector));
    }
    disk.unsynced.clear();
    disk.seen = disk.durable;
  }
  crashed_ = true;
  for (const Operation& p : std::exchange(pending_, {})) {
    Io* const caller = limits_.end(p->outstanding);
    if (caller == nullptr) continue;
    caller->result = -ENODEV;
    caller->complete(*caller);
  }
}

}  // namespace metadisk
