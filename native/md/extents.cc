// Which parts of a range are holes: the components are asked one after another, and what they say is put together in
// the order of the metadevice.
//
// Invariant: a hole reads as zeroes from wherever it may be read. So a mirror has one only where every readable side
// has one, whether stale, avoided or failing just now; what nobody knows is data.
#include "md/extents.h"

#include <algorithm>
#include <new>

namespace metadisk {

namespace {

// Of one request: it is answered with what is known by then.
constexpr unsigned kQuestions = 64;
constexpr unsigned kPieces = 16384;

}  // namespace

void Volume::Impl::submitExtents(Request& r) noexcept {
  if (walks_ == nullptr) walks_.reset(new (std::nothrow) Pool<Walk, 4>);
  Walk* const walk = walks_ == nullptr ? nullptr : walks_->take();
  if (walk == nullptr) return finish(r, ENOMEM);
  walk->op = IoOp::extents;
  walk->complete = onAsked;
  walk->impl = this;
  walk->request = &r;
  walk->at = r.offset;
  walk->run = r.length;
  walk->side = 0;
  walk->count = 0;
  walk->questions = 0;
  walk->pieces = 0;
  walk->hole = false;
  walk->inside = false;
  walk->answers.fill({});
  goOn(*walk);
}

void Volume::Impl::goOn(Walk& walk) noexcept {
  const Request& r = *walk.request;
  const std::uint64_t end = r.offset + r.length;
  const auto sides = mirror_ != nullptr ? static_cast<std::uint32_t>(mirror_->sides.size()) : 1U;
  auto* const out = reinterpret_cast<Extent*>(r.data);
  while (walk.at < end && walk.pieces < kPieces) {
    bool data = false;
    for (; walk.side < sides && !data; walk.side++) {
      if (mirror_ != nullptr && !mirror_->sides[walk.side].readable) continue;
      Fragment fragment;
      std::uint64_t covered = 0;
      mapNode(mirror_ != nullptr ? sideNode(walk.side) : *direct_, walk.at, walk.run, {&fragment, 1}, covered);
      // Every side's boundary cuts, also where the side is no source: another one may be further on.
      walk.run = covered;
      if (!fragment.service->readable) continue;
      Walk::Known& known = walk.known(fragment.file);
      while (known.file != fragment.file || fragment.offset < known.start || fragment.offset >= known.end) {
        if (walk.questions++ == kQuestions) return endWalk(walk);
        if (!ask(walk, fragment)) return;
      }
      walk.run = std::min(walk.run, known.end - fragment.offset);
      walk.hole = known.hole;
      data = !known.hole;
    }
    const bool hole = walk.hole;
    if (walk.count == 0 || out[walk.count - 1].hole != hole) {
      if (walk.count == r.extents) return endWalk(walk);
      out[walk.count++] = {0, hole};
    }
    out[walk.count - 1].length += walk.run;
    walk.at += walk.run;
    walk.run = end - walk.at;
    walk.side = 0;
    walk.hole = false;
    walk.pieces++;
  }
  endWalk(walk);
}

// True: answered already. Otherwise goOn() follows.
bool Volume::Impl::ask(Walk& walk, const Fragment& fragment) noexcept {
  walk.index = fragment.file;
  walk.file = files_[fragment.file];
  walk.offset = fragment.offset;
  // As far as the component goes: what it says of the next interlace need not be asked again.
  const std::uint64_t size = walk.file->size.load(std::memory_order_relaxed);
  walk.length = size > fragment.offset ? size - fragment.offset : fragment.length;
  walk.inside = true;
  walk.answered = false;
  backend_.start(walk);
  walk.inside = false;
  return walk.answered;
}

void Volume::Impl::onAsked(Io& io) noexcept {
  Walk& walk = static_cast<Walk&>(io);
  const bool said = io.result == 0 && io.run != 0;
  walk.known(walk.index) = {walk.index, io.offset, io.offset + (said ? io.run : io.length), said && io.hole};
  if (walk.inside) {
    walk.answered = true;
    return;
  }
  walk.impl->goOn(walk);
}

void Volume::Impl::endWalk(Walk& walk) noexcept {
  Request& r = *walk.request;
  r.extents = walk.count;
  walks_->give(walk);
  finish(r, 0);
}

}  // namespace metadisk
