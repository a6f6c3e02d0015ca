// A RAID5 device on disks that fail, hang, wear out and come back, under a control plane that judges and acts as metad
// does: native/engine/device.cc for what waits for what, src/meta/decide.ts and raid5state.ts for what errors mean.
//
// The world knows at every turn what cannot be read and what cannot be written, and so when a client may be told EIO.
#pragma once

#include <cerrno>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>

#include "md/raid5.h"
#include "property/native/raid5_rig.h"
#include "property/native/raid5_versions.h"

namespace metadisk::test {

// What befalls the disks.
struct Troubles {
  bool sectors = false;  // some cannot be read until they are rewritten, or ever, or cannot be written
  bool failures = false;
  bool second = false;  // while another column is out
  bool hangs = false;
  bool crashes = false;
};

enum class Is : std::uint8_t { okay, erred, lastErred, resync };

class World5 final : public VolumeHost {
 public:
  World5(const Shape5& shape, std::uint64_t seed, SimOptions sim, Raid5Options options, std::uint64_t limitNanos)
      : random(seed * 6007 + 3), node_(made(shape)), disk(seed, sizes_, sim), sick_(sizes_.size()) {
    columns_ = node_.serving;
    for (std::uint32_t c = 0; c < node_.columns.size(); c++) fileOf_.push_back(c);
    for (std::uint32_t f = columns_; f < sizes_.size(); f++) scribble(f);
    states_.assign(columns_, Is::okay);
    unreadableAt_.assign(columns_, 0);
    unreadable_.assign(columns_, false);
    readErrors_.assign(sizes_.size(), 0);
    copies_ = random() % 2 == 0;
    readErrorLimit_ = random() % 3 == 0 ? static_cast<unsigned>(random() % 5) : UINT32_MAX;
    state.raid5Options = options;
    disk.limit(limitNanos);
    for (std::uint64_t line = 0; line < node_.lines; line++) layParity(line);
    for (std::uint32_t c = 0; c < columns_; c++) disk.makeDurable(c);
    for (std::uint64_t s = 0; s < node_.size / kBlock; s++) versions.add(onDisk(s));
    mount(false);
  }
  ~World5() override { stop(); }
  // Nothing is on its way any more, and everybody is answered.
  void stop() noexcept {
    if (volume == nullptr) return;
    end();
    state.hold.drop(ESHUTDOWN);
    volume.reset();
  }

  // ---- the columns

  std::uint32_t columns() const { return columns_; }
  std::uint64_t size() const { return std::get<Raid5Node>(plan_->root()).size; }
  Raid5Shape shape() const { return Raid5Shape(node_); }
  std::uint64_t startOf(std::uint32_t c) const { return starts_[fileOf_[c]] + node_.prewrite; }
  std::span<std::byte> data(std::uint32_t c) { return disk.content(fileOf_[c]).subspan(startOf(c)); }
  Sector onDisk(std::uint64_t sector) {
    const Raid5Place place = shape().placeOf(sector * kBlock);
    Sector out;
    std::memcpy(out.data(), data(place.column).data() + place.line * node_.segment + place.within, kBlock);
    return out;
  }
  // The first line whose parity is wrong.
  std::optional<std::uint64_t> wrongLine() {
    for (std::uint64_t line = 0; line < node_.lines; line++) {
      const auto sum = sumOf(line, columns_);
      if (std::any_of(sum.begin(), sum.end(), [](std::uint64_t word) { return word != 0; })) return line;
    }
    return std::nullopt;
  }
  bool allOkay() const {
    return std::all_of(states_.begin(), states_.end(), [](Is is) { return is == Is::okay; });
  }
  Is is(std::uint32_t c) const { return states_[c]; }

  // ---- what befalls them

  void inflict(const Troubles& t) {
    if (random() % 60 != 0) return;
    if (t.sectors && random() % 2 == 0) return damage();
    if (t.failures && random() % 3 == 0) return fail(t.second, false);
    if (t.hangs && random() % 3 == 0) return fail(t.second, true);
  }
  // Everything works again, and holds what it held.
  void mendAll() {
    for (std::uint32_t f = 0; f < sizes_.size(); f++) mend(f);
  }

  // ---- turns

  void turn() {
    turns++;
    disk.poll();
    if (disk.now() >= volume->wakeAt()) volume->tick();
    control();
    look();
  }
  // Clients have to wait.
  bool held() const { return installing_ || state.hold.closed(); }
  // As a device does; whoever comes too late to be kept out is taken as well.
  void submit(Request& r) {
    state.hold.order(r);
    if (state.hold.closed()) return state.hold.park(r, false);
    volume->submit(r);
  }
  // What a column that works was copied to is its equal.
  bool rightCopy() {
    if (!copyIsWhole_) return true;
    const auto is = disk.content(copyFile_).subspan(starts_[copyFile_] + node_.prewrite, node_.lines * node_.segment);
    return std::memcmp(is.data(), data(*copyOf_).data(), is.size()) == 0;
  }
  // Nothing that was told of waits for a decision.
  bool decided() const { return deciding_ == 0 && !installing_ && seen_ == events_.size() && !state.hold.closed(); }
  // Nothing is on its way besides.
  bool rests() const {
    const Raid5State& raid5 = *state.raid5;
    return decided() && volume->inFlight() == 0 && raid5.cache->oldestDirty() == nullptr &&
           std::all_of(raid5.groups.begin(), raid5.groups.end(),
                       [](const Raid5Group& g) { return g.phase == Raid5Group::Phase::idle; });
  }

  // For whoever looks for the reason of something: TRACE=1.
  template <typename... What>
  void trace(const What&... what) {
    static const bool wanted = std::getenv("TRACE") != nullptr;
    if (!wanted) return;
    std::ostringstream out;
    (out << ... << what);
    std::fprintf(stderr, "%llu %s | %s\n", static_cast<unsigned long long>(turns), out.str().c_str(),
                 volume != nullptr ? described().c_str() : "");
  }
  std::string described() const {
    std::ostringstream out;
    for (std::uint32_t c = 0; c < columns_; c++) {
      const Sick& s = sick_[fileOf_[c]];
      out << (c == 0 ? "columns" : ",") << " "
          << "+-!>"[static_cast<int>(states_[c])] << "+-!>"[static_cast<int>(mounted_[c])] << (s.reads ? "r" : "")
          << (s.writes ? "w" : "") << (s.syncs ? "s" : "") << (s.hangs ? "h" : "") << (s.worn ? "b" : "")
          << (disk.hangs(fileOf_[c]) ? "H" : "") << (files_[fileOf_[c]]->syncFailed ? "S" : "");
    }
    if (state.raid5 == nullptr) return out.str();
    const Raid5State& raid5 = *state.raid5;
    out << "; in flight " << volume->inFlight() << ", requests " << volume->requests() << ", job "
        << volume->resyncing() << ", hold " << state.hold.closed() << state.hold.closing() << ", deciding " << deciding_
        << ", installing " << installing_ << ", errors " << events_.size() - seen_ << "; lost rows " << raid5.lostRows
        << ", dirty pages " << raid5.cache->dirtyPages() << "/" << raid5.cache->pages() << ", groups";
    for (const Raid5Group& g : raid5.groups) {
      out << " " << static_cast<int>(g.phase) << ":" << g.sequence << "/" << std::hex << g.mask << "/" << g.todo
          << std::dec;
    }
    out << ", tail " << raid5.journal.durableTail() << ", disk idle " << disk.idle();
    return out.str();
  }

  // What an administrator does; `eager`: nothing but what makes it whole.
  void admin(bool eager) {
    if (!decided()) return;
    if (ended_) return jobOver();
    if (copyIsWhole_ && random() % 20 == 0) return takeCopy();
    if (!eager && random() % 40 != 0) return;
    const auto c = static_cast<std::uint32_t>(random() % columns_);
    if (!eager && random() % 3 == 0) {
      const auto f = static_cast<std::uint32_t>(random() % sizes_.size());
      if (ill(f)) mend(f);
      return;
    }
    if (states_[c] == Is::erred) return replace(c);
    if (states_[c] == Is::lastErred) return reopen(c);
    if (states_[c] == Is::resync) return start(Raid5Work::regenerate, c);
    if (joins() && random() % 2 == 0) return joinFailed_ ? tryToJoin() : start(Raid5Work::initialise, c);
    if (copyOf_ && !copyIsWhole_ && random() % 4 != 0) return start(Raid5Work::copy, *copyOf_);
    if (eager) return;
    if (copies_ && !copyOf_ && !joins() && random() % 3 == 0) return copy(c);
    if (allOkay() && !copyOf_ && random() % 3 == 0) return start(Raid5Work::parity, c);
    if (random() % 3 == 0) install();
  }

  // ---- when a client may be told EIO: `since` is the turn its request began

  // Acknowledged, and in memory alone.
  bool isDirty(std::uint64_t sector) const {
    const Raid5Place place = shape().placeOf(sector * kBlock);
    const Raid5Row* const row = state.raid5->cache->find(shape().rowOf(place));
    return row != nullptr && (row->cells[place.column].dirty >> (place.within % Raid5Shape::kPage / kBlock) & 1U) != 0;
  }
  // Where a sector's own column could not be read there, nor another one. `dirty`: sectors that were so when it began.
  bool mayFailRead(std::uint64_t offset, std::uint64_t length, std::uint64_t since,
                   const std::set<std::uint64_t>& dirty) const {
    for (std::uint64_t at = offset / kBlock * kBlock; at < offset + length; at += kBlock) {
      if (dirty.contains(at / kBlock) && isDirty(at / kBlock)) continue;
      const Raid5Place place = shape().placeOf(at);
      const std::uint64_t within = place.line * node_.segment + place.within;
      const ColumnSet bad = unreadableIn(within, within + kBlock, since);
      if ((bad >> place.column & 1U) != 0 && std::popcount(bad) > 1) return true;
    }
    return false;
  }
  // Parts of sectors are read first, by rows.
  bool mayFailWrite(std::uint64_t offset, std::uint64_t length, std::uint64_t since) const {
    const bool crowded = state.raid5->lostRows != 0;
    if (stoppedAt_ >= since || (crowded && doubleAt_ >= goodFlush)) return true;
    for (std::uint64_t at = offset / kBlock * kBlock; at < offset + length; at += kBlock) {
      const std::uint64_t row = rowAt(at);
      const std::uint64_t start = shape().rowStart(row);
      if (std::popcount(unreadableIn(start, start + shape().rowBytes(row), since)) > 1) return true;
    }
    return false;
  }
  bool mayFailFlush(std::uint64_t since) const { return stoppedAt_ >= since || doubleAt_ >= since; }

  // ---- power is lost, maybe a column with it

  void crash() {
    look();
    disk.crash();
    stop();
    state.raid5.reset();
    state.repairs = {};
    forgetErrors();
    reached_ = 0;
    for (std::uint32_t f = 0; f < sizes_.size(); f++) {
      if (sick_[f].hangs || random() % 2 == 0) mend(f);
    }
    crashes++;
    maybeLose();
    mendRings();
    crashed_ = true;
    copyIsWhole_ = false;
    bool again = true;
    for (unsigned tries = 0; again; tries++) {
      REQUIRE(tries < 100);
      again = !replay();
    }
    epoch_++;
    if (allOkay()) REQUIRE(!wrongLine());
    versions.started();
    mount(false);
  }

  // ---- VolumeHost

  void componentError(const ComponentFault& fault) noexcept override { events_.push_back(fault); }
  void resyncProgress(std::uint64_t, std::uint64_t, std::uint64_t) noexcept override {}
  void resyncCheckpoint(std::uint64_t, std::uint64_t done) noexcept override {
    if (kind_ == Raid5Work::regenerate) checkpoint_ = done;
  }
  void verifyMismatch(std::uint64_t, std::uint64_t, std::uint64_t) noexcept override {}
  void resyncEnded(const ResyncEnd& end) noexcept override { ended_ = end; }
  void replayed(const Raid5Replayed& found) noexcept override { replayed_ = found; }
  void attend() noexcept override {}
  void componentRepaired(std::uint32_t, std::uint64_t, std::uint64_t) noexcept override { repaired++; }
  std::uint64_t now() noexcept override { return disk.now(); }

  std::mt19937_64 random;

 private:
  struct Sick {
    bool reads = false;
    bool writes = false;
    bool syncs = false;
    bool hangs = false;  // some of it
    bool worn = false;   // in places
  };
  std::vector<std::uint64_t> sizes_;
  std::vector<std::uint64_t> starts_;
  Raid5Node node_;

 public:
  SimBackend disk;
  MirrorState state;
  Versions versions;
  std::unique_ptr<Volume> volume;
  std::uint64_t turns = 1;
  std::uint64_t goodFlush = 0;  // the turn in which the last one began that went well

  // What has happened.
  unsigned crashes = 0, lost = 0, replays = 0, replayCrashes = 0, unserved = 0, ringsBorne = 0;
  unsigned joined = 0, copied = 0, copiesDropped = 0, copiesUsed = 0;
  unsigned damaged = 0, repaired = 0, erred = 0, lastErred = 0, returned = 0, regenerated = 0, spared = 0, lates = 0;

 private:
  Raid5Node made(const Shape5& shape) {
    const auto plan = plan5(shape, sizes_);
    Raid5Node node = std::get<Raid5Node>(plan->root());
    for (const Raid5Column& column : node.columns) starts_.push_back(column.prewrite);
    for (int spare = 0; spare < 2; spare++) {
      starts_.push_back(0);
      sizes_.push_back(node.prewrite + node.lines * node.segment);
    }
    return node;
  }
  // Of all columns but one, or of all.
  std::vector<std::uint64_t> sumOf(std::uint64_t line, std::uint32_t besides) {
    std::vector<std::uint64_t> sum(node_.segment / 8);
    for (std::uint32_t c = 0; c < columns_; c++) {
      if (c == besides) continue;
      const std::byte* from = data(c).data() + line * node_.segment;
      for (std::size_t i = 0; i < sum.size(); i++) {
        std::uint64_t word = 0;
        std::memcpy(&word, from + i * 8, 8);
        sum[i] ^= word;
      }
    }
    return sum;
  }
  void layParity(std::uint64_t line) {
    const std::uint32_t parity = shape().parityColumn(line);
    const auto sum = sumOf(line, parity);
    std::memcpy(data(parity).data() + line * node_.segment, sum.data(), node_.segment);
  }

  // ---- trouble

  bool ill(std::uint32_t f) const {
    const Sick& s = sick_[f];
    return s.reads || s.writes || s.syncs || s.hangs || s.worn || disk.hangs(f);
  }
  void mend(std::uint32_t f) {
    if (disk.hangs(f)) lates++;
    trace("mend ", f);
    disk.mend(f);
    disk.letGo(f);
    sick_[f] = {};
  }
  void damage() {
    const std::uint32_t f = anyFile();
    const std::uint64_t length = random() % 2 == 0 ? 512 : 4096;
    const std::uint64_t ring = starts_[f];
    const std::uint64_t begin = random() % 5 == 0 ? ring : ring + node_.prewrite;
    const std::uint64_t end = begin == ring ? ring + node_.prewrite : begin + node_.lines * node_.segment;
    std::uint64_t at = begin + random() % ((end - begin + length - 1) / length) * length;
    if (begin != ring && !badRows_.empty() && random() % 3 == 0) {  // where another one is bad
      const auto row = std::next(badRows_.begin(), static_cast<std::ptrdiff_t>(random() % badRows_.size()))->first;
      at = begin + shape().rowStart(row) + random() % (shape().rowBytes(row) / kBlock) * kBlock;
    }
    damaged++;
    const std::uint64_t to = std::min(end, at + length);
    if (random() % 12 == 0) {
      disk.fault({.file = f, .op = IoOp::write, .first = at, .end = to});
      sick_[f].writes = true;
      return;
    }
    const bool worn = random() % 10 == 0;
    disk.damage(f, at, to, worn);
    sick_[f].worn = sick_[f].worn || worn;
    look();
  }
  // Of a column, or of what one is copied to.
  std::uint32_t anyFile() {
    if (copyOf_ && random() % 2 == 0) return random() % 2 == 0 ? copyFile_ : fileOf_[*copyOf_];
    return fileOf_[random() % fileOf_.size()];
  }
  void scribble(std::uint32_t f) {
    for (std::byte& b : disk.content(f)) b = static_cast<std::byte>(random());
    disk.makeDurable(f);
  }
  void fail(bool second, bool hangs) {
    const std::uint32_t f = anyFile();
    const auto c = static_cast<std::uint32_t>(std::find(fileOf_.begin(), fileOf_.end(), f) - fileOf_.begin());
    for (std::uint32_t k = 0; k < columns_ && !second; k++) {
      if (k != c && (states_[k] != Is::okay || ill(fileOf_[k]))) return;
    }
    if (std::count_if(states_.begin(), states_.end(), [](Is is) { return is != Is::okay; }) > 2) return;
    Sick& s = sick_[f];
    const unsigned what = static_cast<unsigned>(random() % 8);
    const bool reads = what < 4;
    const bool writes = what < 2 || what == 4 || what == 5;
    const bool syncs = what < 2 || what == 6 || what == 5 || what == 7;
    const unsigned skip = random() % 2 == 0 ? 0 : static_cast<unsigned>(random() % 10);
    const unsigned times = hangs && random() % 2 == 0 ? 1 + static_cast<unsigned>(random() % 3) : UINT32_MAX;
    const auto strike = [&](IoOp op) {
      disk.fault({.file = f, .op = op, .skip = skip, .times = times, .hangs = hangs});
    };
    if (reads) strike(IoOp::read);
    if (writes) strike(IoOp::write);
    if (syncs) strike(IoOp::sync);
    trace("fails ", c, reads ? " reads" : "", writes ? " writes" : "", syncs ? " syncs" : "", " hangs ", hangs,
          " after ", skip, " times ", times);
    s.hangs = s.hangs || hangs;
    s.reads = s.reads || (reads && !hangs);
    s.writes = s.writes || (writes && !hangs);
    s.syncs = s.syncs || (syncs && !hangs);
    look();
  }

  // ---- who knows what cannot be read or written

  std::uint64_t rowAt(std::uint64_t offset) const { return shape().rowOf(shape().placeOf(offset)); }
  static bool readable(Is is) { return is == Is::okay || is == Is::lastErred; }
  void look() {
    unsigned gone = 0;
    unsigned failing = 0;
    for (std::uint32_t c = 0; c < columns_; c++) {
      const Sick& s = sick_[fileOf_[c]];
      const bool hangs = s.hangs || disk.hangs(fileOf_[c]);
      unreadable_[c] = !readable(states_[c]) || !readable(mounted_[c]) || s.reads || hangs;
      if (unreadable_[c]) unreadableAt_[c] = turns;
      gone += unreadable_[c] ? 1 : 0;
      failing += states_[c] != Is::okay || mounted_[c] != Is::okay || s.reads || s.writes || s.syncs || s.worn || hangs
                     ? 1
                     : 0;
    }
    if (failing > 1) stoppedAt_ = turns;
    if (gone > 1) doubleAt_ = turns;
    badRows_.clear();
    for (std::uint32_t c = 0; c < columns_; c++) {
      for (const auto& [sector, worn] : disk.badSectors(fileOf_[c])) {
        if (sector * kBlock < startOf(c)) continue;
        const std::uint64_t at = sector * kBlock - startOf(c);
        const std::uint64_t row = shape().rowOf({at / node_.segment, 0, at % node_.segment});
        badAt_[at][c] = turns;
        auto& set = badRows_[row];
        set |= ColumnSet{1} << c;
        if (std::popcount(set) > 1 || gone > (unreadable_[c] ? 1U : 0U)) doubleAt_ = turns;
      }
    }
  }
  // Columns that could not be read, or not there, at some time since then; bytes of their data.
  ColumnSet unreadableIn(std::uint64_t begin, std::uint64_t end, std::uint64_t since) const {
    ColumnSet bad = 0;
    for (std::uint32_t c = 0; c < columns_; c++) {
      if (unreadableAt_[c] >= since) bad |= ColumnSet{1} << c;
    }
    for (auto at = badAt_.lower_bound(begin); at != badAt_.end() && at->first < end; ++at) {
      for (const auto& [c, turn] : at->second) {
        if (turn >= since) bad |= ColumnSet{1} << c;
      }
    }
    return bad;
  }

  // ---- the control plane

  bool othersInStep(std::uint32_t c) const {
    for (std::uint32_t k = 0; k < columns_; k++) {
      if (k != c && states_[k] != Is::okay) return false;
    }
    return true;
  }
  bool failed(std::uint32_t c) {
    Is& s = states_[c];
    if (s == Is::erred || s == Is::lastErred) return false;
    const bool last = s == Is::okay && !othersInStep(c);
    s = last ? Is::lastErred : Is::erred;
    (last ? lastErred : erred)++;
    trace(last ? "last erred " : "erred ", c);
    if (!last) reached_ = checkpoint_ = 0;
    if (copyOf_ == c) last ? dropCopy() : useCopy();
    return true;
  }
  // ---- a column that works is copied to a spare

  void dropCopy() {
    trace("copy dropped");
    copyOf_.reset();
    copyIsWhole_ = false;
    copiesDropped++;
  }
  // The column failed: what it was copied to is made from the others.
  void useCopy() {
    trace("copy used instead of ", *copyOf_);
    fileOf_[*copyOf_] = copyFile_;
    states_[*copyOf_] = Is::resync;
    copyOf_.reset();
    copyIsWhole_ = false;
    copiesUsed++;
  }
  void copy(std::uint32_t c) {
    const std::uint32_t f = spare();
    if (states_[c] != Is::okay || f == kNoFile || ill(f)) return;
    trace("copy ", c, " to ", f);
    copyOf_ = c;
    copyFile_ = f;
    copyIsWhole_ = false;
    install();
  }
  void takeCopy() {
    trace("copy taken for ", *copyOf_);
    fileOf_[*copyOf_] = copyFile_;
    copyOf_.reset();
    copyIsWhole_ = false;
    copied++;
    install();
  }
  std::uint32_t spare() const {
    for (std::uint32_t f = 0; f < sizes_.size(); f++) {
      if (std::find(fileOf_.begin(), fileOf_.end(), f) == fileOf_.end() && !(copyOf_ && copyFile_ == f)) return f;
    }
    return kNoFile;
  }

  // ---- columns join

  bool joins() const { return columns_ != fileOf_.size(); }
  void tryToJoin() {
    for (std::uint32_t c = columns_; c < fileOf_.size(); c++) {
      if (ill(fileOf_[c])) return;
    }
    joinFailed_ = false;
    install();
  }
  // They are zeroed.
  void join() {
    trace("joined");
    const std::uint32_t before = columns_;
    columns_ = node_.serving = static_cast<std::uint32_t>(fileOf_.size());
    node_.size += (columns_ - before) * node_.segment * node_.lines;
    states_.resize(columns_, Is::okay);
    mounted_.resize(columns_, Is::okay);  // until the plan that has them
    unreadableAt_.resize(columns_, 0);
    unreadable_.resize(columns_, false);
    for (std::uint64_t s = versions.size(); s < node_.size / kBlock; s++) {
      if (shape().placeOf(s * kBlock).column >= before) REQUIRE(onDisk(s) == Sector{});
      versions.add(onDisk(s));
    }
    joined++;
    install();
  }
  bool decide(bool starting) {
    bool changed = false;
    for (; seen_ < events_.size(); seen_++) {
      const ComponentFault& fault = events_[seen_];
      const std::uint32_t f = fault.component - 100;
      const auto at = std::find(fileOf_.begin(), fileOf_.end(), f);
      const unsigned errors = fault.op == ComponentOp::read ? ++readErrors_[f] : 0;
      if (copyOf_ && f == copyFile_) {
        dropCopy();
        changed = true;
      }
      if (at == fileOf_.end()) continue;
      const auto c = static_cast<std::uint32_t>(at - fileOf_.begin());
      if (c >= columns_) continue;  // how its zeroing ends says it
      const bool small =
          fault.op == ComponentOp::read && !fault.repairFailed && errors <= readErrorLimit_ && fault.error != ETIMEDOUT;
      const bool borne = states_[c] == Is::okay && !othersInStep(c);
      if (small && ((fault.masked && !starting) || borne)) continue;
      changed = failed(c) || changed;
    }
    return changed;
  }
  void control() {
    Hold& hold = state.hold;
    if (hold.closing() && volume->requests() == 0) {
      hold.announce();
      holdGeneration_ = mountedGeneration_;
    }
    if (installing_) {
      if (volume->inFlight() != 0) return;
      installing_ = false;
      mount(false);
    } else if (deciding_ > 1) {
      deciding_--;
      return;
    } else if (deciding_ == 1) {
      changed_ = decide(false);
      if (changed_) return install();
    } else {
      if (seen_ == events_.size() && hold.number() == 0) return;
      deciding_ = 2 + static_cast<unsigned>(random() % 12);
      case_ = hold.number();
      return;
    }
    deciding_ = 0;
    const std::uint64_t number = std::exchange(case_, 0);
    if (number == 0) return;
    const bool same = !changed_ && holdGeneration_ == mountedGeneration_;
    if (same) stoppedAt_ = turns;
    trace("settle ", !same);
    hold.settle(number, !same);
    hold.release([this](Request& r) { volume->submit(r); });
  }
  void install() {
    installing_ = true;
    volume->quiesce();
  }
  std::shared_ptr<Plan> compiled(bool replay) {
    auto plan = std::make_shared<Plan>();
    plan->generation = ++generation_;
    Raid5Node node = node_;
    node.replay = replay;
    node.epoch = epoch_;
    for (std::uint32_t f = 0; f < sizes_.size(); f++) plan->components.push_back(100 + f);
    for (std::uint32_t c = 0; c < columns_; c++) {
      const std::uint32_t f = fileOf_[c];
      const Is s = states_[c];
      const Service service{readable(s), s != Is::erred, s == Is::lastErred ? c + 1 : 0};
      node.columns[c] = {s == Is::erred ? kNoFile : f, starts_[f], starts_[f] + node_.prewrite, service};
    }
    for (std::uint32_t c = columns_; c < fileOf_.size(); c++) {
      const std::uint32_t f = fileOf_[c];
      node.columns[c] = {joinFailed_ ? kNoFile : f, starts_[f], starts_[f] + node_.prewrite, {false, !joinFailed_, 0}};
    }
    if (copyOf_) {
      node.copied = *copyOf_;
      node.columns.push_back({copyFile_, starts_[copyFile_], starts_[copyFile_] + node_.prewrite, {false, true, 0}});
    }
    plan->nodes.emplace_back(std::move(node));
    return plan;
  }
  void mount(bool replay) {
    trace("mount ", replay);
    volume.reset();
    plan_ = compiled(replay);
    mounted_ = states_;
    mountedGeneration_ = generation_;
    // What no plan used is opened anew.
    std::set<std::uint32_t> used;
    files_ = disk.files();
    for (const Raid5Column& column : std::get<Raid5Node>(plan_->root()).columns) {
      if (column.file != kNoFile) used.insert(column.file);
    }
    for (const std::uint32_t f : used) {
      if (used_.contains(f)) continue;
      files_[f]->syncFailed = files_[f]->suspect = false;
      readErrors_[f] = 0;
    }
    used_ = std::move(used);
    volume = std::make_unique<Volume>(plan_, files_, disk, *this, state);
    volume->begin();
  }

  // ---- the administrator

  void replace(std::uint32_t c) {
    if (std::count(states_.begin(), states_.end(), Is::resync) != 0) return;
    std::uint32_t f = fileOf_[c];
    if (random() % 3 == 0) {
      if (spare() != kNoFile) f = spare();
    }
    if (ill(f)) return;
    if (f != fileOf_[c]) spared++;
    trace("replace ", c, " by ", f);
    fileOf_[c] = f;
    states_[c] = Is::resync;
    reached_ = checkpoint_ = 0;
    install();
  }
  // It answers again. After a sync that failed only a start tells what it has lost.
  void reopen(std::uint32_t c) {
    if (ill(fileOf_[c])) return;
    if (files_[fileOf_[c]]->syncFailed) {
      wantsStart = true;
      return;
    }
    states_[c] = Is::okay;
    returned++;
    trace("returned ", c);
    install();
  }
  void start(Raid5Work kind, std::uint32_t c) {
    if (volume->resyncing()) return;
    Raid5Job job;
    job.kind = kind;
    job.job = ++job_;
    job.bufferBlocks = static_cast<std::uint32_t>(1 + random() % 40);
    job.checkpointMillis = static_cast<std::uint32_t>(random() % 2);
    job.repair = random() % 2 == 0;
    if (kind == Raid5Work::regenerate) {
      job.columns = ColumnSet{1} << c;
      job.from = std::max(reached_, checkpoint_);
      target_ = c;
    }
    if (kind == Raid5Work::copy) job.columns = ColumnSet{1} << c;
    for (std::uint32_t k = columns_; kind == Raid5Work::initialise && k < fileOf_.size(); k++) {
      job.columns |= ColumnSet{1} << k;
    }
    kind_ = kind;
    of_ = copyOf_;
    const int error = volume->startRaid5(job);
    trace("job ", static_cast<int>(kind), " of ", c, " from ", job.from, ": ", error);
    // Another column is Last Erred.
    const bool waits = kind == Raid5Work::regenerate || kind == Raid5Work::copy;
    if (error != 0) REQUIRE((error == EIO && waits && !othersInStep(c)));
  }
  void jobOver() {
    const ResyncEnd over = *std::exchange(ended_, std::nullopt);
    trace("job over ", static_cast<int>(over.outcome), " done ", over.done);
    CHECK(over.mismatches == 0);
    if (kind_ == Raid5Work::parity) return;
    const bool done = over.outcome == ResyncOutcome::done;
    if (kind_ == Raid5Work::initialise) {
      if (done && !joinFailed_) return join();
      if (over.outcome == ResyncOutcome::failed) joinFailed_ = true;
      return install();
    }
    if (kind_ == Raid5Work::copy) {
      if (!copyOf_ || of_ != copyOf_) return;
      copyIsWhole_ = done;
      if (over.outcome != ResyncOutcome::failed || over.component != 100 + copyFile_) return;
      dropCopy();
      return install();
    }
    if (states_[target_] != Is::resync) return;
    if (over.outcome != ResyncOutcome::done) {
      reached_ = std::max(reached_, over.done);
      return;
    }
    states_[target_] = Is::okay;
    regenerated++;
    for (std::uint32_t c = 0; c < columns_; c++) {
      if (states_[c] != Is::lastErred || !othersInStep(c)) continue;
      states_[c] = Is::erred;  // covered
      break;
    }
    install();
  }

  // ---- starts

  // What is in flight ends, however that goes.
  void end() noexcept {
    volume->quiesce();
    for (unsigned round = 0; volume->inFlight() != 0; round++) {
      if (round == 1'000'000) std::abort();
      disk.poll();
      volume->tick();
      if (disk.idle()) disk.advance(1'000'000);
    }
  }
  void forgetErrors() {
    events_.clear();
    seen_ = 0;
    deciding_ = 0;
    case_ = 0;
    installing_ = false;
    ended_.reset();
    used_.clear();
  }
  // A ring that cannot be read in places is borne while nothing else is missing.
  void mendRings() {
    std::uint32_t bears = columns_;
    for (std::uint32_t c = 0; c < columns_; c++) {
      const auto& bad = disk.badSectors(fileOf_[c]);
      if (bad.empty() || bad.begin()->first * kBlock >= startOf(c)) continue;
      if (bears == columns_ && othersInStep(c) && !othersIll(c)) {
        bears = c;
      } else {
        mend(fileOf_[c]);
      }
    }
    if (bears != columns_) ringsBorne++;
  }
  bool othersIll(std::uint32_t c) const {
    for (std::uint32_t k = 0; k < columns_; k++) {
      if (k != c && ill(fileOf_[k])) return true;
    }
    return false;
  }
  // Any one that all others make up for.
  void maybeLose() {
    auto gone = static_cast<std::uint32_t>(random() % columns_);
    for (std::uint32_t c = 0; c < columns_; c++) {
      const auto& bad = disk.badSectors(fileOf_[c]);
      const bool ring = !bad.empty() && bad.begin()->first * kBlock < startOf(c);
      if (states_[c] != Is::okay || ill(fileOf_[c]) || ring) gone = c;
    }
    if (random() % 2 == 0 || !othersInStep(gone) || othersIll(gone)) return;
    const std::uint32_t f = fileOf_[gone];
    mend(f);
    scribble(f);
    states_[gone] = Is::erred;
    reached_ = checkpoint_ = 0;
    if (copyOf_ == gone) useCopy();
    lost++;
  }
  // False: to be made again.
  bool replay() {
    bool reopened = random() % 2 == 0;
    for (std::uint32_t c = 0; c < columns_; c++) {
      if (states_[c] == Is::lastErred && reopened && !ill(fileOf_[c])) states_[c] = Is::okay;
    }
    if (crashed_) disk.reopen();
    crashed_ = false;
    replayed_.reset();
    mount(true);
    const std::uint64_t until = random() % 4 == 0 ? 1 + random() % 60 : UINT64_MAX;
    for (std::uint64_t round = 0; !replayed_; round++) {
      REQUIRE(round < 1'000'000);
      if (round == until) {
        disk.crash();
        crashed_ = true;
        replayCrashes++;
      }
      disk.poll();
      if (disk.idle()) disk.advance(1'000'000);
    }
    replays++;
    trace("replayed ", replayed_->error, " groups ", replayed_->groups, " torn ", replayed_->torn, " damaged ",
          replayed_->damaged);
    const bool wasCrash = crashed_;
    const bool changed = !wasCrash && decide(true);
    const bool good = !wasCrash && replayed_->error == 0;
    if (good) CHECK(replayed_->damaged == 0);
    end();
    volume.reset();
    if (wasCrash) forgetErrors();
    if (good) return true;
    if (!wasCrash && !changed) {  // nothing will change by itself
      unserved++;
      mendAll();
      for (int i = 0; i < 100; i++) disk.poll();
      crashed_ = true;  // everything is opened anew
      for (std::uint32_t c = 0; c < columns_; c++) {
        if (states_[c] == Is::lastErred) states_[c] = Is::okay;
      }
    }
    return false;
  }

  std::uint32_t columns_ = 0;  // that serve
  bool copies_ = false;        // columns that work are copied to spares now and then
  std::optional<std::uint32_t> copyOf_;
  std::optional<std::uint32_t> of_;  // what the job copies
  std::uint32_t copyFile_ = kNoFile;
  bool copyIsWhole_ = false;
  bool joinFailed_ = false;
  std::vector<Sick> sick_;
  std::vector<std::uint32_t> fileOf_;
  std::vector<Is> states_;
  std::vector<Is> mounted_;
  std::vector<bool> unreadable_;
  std::vector<std::uint64_t> unreadableAt_;                                // turns
  std::map<std::uint64_t, std::map<std::uint32_t, std::uint64_t>> badAt_;  // by bytes of their data
  std::map<std::uint64_t, ColumnSet> badRows_;
  std::uint64_t stoppedAt_ = 0;  // more failed than parity makes up for
  std::uint64_t doubleAt_ = 0;   // something could not be read anywhere
  std::vector<unsigned> readErrors_;
  unsigned readErrorLimit_ = 0;
  std::vector<ComponentFault> events_;
  std::size_t seen_ = 0;
  unsigned deciding_ = 0;  // turns until it is durable, and one
  bool installing_ = false;
  bool changed_ = false;
  std::uint64_t case_ = 0;
  std::uint64_t generation_ = 0;
  std::uint64_t mountedGeneration_ = 0;
  std::uint64_t holdGeneration_ = 0;
  std::uint64_t epoch_ = 1;
  std::uint64_t job_ = 0;
  Raid5Work kind_ = Raid5Work::parity;
  std::uint32_t target_ = 0;
  std::uint64_t checkpoint_ = 0;  // of the column in regeneration: that is on stable storage
  std::uint64_t reached_ = 0;     // and that will be
  std::optional<ResyncEnd> ended_;
  std::optional<Raid5Replayed> replayed_;
  bool crashed_ = true;
  std::set<std::uint32_t> used_;
  std::vector<ComponentFile*> files_;
  std::shared_ptr<const Plan> plan_;

 public:
  bool wantsStart = false;  // an administrator would stop metad and start it again
};

}  // namespace metadisk::test
