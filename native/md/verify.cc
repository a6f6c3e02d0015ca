// Verify: every readable side is read, window by window, and compared with the first of them.
#include <bit>
#include <cstring>

#include "md/jobs.h"

namespace metadisk {

int Volume::Impl::Jobs::verify(const VerifyJob& job) noexcept {
  if (machine_.running()) return EBUSY;
  if (job.from > volume_.size_ / kBlockBytes) return EINVAL;
  if (job.repair && volume_.plan_->readOnly) return EROFS;
  const auto sides = static_cast<unsigned>(volume_.mirror_->sides.size());
  if (const int error = begin(job.bufferBlocks, sides); error != 0) return error;
  verifying_ = true;
  repairing_ = job.repair;
  kind_ = ResyncKind::full;
  mismatches_.begin(job.job);
  from_ = job.from * kBlockBytes;
  for (std::uint32_t side = 0; side < sides; side++) {
    if (volume_.mirror_->sides[side].readable) filesOf(side);
  }
  machine_.start({.job = job.job,
                  .from = from_,
                  .end = volume_.size_,
                  .workBefore = from_,
                  .workTotal = volume_.size_,
                  .bytesPerSecond = job.bytesPerSecond});
  return 0;
}

void Volume::Impl::Jobs::readSides(Window& window) noexcept {
  window.read = window.differing = 0;
  window.differs.fill(0);
  const ResyncWindow& range = window.range;
  const auto sides = static_cast<std::uint32_t>(volume_.mirror_->sides.size());
  for (std::uint32_t side = 0; side < sides; side++) {
    if (!volume_.sources_->mayRead(side, range.offset, range.length)) continue;
    Task* const task = newTask(&window, IoOp::read, range.offset, range.length, buffer(window, side));
    if (task == nullptr) return;
    task->nextSide = side;
    window.read |= 1U << side;
    // No other side is asked when this one fails: the question is what this one holds.
    volume_.issue(*task, volume_.sideNode(side), range.offset, range.length, task->data, ~0U);
    volume_.drop(*task);
  }
}

void Volume::Impl::Jobs::compare(Window& window) noexcept {
  if (std::popcount(window.read) < 2) return;
  const auto first = static_cast<unsigned>(std::countr_zero(window.read));
  const std::byte* const right = buffer(window, first);
  for (unsigned side = first + 1; side < copies_; side++) {
    const std::byte* const other = buffer(window, side);
    if ((window.read >> side & 1U) == 0 || std::memcmp(right, other, window.range.length) == 0) continue;
    window.differing |= 1U << side;
    for (std::uint64_t i = 0; i < window.range.length / kBlockBytes; i++) {
      const std::uint64_t at = i * kBlockBytes;
      if (std::memcmp(right + at, other + at, kBlockBytes) != 0) window.differs[i / 64] |= std::uint64_t{1} << (i % 64);
    }
  }
}

// Blocks that differ on one side are written to all that differ somewhere: to the rest it changes nothing.
void Volume::Impl::Jobs::repair(Window& window) noexcept {
  const auto first = static_cast<unsigned>(std::countr_zero(window.read));
  const std::uint64_t blocks = window.range.length / kBlockBytes;
  const auto bad = [&](std::uint64_t i) { return (window.differs[i / 64] >> (i % 64) & 1U) != 0; };
  for (std::uint32_t side = 0; side < copies_; side++) {
    if ((window.differing >> side & 1U) == 0) continue;
    Task* const task = newTask(&window, IoOp::write, window.range.offset, window.range.length, buffer(window, first));
    if (task == nullptr) return;
    for (std::uint64_t i = 0; i < blocks;) {
      std::uint64_t end = i;
      while (end < blocks && bad(end)) end++;
      if (end > i) {
        const std::uint64_t at = i * kBlockBytes;
        volume_.issue(*task, volume_.sideNode(side), task->offset + at, (end - i) * kBlockBytes, task->data + at,
                      1U << side);
      }
      i = end + 1;
    }
    volume_.drop(*task);
  }
}

}  // namespace metadisk
