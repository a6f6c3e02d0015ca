// A scripted control plane over a Bench: it judges component errors by the rules of driver.md 2.3, makes
// the next plan and settles holds, now and then by `fail`. What it decides is durable at once.
#pragma once

#include <map>
#include <set>

#include "md/mirror.h"
#include "property/native/harness.h"

namespace metadisk::test {

class Control {
 public:
  Control(Bench& bench, std::mt19937_64& random, std::shared_ptr<Plan> plan)
      : bench_(bench), random_(random), plan_(std::move(plan)) {}

  // Between turns. `failPercent`: of holds are answered with `fail` although the decision is installed.
  void turn(unsigned failPercent = 0) {
    Hold& hold = bench_.state.hold;
    if (hold.closing() && bench_.volume->requests() == 0) {
      hold.announce();
      wait_ = random_() % 6;
    }
    if (hold.number() == 0) return;
    if (wait_ > 0) {
      wait_--;
      return;
    }
    bench_.volume->quiesce();
    if (bench_.volume->inFlight() != 0) return;
    decide();
    const bool fail = random_() % 100 < failPercent;
    if (fail) bench_.state.unequal = true;
    fails += fail ? 1 : 0;
    decisions++;
    hold.settle(hold.number(), !fail);
    hold.release([this](Request& r) { bench_.volume->submit(r); });
  }

  // Takes every report since the last time and mounts the plan that follows from them.
  void decide() {
    auto next = std::make_shared<Plan>(*plan_);
    bool changed = false;
    for (; seen_ < bench_.events.size(); seen_++) {
      const ComponentFault& fault = bench_.events[seen_];
      if (fault.op == ComponentOp::read && !fault.repairFailed) continue;
      changed = judge(*next, fault.component) || changed;
    }
    if (changed) mount(std::move(next));
  }

  // Nothing is in flight: every erred component gets its data from elsewhere and is Okay again.
  void repairAll() {
    auto next = std::make_shared<Plan>(*plan_);
    const auto& mirror = std::get<MirrorNode>(next->root());
    for (std::uint32_t side = 0; side < mirror.sides.size(); side++) {
      eachPart(*next, side, [&](Service& service, std::uint32_t file, auto eachByte) {
        if (service.readable) return;
        ReadSources sources(*plan_, std::get<MirrorNode>(plan_->root()), nullptr);
        bool all = true;
        eachByte([&](std::uint64_t at, std::uint64_t inFile, std::uint64_t length) {
          const auto source = sources.at(at, length, 1U << side);
          all = all && source.side >= 0 && source.length == length;
          if (!all) return;
          Fragment from;
          std::uint64_t covered = 0;
          mapNode(plan_->nodes[std::get<MirrorNode>(plan_->root()).sides[static_cast<std::size_t>(source.side)].child],
                  at, length, {&from, 1}, covered);
          std::memcpy(bench_.sim.content(file).data() + inFile, bench_.sim.content(from.file).data() + from.offset,
                      length);
        });
        if (!all) return;
        bench_.sim.makeDurable(file);
        bench_.sim.files()[file]->syncFailed = false;  // closed, and opened again
        bench_.sim.files()[file]->suspect = false;
        service = {};
        repairs++;
      });
    }
    mount(std::move(next));
  }

  const Plan& plan() const { return *plan_; }
  unsigned decisions = 0;
  unsigned fails = 0;
  unsigned repairs = 0;
  unsigned erred = 0;
  unsigned lastErred = 0;

 private:
  void mount(std::shared_ptr<Plan> next) {
    next->generation++;
    plan_ = next;
    bench_.open(std::move(next));
  }

  // Calls visit(service, file, eachByte) for every part of a side; eachByte(f) calls f(at in the mirror, at in the
  // component, bytes) for each block of the part.
  template <typename Visit>
  static void eachPart(Plan& plan, std::uint32_t side, Visit visit) {
    const auto& mirror = std::get<MirrorNode>(plan.root());
    auto& stripe = std::get<StripeNode>(plan.nodes[mirror.sides[side].child]);
    for (Row& row : stripe.rows) {
      for (Column& column : row.columns) {
        visit(column.service, column.file, [&](auto each) {
          for (std::uint64_t at = row.base; at < std::min(row.end, mirror.size); at += kBlock) {
            const Fragment f = mapOne(row, at, kBlock);
            if (f.file == column.file) each(at, f.offset, kBlock);
          }
        });
      }
    }
  }

  // Whether the plan changed.
  bool judge(Plan& plan, std::uint32_t component) {
    const auto& mirror = std::get<MirrorNode>(plan.root());
    bool changed = false;
    for (std::uint32_t side = 0; side < mirror.sides.size(); side++) {
      eachPart(plan, side, [&](Service& service, std::uint32_t file, auto eachByte) {
        if (plan.components[file] != component || !service.writable || service.lastErred != 0) return;
        const ReadSources sources(plan, mirror, nullptr);
        bool elsewhere = true;
        eachByte([&](std::uint64_t at, std::uint64_t, std::uint64_t length) {
          elsewhere = elsewhere && sources.at(at, length, 1U << side).side >= 0;
        });
        service = elsewhere ? Service{false, false, 0} : Service{true, true, ++counter_};
        (elsewhere ? erred : lastErred)++;
        changed = true;
      });
    }
    return changed;
  }

  Bench& bench_;
  std::mt19937_64& random_;
  std::shared_ptr<Plan> plan_;
  std::uint64_t wait_ = 0;
  std::size_t seen_ = 0;
  std::uint32_t counter_ = 0;
};

}  // namespace metadisk::test
