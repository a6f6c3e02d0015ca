#include "md/raid5_repair.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/xorsum.h"

namespace metadisk {

Raid5Repairs::Raid5Repairs(const Plan& plan, std::span<ComponentFile* const> files, Backend& backend, VolumeHost& host,
                           Raid5Io& io, RepairQueue& queue)
    : plan_(plan),
      node_(std::get<Raid5Node>(plan.root())),
      backend_(backend),
      host_(host),
      io_(io),
      queue_(queue),
      shape_(node_),
      parts_(node_.serving) {
  for (std::uint32_t c = 0; c < node_.serving; c++) {
    const Raid5Column& column = node_.columns[c];
    files_.push_back(column.file != kNoFile ? files[column.file] : nullptr);
    whole_ = whole_ && column.service.readable;
    parts_[c].self = this;
  }
  claim_.self = this;
}

Raid5Repairs::~Raid5Repairs() {
  if (running()) std::abort();  // its Ios would come back to freed memory
}

void Raid5Repairs::tick() noexcept {
  if (!due()) return;
  stage_ = Stage::next;
  go();
}

// A loop and no recursion: Ios that complete inline would nest as deep as there are rows.
void Raid5Repairs::go() noexcept {
  if (going_) return;
  going_ = true;
  while (flying_ == 0 && !waiting_ && step()) {
  }
  going_ = false;
}

void Raid5Repairs::stop() noexcept {
  stopping_ = true;
  if (!waiting_) return;
  waiting_ = false;
  io_.unclaim(claim_);
  nextRow();
  go();
}

void Raid5Repairs::onIo(Io& io) noexcept {
  Raid5Repairs& self = *static_cast<Part&>(io).self;
  if (io.op == IoOp::sync && io.result == 0 && io.file->syncFailed.load(std::memory_order_acquire)) io.result = -EIO;
  if (io.result != 0) self.error_ = -io.result;
  if (--self.flying_ == 0) self.go();
}

// The result of the stage that is over, then the next one. False: there is nothing to do.
bool Raid5Repairs::step() noexcept {
  std::byte* const check = slot(node_.serving);
  switch (stage_) {
    case Stage::idle: return false;
    case Stage::next:
      if (begin()) return true;
      stage_ = Stage::idle;
      memory_.drop();
      return false;
    case Stage::probe:
      if (error_ == 0 || error_ == ENOMEM) {
        rowDone();
      } else if (error_ == ETIMEDOUT) {
        failed(error_);
      } else if (stopping_) {
        nextRow();  // no claim is granted any more
      } else {
        stage_ = Stage::claim;
        waiting_ = true;
        claim_.first = shape_.rowOf({at_ / shape_.segment(), 0, at_ % shape_.segment()});
        claim_.end = claim_.first + 1;
        claim_.granted = [](Raid5Claim& claim) noexcept {
          Raid5Repairs& self = *static_cast<Claim&>(claim).self;
          self.waiting_ = false;
          self.go();
        };
        io_.claim(claim_);
      }
      return true;
    case Stage::claim: startOthers(Stage::others, IoOp::read); return true;
    case Stage::others:
      // Nothing to repair it from is no failure of this column.
      error_ == 0 ? startOthers(Stage::settle, IoOp::sync) : rowDone();
      return true;
    case Stage::settle:
      if (error_ == 0) {
        compute();
        start(Stage::write, column_, IoOp::write, slot(column_));
      } else {
        rowDone();
      }
      return true;
    case Stage::write: error_ == 0 ? start(Stage::sync, column_, IoOp::sync, nullptr) : failed(error_); return true;
    case Stage::sync: error_ == 0 ? start(Stage::verify, column_, IoOp::read, check) : failed(error_); return true;
    case Stage::verify:
      if (error_ == 0 && std::memcmp(slot(column_), check, length_) != 0) error_ = EIO;
      if (error_ != 0) {
        failed(error_);
      } else {
        io_.mended(claim_.first, column_);
        host_.componentRepaired(plan_.components[node_.columns[column_].file], block(), length_ / Raid5Shape::kSector);
        rowDone();
      }
      return true;
  }
  std::abort();
}

// The next place that still makes sense; false: there is none, or it is time to stop.
bool Raid5Repairs::begin() noexcept {
  const std::size_t bytes = (std::size_t{node_.serving} + 1) * Raid5Shape::kPage;
  const bool memory = memory_.get() != nullptr || memory_.make(backend_.held(), bytes);
  // Forgotten: the next read that fails there asks again.
  if (!memory || plan_.readOnly || !whole_) queue_ = {};
  while (!stopping_ && !queue_.empty()) {
    const RepairQueue::Place place = queue_.take();
    if (place.slot >= node_.serving || place.offset >= shape_.lines() * shape_.segment()) continue;
    column_ = place.slot;
    at_ = shape_.rowStart(shape_.rowOf({place.offset / shape_.segment(), 0, place.offset % shape_.segment()}));
    end_ = std::min(place.end, shape_.lines() * shape_.segment());
    nextRow();
    return true;
  }
  return false;
}

void Raid5Repairs::nextRow() noexcept {
  if (stopping_ && at_ < end_) {
    queue_.add({column_, at_, end_});
    at_ = end_;
  }
  if (at_ >= end_) {
    stage_ = Stage::next;
    return;
  }
  length_ = shape_.rowBytes(shape_.rowOf({at_ / shape_.segment(), 0, at_ % shape_.segment()}));
  start(Stage::probe, column_, IoOp::read, slot(column_));
}

void Raid5Repairs::rowDone() noexcept {
  if (claim_.listed) io_.unclaim(claim_);
  at_ += length_;
  nextRow();
}

// Failures of its own Ios are looked for: they are not reported one by one.
void Raid5Repairs::start(Stage stage, std::uint32_t column, IoOp op, std::byte* data) noexcept {
  stage_ = stage;
  error_ = memory_.fresh() || op == IoOp::sync ? 0 : ENOMEM;
  if (op == IoOp::sync && files_[column]->syncFailed.load(std::memory_order_acquire)) error_ = EIO;
  if (error_ != 0) return;
  Part& part = parts_[column];
  static_cast<Io&>(part) = Io{};
  part.op = op;
  part.file = files_[column];
  part.uncached = stage == Stage::verify;
  part.offset = op == IoOp::sync ? 0 : node_.columns[column].start + at_;
  part.length = op == IoOp::sync ? 0 : length_;
  part.data = data;
  part.complete = onIo;
  flying_++;
  backend_.start(part);
}

void Raid5Repairs::startOthers(Stage stage, IoOp op) noexcept {
  int error = 0;
  flying_++;  // until all have begun
  for (std::uint32_t c = 0; c < node_.serving; c++) {
    if (c == column_) continue;
    start(stage, c, op, op == IoOp::read ? slot(c) : nullptr);
    if (error == 0) error = error_;
  }
  error_ = error;
  flying_--;
}

void Raid5Repairs::compute() noexcept {
  XorSum others;
  for (std::uint32_t c = 0; c < node_.serving; c++) {
    if (c != column_) others.add(slot(c));
  }
  others.into(slot(column_), 0, length_);
}

void Raid5Repairs::failed(int error) noexcept {
  if (error == ENOMEM) return rowDone();  // here, not there
  files_[column_]->suspect.store(true, std::memory_order_relaxed);
  queue_.forget(column_);
  host_.componentError({.component = plan_.components[node_.columns[column_].file],
                        .op = ComponentOp::read,
                        .block = block(),
                        .error = error,
                        .masked = true,
                        .repairFailed = true});
  end_ = at_ + length_;
  rowDone();
}

}  // namespace metadisk
