// A RAID5 device over simulated columns, a control plane that does what has to be done, and a model that knows every
// version a sector may have.
//
// The model keeps, of each sector, the version flushed last and all written since, in flight included. While the
// device runs a sector reads as the newest one; after a crash it may be any of them, and from then on is that.
#pragma once

#include <deque>
#include <list>
#include <optional>

#include "md/raid5_io.h"
#include "md/raid5_jobs.h"
#include "md/raid5_replay.h"
#include "property/native/harness.h"

namespace metadisk::test {

using Sector = std::array<std::byte, 512>;

struct Version {
  Sector data;
  std::uint64_t done = 0;  // the model's count when it was acknowledged; 0: in flight
};

struct Shape5 {
  std::uint32_t originals = 3;
  std::uint32_t columns = 3;
  std::uint32_t joining = 0;     // of these, the last ones that are not part of it yet
  std::uint64_t interlace = 16;  // blocks
  std::uint64_t lines = 8;
  std::uint64_t prewrite = 170;
  std::uint64_t less = 0;  // blocks at the end that the device does not have
  bool spare = false;      // there is one more disk, that a column may be copied to
};

inline std::shared_ptr<Plan> plan5(const Shape5& s, std::vector<std::uint64_t>& sizes) {
  auto plan = std::make_shared<Plan>();
  Raid5Node node;
  node.segment = s.interlace * kBlock;
  node.lines = s.lines;
  node.originals = s.originals;
  node.serving = s.columns - s.joining;
  node.prewrite = s.prewrite * kBlock;
  node.unit = 4711;
  node.epoch = 1;
  for (std::uint32_t c = 0; c < s.columns; c++) {
    const std::uint64_t start = c % 3;
    sizes.push_back((start + s.prewrite + s.lines * s.interlace + c % 2) * kBlock);
    plan->components.push_back(100 + c);
    plan->nodes.emplace_back(ComponentNode{100 + c, c, start * kBlock, node.prewrite + s.lines * node.segment, {}});
    const Service service{c < node.serving, true, 0};
    node.columns.push_back({c, start * kBlock, start * kBlock + node.prewrite, service});
  }
  if (s.spare) {
    sizes.push_back((s.columns % 3 + s.prewrite + s.lines * s.interlace) * kBlock);
    plan->components.push_back(100 + s.columns);
  }
  node.size = (s.interlace * s.lines * (node.serving - 1) - s.less) * kBlock;
  plan->nodes.emplace_back(std::move(node));
  return plan;
}

class Rig5 : public VolumeHost {
 public:
  Rig5(const Shape5& shape, std::uint64_t seed, SimOptions sim, Raid5Options options)
      : random(seed * 7919 + 1),
        plan_(plan5(shape, sizes_)),
        disk(seed, sizes_, sim),
        turnNanos(sim.turnNanos),
        options_(options) {
    for (std::uint32_t c = 0; c < columns(); c++) places_.push_back(c);
    if (shape.spare) spare_ = columns();
    if (shape.spare) scribbleDisk(spare_);
    for (std::uint32_t c = serving(); c < columns(); c++) scribble(c);
    layParity();
    for (std::uint32_t c = 0; c < columns(); c++) disk.makeDurable(c);
    const std::uint64_t sectors = node().size / kBlock;
    for (std::uint64_t s = 0; s < sectors; s++) model.push_back({{onDisk(s), 1}});
    open();
  }

  ~Rig5() override {
    if (io != nullptr) quiesce();
  }

  const Raid5Node& node() const { return std::get<Raid5Node>(plan_->root()); }
  Raid5Node& nodeToChange() {
    plan_ = std::make_shared<Plan>(*plan_);
    return std::get<Raid5Node>(plan_->nodes.back());
  }
  // The one that a column is copied to does not count.
  std::uint32_t columns() const {
    return static_cast<std::uint32_t>(node().columns.size()) - (node().copied != Raid5Node::kNone ? 1U : 0U);
  }
  std::uint32_t serving() const { return node().serving; }

  // ---- the columns

  std::span<std::byte> data(std::uint32_t c) { return disk.content(places_[c]).subspan(node().columns[c].start); }
  // What a reader who knows only the tables finds.
  Sector onDisk(std::uint64_t sector) {
    const Raid5Shape shape(node());
    const Raid5Place place = shape.placeOf(sector * kBlock);
    Sector out;
    std::memcpy(out.data(), data(place.column).data() + place.line * node().segment + place.within, kBlock);
    return out;
  }
  void layParity() {
    const Raid5Shape shape(node());
    for (std::uint64_t line = 0; line < node().lines; line++) regenerate(line, shape.parityColumn(line));
  }
  // Makes one segment the sum of the others.
  void regenerate(std::uint64_t line, std::uint32_t target) {
    const auto to = data(target).subspan(line * node().segment, node().segment);
    std::fill(to.begin(), to.end(), std::byte{0});
    for (std::uint32_t c = 0; c < serving(); c++) {
      if (c == target) continue;
      const auto from = data(c).subspan(line * node().segment, node().segment);
      for (std::size_t i = 0; i < to.size(); i++) to[i] ^= from[i];
    }
  }
  std::uint64_t wrongParity() {
    std::uint64_t wrong = 0;
    for (std::uint64_t line = 0; line < node().lines; line++) {
      for (std::uint64_t i = 0; i < node().segment; i++) {
        std::byte sum{0};
        for (std::uint32_t c = 0; c < serving(); c++) sum ^= data(c)[line * node().segment + i];
        wrong += sum != std::byte{0} ? 1 : 0;
      }
    }
    return wrong;
  }
  std::optional<std::uint32_t> missing() const {
    for (std::uint32_t c = 0; c < serving(); c++) {
      if (!node().columns[c].service.readable) return c;
    }
    return std::nullopt;
  }
  // The column is gone, and what it held with it.
  void lose(std::uint32_t c) {
    scribble(c);
    takeOut(c);
  }
  void scribble(std::uint32_t c) { scribbleDisk(places_[c]); }
  void scribbleDisk(std::uint32_t file) {
    for (std::byte& b : disk.content(file)) b = static_cast<std::byte>(random());
    disk.makeDurable(file);
  }
  // What it was being copied to takes its place, and is to be made from the others.
  void takeOut(std::uint32_t c) {
    if (node().copied == c) return takeCopy({false, true, 0});
    Raid5Node& changed = nodeToChange();
    changed.columns[c].service = {false, false, 0};
    changed.columns[c].file = kNoFile;
    plan_->generation++;
    checkpoint = synced = 0;
  }
  // At rest: the column is back, with what parity says.
  void bringBack(std::uint32_t c) {
    REQUIRE(io->atRest());
    REQUIRE(disk.idle());
    disk.clearFaults();
    for (std::uint64_t line = 0; line < node().lines; line++) regenerate(line, c);
    disk.makeDurable(places_[c]);
    disk.files()[places_[c]]->syncFailed = false;
    nodeToChange();
    restored(c);
    openPlan();
  }
  void restored(std::uint32_t c) {
    Raid5Node& changed = std::get<Raid5Node>(plan_->nodes.back());
    changed.columns[c].service = {};
    changed.columns[c].file = places_[c];
    plan_->generation++;
  }

  // Another disk in its place, to be regenerated.
  void replacing(std::uint32_t c) {
    disk.clearFaults();
    disk.files()[places_[c]]->syncFailed = false;
    scribble(c);
    Raid5Node& changed = nodeToChange();
    changed.columns[c].service = {false, true, 0};
    changed.columns[c].file = places_[c];
    checkpoint = synced = 0;
    swapPlan();
  }

  // Another disk for a column that works.
  bool canCopy() const {
    return spare_ != kNoFile && node().copied == Raid5Node::kNone && columns() == serving() && serving() < 64;
  }
  void copying(std::uint32_t c) {
    disk.clearFaults();
    disk.files()[spare_]->syncFailed = false;
    scribbleDisk(spare_);
    Raid5Node& changed = nodeToChange();
    const std::uint64_t start = spareStart(spare_);
    changed.columns.push_back({spare_, start, start + changed.prewrite, {false, true, 0}});
    changed.copied = c;
    copySynced = 0;
    swapPlan();
  }
  void dropCopy() {
    Raid5Node& changed = nodeToChange();
    changed.columns.pop_back();
    changed.copied = Raid5Node::kNone;
    plan_->generation++;
  }
  // What the column was copied to is the column, whatever becomes of the disk it was on.
  void takeCopy(Service service) {
    const std::uint32_t c = node().copied;
    Raid5Node& changed = nodeToChange();
    changed.columns[c] = changed.columns.back();
    changed.columns[c].service = service;
    changed.columns.pop_back();
    changed.copied = Raid5Node::kNone;
    std::swap(places_[c], spare_);
    plan_->generation++;
    checkpoint = synced = 0;
  }
  // In the middle of everything.
  void swapIn() {
    takeCopy({});
    quiesce();
    scribbleDisk(spare_);
    openPlan();
  }
  // The joining columns are zeroed: they are part of it from now on.
  void join() {
    Raid5Node& changed = nodeToChange();
    const std::uint32_t before = serving();
    for (std::uint32_t c = before; c < columns(); c++) changed.columns[c].service = {};
    changed.size += (columns() - before) * changed.segment * changed.lines;
    changed.serving = columns();
    for (std::uint64_t s = model.size(); s < changed.size / kBlock; s++) {
      const bool joined = Raid5Shape(changed).placeOf(s * kBlock).column >= before;
      if (joined) REQUIRE(onDisk(s) == Sector{});
      model.push_back({{onDisk(s), 1}});
    }
    swapPlan();
  }

  // ---- the device

  void open() {
    state = std::make_unique<Raid5State>();
    state->options = options_;
    hold = std::make_unique<Hold>();
    seen_ = events.size();
    openPlan();
  }
  void openPlan() {
    jobs.reset();
    io.reset();
    REQUIRE(Raid5Io::prepare(node(), *state) == 0);
    files_ = disk.files();
    current_ = plan_;
    io = std::make_unique<Raid5Io>(*current_, files_, disk, *this, *hold, *state);
    jobs = std::make_unique<Raid5Jobs>(*current_, files_, disk, *this, *io);
  }
  unsigned inFlight() const { return io->inFlight() + (jobs->running() ? 1U : 0U); }
  void quiesce() {
    jobs->cancel();
    io->retire();
    for (unsigned turns = 0; inFlight() != 0; turns++) {
      REQUIRE(turns < 100'000);
      disk.poll();
      if (disk.now() >= io->wakeAt()) io->tick();
      jobs->tick();
    }
  }
  // Another plan, in the middle of everything.
  void swapPlan() {
    quiesce();
    openPlan();
  }
  void turn() {
    disk.poll();
    if (disk.now() >= io->wakeAt()) io->tick();
    jobs->tick();
    control();
  }
  // Judges failures the way metad does: the first column that fails goes out of service.
  void control() {
    if (hold->closing() && io->requests() == 0) {
      hold->announce();
      wait_ = random() % 6;
    }
    if (hold->number() == 0) return;
    if (wait_ > 0) {
      wait_--;
      return;
    }
    jobs->cancel();
    if (inFlight() != 0) return;
    bool changed = false;
    for (; seen_ < events.size(); seen_++) {
      const ComponentFault& fault = events[seen_];
      const std::uint32_t file = fault.component - 100;
      if (file == spare_) {
        if (node().copied == Raid5Node::kNone) continue;
        dropCopy();
        changed = true;
        continue;
      }
      const auto place = std::find(places_.begin(), places_.end(), file);
      REQUIRE(place != places_.end());
      const auto c = static_cast<std::uint32_t>(place - places_.begin());
      const bool another = missing() && *missing() != c;
      if (fault.op == ComponentOp::read || another || node().columns[c].file == kNoFile) continue;
      takeOut(c);
      changed = true;
    }
    if (changed) openPlan();
    decisions++;
    hold->settle(hold->number(), true);
    hold->release([this](Request& r) { io->submit(r); });
  }
  void submit(Request& r) {
    hold->order(r);
    if (hold->closed()) return hold->park(r, false);
    io->submit(r);
  }
  void rest() {
    for (unsigned turns = 0; !io->atRest() || io->inFlight() != 0 || hold->closed(); turns++) {
      REQUIRE(turns < 1'000'000);
      turn();
      if (disk.idle()) disk.advance(options_.ageNanos);
    }
  }

  // Power is lost; then, maybe, a column with it. Comes back with the journal replayed, also through further crashes.
  // False: it was told that something may be lost, so nothing more can be said of what there is.
  bool crash(bool loseColumn) {
    disk.crash();
    for (unsigned turns = 0; inFlight() != 0; turns++) {
      REQUIRE(turns < 10'000);
      disk.poll();
      io->tick();
      jobs->cancel();
    }
    hold->drop(ESHUTDOWN);
    jobs.reset();
    io.reset();
    disk.clearFaults();
    std::optional<std::uint32_t> rotten;
    if (ringsFail && random() % 4 == 0) rotten = damageRing();
    for (bool again = true; again;) {
      again = false;
      if (loseColumn && random() % 2 == 0) rotten && !missing() ? lose(*rotten) : loseOne();
      disk.reopen();
      nodeToChange().replay = true;
      const std::shared_ptr<const Plan> plan = plan_;
      files_ = disk.files();
      replayed_ = false;
      Raid5Replay replay(*plan, files_, disk, *this, onReplayed, this);
      replay.start();
      const std::uint64_t until = random() % 3 == 0 ? 1 + random() % 60 : UINT64_MAX;
      for (std::uint64_t turns = 0; !replayed_; turns++) {
        REQUIRE(turns < 1'000'000);
        if (turns == until) {
          disk.crash();
          again = true;
          replayCrashes++;
        }
        disk.poll();
      }
      if (again) continue;
      REQUIRE(result.error == 0);
      if (result.damaged != 0) {
        // What the journal of one column lacks is made up for by the others, unless one of these is missing.
        CHECK((rotten && missing() && *missing() != *rotten));
        ringsTold++;
        return false;
      }
      if (rotten && !(missing() && *missing() == *rotten)) ringsBorne++;
    }
    if (loseColumn && random() % 2 == 0) loseOne();
    Raid5Node& changed = nodeToChange();
    changed.replay = false;
    changed.epoch++;
    crashes++;
    replays += result.groups;
    torn += result.torn;
    open();
    return true;
  }
  // In the ring of one column, which is returned, some blocks cannot be read, or hold something else than was written
  // there. Not where the last group may lie: what it lacks cannot be told from what was on its way when power failed.
  std::uint32_t damageRing() {
    std::uint32_t c = static_cast<std::uint32_t>(random() % serving());
    while (node().columns[c].file == kNoFile) c = (c + 1) % serving();
    const std::uint64_t ring = node().prewrite / kBlock - 1;
    const std::uint64_t first = node().columns[c].prewrite + kBlock;
    const bool unreadable = random() % 2 == 0;
    std::vector<bool> last(ring, false);
    if (!unreadable) markLast(last);
    for (std::uint64_t left = 1 + random() % 4; left != 0; left--) {
      const std::uint64_t at = random() % ring;
      const std::uint64_t end = std::min(ring, at + 1 + random() % (random() % 3 == 0 ? 12 : 2));
      if (unreadable) {
        disk.damage(places_[c], first + at * kBlock, first + end * kBlock);
        continue;
      }
      for (std::uint64_t block = at; block < end; block++) {
        if (!last[block]) rot(c, block);
      }
    }
    if (!unreadable) disk.makeDurable(places_[c]);
    return c;
  }
  // Blocks of the ring where those groups lie of which one is the last that a replay finds.
  void markLast(std::vector<bool>& blocks) {
    Raid5Journal& journal = state->journal;
    for (const Raid5Group& group : state->groups) {
      if (group.sequence == 0 || group.sequence != journal.last()) continue;
      const std::uint64_t end = group.position + group.span;
      std::uint64_t at = group.position;
      for (std::uint64_t before = 1; before <= state->groups.size() && before < group.sequence; before++) {
        if (const Raid5Record* const record = journal.find(group.sequence - before)) at = journal.positionOf(*record);
      }
      for (; at != end && at != end % blocks.size(); at = (at + 1) % blocks.size()) blocks[at] = true;
    }
  }
  void rot(std::uint32_t c, std::uint64_t block) {
    const std::uint64_t at = node().columns[c].prewrite + (1 + block) * kBlock;
    const auto bytes = disk.content(places_[c]).subspan(at, kBlock);
    const auto other = static_cast<std::uint32_t>(random() % serving());
    const std::uint64_t ring = node().prewrite / kBlock - 1;
    std::span<const std::byte> from;
    switch (random() % 5) {
      case 0: bytes[random() % kBlock] ^= static_cast<std::byte>(1U << random() % 8); return;
      case 1: std::fill(bytes.begin(), bytes.end(), std::byte{0}); return;
      case 2:  // torn inside the sector
        for (std::size_t i = 1 + random() % (kBlock - 1); i < kBlock; i++) bytes[i] = static_cast<std::byte>(random());
        return;
      case 3:  // the same place of another column
        from = disk.content(places_[other]).subspan(node().columns[other].prewrite + (1 + block) * kBlock, kBlock);
        break;
      default:  // another one of the same column
        from = disk.content(places_[c]).subspan(node().columns[c].prewrite + (1 + random() % ring) * kBlock, kBlock);
    }
    std::memmove(bytes.data(), from.data(), kBlock);
  }
  // Any one, or the one in regeneration.
  void loseOne() { lose(missing().value_or(static_cast<std::uint32_t>(random() % serving()))); }
  static void onReplayed(void* owner, const Raid5Replayed& found) noexcept {
    auto& self = *static_cast<Rig5*>(owner);
    self.replayed_ = true;
    self.result = found;
  }

  // ---- VolumeHost

  void componentError(const ComponentFault& fault) noexcept override { events.push_back(fault); }
  void resyncProgress(std::uint64_t, std::uint64_t, std::uint64_t) noexcept override {}
  void resyncCheckpoint(std::uint64_t, std::uint64_t done) noexcept override {
    if (copies) {
      copySynced = done;
    } else {
      checkpoint = synced = done;
    }
  }
  void verifyMismatch(std::uint64_t, std::uint64_t block, std::uint64_t blocks) noexcept override {
    mismatches.emplace_back(block, blocks);
  }
  void resyncEnded(const ResyncEnd& end) noexcept override { ends.push_back(end); }
  void replayed(const Raid5Replayed&) noexcept override {}
  void attend() noexcept override {}
  void componentRepaired(std::uint32_t, std::uint64_t, std::uint64_t) noexcept override {}
  std::uint64_t now() noexcept override { return disk.now(); }

  std::uint32_t spare() const { return spare_; }
  std::uint32_t fileOf(std::uint32_t c) const { return places_[c]; }
  bool isDiskOf(std::uint32_t component, std::uint32_t c) const { return component == 100 + places_[c]; }

  std::mt19937_64 random;

 private:
  static std::uint64_t spareStart(std::uint32_t file) { return file % 3 * kBlock; }

  std::vector<std::uint64_t> sizes_;
  std::shared_ptr<Plan> plan_;

 public:
  SimBackend disk;
  const std::uint64_t turnNanos;
  std::unique_ptr<Raid5State> state;
  std::unique_ptr<Hold> hold;
  std::unique_ptr<Raid5Io> io;
  std::unique_ptr<Raid5Jobs> jobs;
  std::uint64_t checkpoint = 0;  // of the column in regeneration: where it may go on
  std::uint64_t synced = 0;      // and where it may do so after a crash
  std::uint64_t copySynced = 0;  // the same of what a column is copied to
  bool copies = false;           // that is the job
  std::vector<std::pair<std::uint64_t, std::uint64_t>> mismatches;
  std::vector<ResyncEnd> ends;
  std::vector<ComponentFault> events;
  std::vector<std::vector<Version>> model;  // by sector, oldest first
  Raid5Replayed result;
  unsigned crashes = 0;
  unsigned replayCrashes = 0;
  bool ringsFail = false;   // a crash may find one damaged
  unsigned ringsBorne = 0;  // replays that found one column's journal damaged
  unsigned ringsTold = 0;   // where that could not be made up for
  unsigned decisions = 0;
  std::uint64_t replays = 0;
  std::uint64_t torn = 0;

 private:
  Raid5Options options_;
  std::vector<ComponentFile*> files_;
  std::shared_ptr<const Plan> current_;
  bool replayed_ = false;
  std::vector<std::uint32_t> places_;  // the disk of each column
  std::uint32_t spare_ = kNoFile;      // one that is none, or that a column is copied to
  std::size_t seen_ = 0;
  std::uint64_t wait_ = 0;
};

// Random requests, several at once, never two that overlap unless both read.
class Load5 {
 public:
  explicit Load5(Rig5& rig) : rig_(rig) {}

  struct Job : Call {
    using Call::Call;
    std::uint64_t begun = 0;
  };

  std::uint64_t size() const { return rig_.node().size; }
  bool overlaps(std::uint64_t offset, std::uint64_t length) const {
    return std::any_of(jobs_.begin(), jobs_.end(), [&](const Job& job) {
      // By whole sectors: a change of a part changes the sector's version.
      return job.length != 0 && job.offset / kBlock * kBlock < offset + length &&
             offset < (job.offset + job.length + kBlock - 1) / kBlock * kBlock;
    });
  }

  void begin() {
    auto& random = rig_.random;
    const unsigned what = static_cast<unsigned>(random() % 100);
    if (what < 12) return add(Op::flush, 0, 0);
    const bool aligned = random() % 4 != 0;
    const std::uint64_t unit = aligned ? kBlock : 1;
    const std::uint64_t most = random() % 6 == 0 ? 200 * kBlock : random() % 2 == 0 ? 8 * kBlock : 24 * kBlock;
    const std::uint64_t length = std::min(size(), (1 + random() % (most / unit)) * unit);
    std::uint64_t offset = random() % ((size() - length) / unit + 1) * unit;
    if (random() % 3 == 0) offset = std::min(last_, size() - length);  // a stream
    if (overlaps(offset / kBlock * kBlock, length + 2 * kBlock)) return;
    last_ = offset + length;
    add(what < 45 ? Op::read : what < 90 ? Op::write : what < 96 ? Op::zero : Op::trim, offset, length);
  }

  void add(Op op, std::uint64_t offset, std::uint64_t length) {
    Job& job = jobs_.emplace_back(op, offset, length);
    job.begun = count_;
    job.fua = (op == Op::write || op == Op::zero) && rig_.random() % 8 == 0;
    if (op == Op::write) {
      for (std::byte& b : job.buffer) b = static_cast<std::byte>(rig_.random());
      // Now and then what looks like a header of the journal.
      if (rig_.random() % 10 == 0 && length >= kBlock) std::memcpy(job.buffer.data(), &journal::kMagic, 4);
    }
    if (op == Op::write || op == Op::zero)
      eachSector(job, [&](std::uint64_t sector, std::size_t from, std::size_t n) {
        Version next{rig_.model[sector].back().data, 0};
        const std::uint64_t at = sector * kBlock + from - job.offset;
        if (op == Op::zero) {
          std::memset(next.data.data() + from, 0, n);
        } else {
          std::memcpy(next.data.data() + from, job.buffer.data() + at, n);
        }
        rig_.model[sector].push_back(next);
      });
    if (op == Op::read && !rig_.hold->closed()) checkLent(job);
    rig_.submit(job);
    reap();
  }

  // No write of it is under way: pages that a socket would get, and sums of them, have to be what a read answers.
  void checkLent(const Job& job) {
    std::array<FileRange, 512> ranges;
    const std::size_t count = rig_.io->ranges(job.offset, job.length, ranges);
    lent += count != 0 ? 1 : 0;
    const Raid5Shape shape(rig_.node());
    std::uint64_t at = job.offset;
    bool summed = false;
    for (auto rest = std::span<const FileRange>(ranges).first(count); !rest.empty();) {
      const auto piece = nextPiece(rest);
      REQUIRE(!piece.empty());
      const Raid5Place place = shape.placeOf(at);
      const std::uint64_t length = piece[0].length;
      REQUIRE(length <= shape.segment() - place.within);
      std::vector<std::byte> seen(length);
      std::size_t used = 0;
      const bool itself = rig_.node().columns[place.column].service.readable;
      for (std::uint32_t c = 0; c < rig_.serving(); c++) {
        if ((c == place.column) != itself) continue;
        REQUIRE(rig_.node().columns[c].service.readable);
        REQUIRE(used < piece.size());
        const FileRange& range = piece[used++];
        REQUIRE(range.length == length);
        REQUIRE(range.offset == rig_.node().columns[c].start + place.line * shape.segment() + place.within);
        const std::byte* const from = rig_.data(c).data() + (range.offset - rig_.node().columns[c].start);
        for (std::size_t i = 0; i < length; i++) seen[i] ^= from[i];
      }
      REQUIRE(used == piece.size());
      summed = summed || !itself;
      for (std::uint64_t done = 0; done < length;) {
        const std::uint64_t from = (at + done) % kBlock;
        const std::uint64_t n = std::min(kBlock - from, length - done);
        const auto& now = rig_.model[(at + done) / kBlock].back().data;
        INFO("byte " << at + done << " of column " << place.column << (itself ? "" : ", summed"));
        REQUIRE(std::memcmp(now.data() + from, seen.data() + done, n) == 0);
        done += n;
      }
      at += length;
    }
    if (count != 0) REQUIRE(at == job.offset + job.length);
    sums += summed ? 1 : 0;
  }

  // Looks at what has been answered. `errors`: how many may fail, because too much is missing.
  void reap() {
    for (auto job = jobs_.begin(); job != jobs_.end();) {
      if (job->doneCount == 0) {
        ++job;
        continue;
      }
      REQUIRE(job->doneCount == 1);
      CHECK(job->error == 0);
      finished(*job);
      job = jobs_.erase(job);
    }
  }

  void drain() {
    for (unsigned turns = 0; !jobs_.empty(); turns++) {
      REQUIRE(turns < 100'000);
      rig_.turn();
      if (rig_.disk.idle()) rig_.disk.advance(1'000'000);
      reap();
    }
  }

  // The device is gone: what was not answered may have happened or not.
  void forget() { jobs_.clear(); }
  std::size_t underWay() const { return jobs_.size(); }
  unsigned lent = 0;  // reads whose pages could have been
  unsigned sums = 0;  // of these, those with sums among them

  // Reads everything; each sector must be one of its versions, and is that from now on.
  void settle() {
    for (std::uint64_t at = 0; at < size();) {
      Call call(Op::read, at, std::min<std::uint64_t>(size() - at, (1 + rig_.random() % 100) * kBlock));
      rig_.submit(call);
      for (unsigned turns = 0; call.doneCount == 0; turns++) {
        REQUIRE(turns < 1'000'000);
        rig_.turn();
      }
      REQUIRE(call.error == 0);
      for (std::uint64_t done = 0; done < call.length; done += kBlock) {
        auto& versions = rig_.model[(at + done) / kBlock];
        const auto found = std::find_if(versions.rbegin(), versions.rend(), [&](const Version& v) {
          return std::memcmp(v.data.data(), call.buffer.data() + done, kBlock) == 0;
        });
        INFO("sector " << (at + done) / kBlock << " of " << versions.size() << " versions");
        REQUIRE(found != versions.rend());
        versions = {{found->data, 1}};
      }
      at += call.length;
    }
    count_ = 1;
  }

 private:
  template <typename Visit>
  void eachSector(const Job& job, Visit visit) {
    for (std::uint64_t at = job.offset; at < job.offset + job.length;) {
      const std::uint64_t from = at % kBlock;
      const std::uint64_t n = std::min(kBlock - from, job.offset + job.length - at);
      visit(at / kBlock, from, n);
      at += n;
    }
  }

  void finished(const Job& job) {
    count_++;
    if (job.op == Op::read) {
      eachSector(job, [&](std::uint64_t sector, std::size_t from, std::size_t n) {
        const std::uint64_t at = sector * kBlock + from - job.offset;
        INFO("sector " << sector);
        REQUIRE(std::memcmp(rig_.model[sector].back().data.data() + from, job.buffer.data() + at, n) == 0);
      });
    }
    if (job.op == Op::write || job.op == Op::zero) {
      eachSector(job, [&](std::uint64_t sector, std::size_t, std::size_t) {
        auto& versions = rig_.model[sector];
        versions.back().done = count_;
        if (job.fua) versions.erase(versions.begin(), versions.end() - 1);
      });
    }
    if (job.op != Op::flush) return;
    for (auto& versions : rig_.model) {
      std::size_t newest = 0;
      for (std::size_t i = 0; i < versions.size(); i++) {
        if (versions[i].done != 0 && versions[i].done <= job.begun) newest = i;
      }
      versions.erase(versions.begin(), versions.begin() + static_cast<std::ptrdiff_t>(newest));
    }
  }

  Rig5& rig_;
  std::list<Job> jobs_;
  std::uint64_t count_ = 1;
  std::uint64_t last_ = 0;
};

// What an administrator and metad do, one step at a time: failed columns are replaced and regenerated, columns join,
// parity is compared and repaired, plans change for no reason.
class Admin5 {
 public:
  explicit Admin5(Rig5& rig) : rig_(rig) {}

  unsigned regenerated = 0;
  unsigned compared = 0;
  unsigned joined = 0;
  unsigned resumed = 0;
  unsigned copied = 0;
  unsigned copiesResumed = 0;
  bool tests = false;  // power should fail now: what was done last is to be seen on the disks

  void crashed() {
    working_ = whole_ = tests = false;
    seen_ = rig_.ends.size();
    rig_.checkpoint = rig_.synced;
  }
  void step() {
    if (rig_.hold->closed()) return;
    auto& random = rig_.random;
    if (working_ && rig_.ends.size() > seen_) over();
    if (whole_) return swapWhole();
    if (random() % 60 != 0) return;
    if (working_) {
      if (random() % 8 == 0) rig_.swapPlan();  // it ends as cancelled
      return;
    }
    const auto missing = rig_.missing();
    Raid5Job job;
    of_ = rig_.node().copied;
    job.bufferBlocks = static_cast<std::uint32_t>(1 + random() % 40);
    job.checkpointMillis = 0;
    if (missing && !rig_.node().columns[*missing].service.writable) {
      // What is copied needs none of the others.
      if (of_ != Raid5Node::kNone && random() % 2 == 0) {
        startCopy(job);
        return begin(job);
      }
      if (random() % 4 == 0) rig_.replacing(*missing);
      return;
    }
    if (missing) {
      job.kind = Raid5Work::regenerate;
      job.columns = ColumnSet{1} << *missing;
      job.from = rig_.checkpoint;
      slowly(job);
      resumed += job.from != 0 ? 1 : 0;
    } else if (rig_.canCopy() && random() % 2 == 0) {
      rig_.copying(static_cast<std::uint32_t>(random() % rig_.serving()));
      return failNow();
    } else if (rig_.node().copied != Raid5Node::kNone && random() % 4 != 0) {
      startCopy(job);
    } else if (rig_.columns() != rig_.serving() && random() % 2 == 0) {
      job.kind = Raid5Work::initialise;
      for (std::uint32_t c = rig_.serving(); c < rig_.columns(); c++) job.columns |= ColumnSet{1} << c;
    } else {
      job.kind = Raid5Work::parity;
      // What a column is copied to would miss it.
      job.repair = random() % 2 == 0 && rig_.node().copied == Raid5Node::kNone;
    }
    begin(job);
  }

 private:
  void begin(const Raid5Job& job) {
    kind_ = job.kind;
    rig_.copies = kind_ == Raid5Work::copy;
    working_ = true;
    REQUIRE(rig_.jobs->start(job) == 0);
  }
  // One Io on what a column is copied to, or on the column, that goes wrong: mostly not one of the job's own.
  void failNow() {
    auto& random = rig_.random;
    if (random() % 3 == 0) return;
    rig_.disk.fault({.file = random() % 2 == 0 ? rig_.spare() : rig_.fileOf(rig_.node().copied),
                     .op = random() % 2 == 0 ? IoOp::write : IoOp::sync,
                     .skip = static_cast<unsigned>(random() % 60),
                     .times = 1});
  }
  void startCopy(Raid5Job& job) {
    job.kind = Raid5Work::copy;
    job.columns = ColumnSet{1} << of_;
    job.from = rig_.copySynced;
    slowly(job);
    copiesResumed += job.from != 0 ? 1 : 0;
  }
  // So slow that something comes between now and then.
  void slowly(Raid5Job& job) {
    auto& random = rig_.random;
    job.checkpointMillis = static_cast<std::uint32_t>(random() % 2);
    const std::uint64_t nanos = rig_.turnNanos * (50 + random() % 300);
    if (random() % 2 == 0) job.bytesPerSecond = rig_.node().segment * rig_.node().lines * 1'000'000'000 / nanos;
  }
  // Either of them is the column until there is another plan, and for as long as that takes.
  void swapWhole() {
    if (rig_.node().copied != of_) {
      whole_ = false;
    } else if (rig_.random() % 40 == 0) {
      whole_ = false;
      copied++;
      rig_.swapIn();
      tests = rig_.random() % 2 == 0;
    }
  }
  void over() {
    const ResyncEnd end = rig_.ends[seen_];
    seen_ = rig_.ends.size();
    working_ = false;
    CHECK(end.mismatches == 0);
    const auto missing = rig_.missing();
    if (end.outcome == ResyncOutcome::failed && missing && rig_.isDiskOf(end.component, *missing)) {
      rig_.takeOut(*missing);
      return rig_.swapPlan();
    }
    const bool sameCopy = of_ != Raid5Node::kNone && rig_.node().copied == of_;
    if (kind_ == Raid5Work::copy) {
      if (!sameCopy) return;
      if (end.outcome == ResyncOutcome::failed && end.component == 100 + rig_.spare()) {
        rig_.dropCopy();
        return rig_.swapPlan();
      }
      whole_ = end.outcome == ResyncOutcome::done;
      return;
    }
    if (end.outcome != ResyncOutcome::done) return;
    compared += kind_ == Raid5Work::parity ? 1 : 0;
    if (kind_ == Raid5Work::regenerate) {
      rig_.restored(*missing);
      rig_.swapPlan();
      regenerated++;
    }
    if (kind_ == Raid5Work::initialise) {
      if (rig_.missing()) return;
      rig_.join();  // in the middle of everything
      joined++;
    }
  }

  Rig5& rig_;
  bool working_ = false;
  bool whole_ = false;  // the copy is the column's equal
  Raid5Work kind_ = Raid5Work::parity;
  std::uint32_t of_ = Raid5Node::kNone;
  std::size_t seen_ = 0;
};

inline Shape5 anyShape(std::mt19937_64& random) {
  constexpr std::uint64_t interlaces[] = {2, 4, 8, 11, 16, 17, 24, 64};
  Shape5 shape;
  shape.originals = static_cast<std::uint32_t>(3 + random() % 6);
  shape.columns = shape.originals + (random() % 3 == 0 ? static_cast<std::uint32_t>(random() % 5) : 0);
  if (shape.columns > shape.originals && random() % 2 == 0)
    shape.joining = 1 + static_cast<std::uint32_t>(random() % (shape.columns - shape.originals));
  shape.interlace = interlaces[random() % std::size(interlaces)];
  shape.lines = 1 + random() % (400 / shape.interlace);
  shape.prewrite = 42 + random() % (random() % 3 == 0 ? 400 : 40);
  const std::uint64_t capacity = shape.interlace * shape.lines * (shape.columns - shape.joining - 1);
  shape.less = random() % std::min<std::uint64_t>(capacity, 9);
  shape.spare = shape.joining == 0 && random() % 2 == 0;
  return shape;
}

}  // namespace metadisk::test
