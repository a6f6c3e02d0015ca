// Mapping, and what a volume over stripes makes of requests.
#include "md/stripe.h"

#include "property/native/harness.h"

using namespace metadisk;
using namespace metadisk::test;

namespace {

Fragment at(const Node& node, std::uint64_t offset) {
  Fragment f;
  std::uint64_t covered = 0;
  CHECK(mapNode(node, offset, 1, {&f, 1}, covered) == 1);
  CHECK(covered == 1);
  return f;
}

}  // namespace

TEST_CASE("stripe: the worked example of the reference") {
  PlanMaker m;
  m.stripe({{32, 64000, {0, 0, 0}}});
  const Node& node = m.plan->root();
  CHECK(nodeSize(node) == 192000 * kBlock);
  CHECK(at(node, 100 * kBlock).file == 0);
  CHECK(at(node, 100 * kBlock).offset == 36 * kBlock);
  CHECK(at(node, 75 * kBlock).file == 2);
  CHECK(at(node, 75 * kBlock).offset == 11 * kBlock);
}

TEST_CASE("stripe: rows follow each other, starts are added, runs end at interlace and row") {
  PlanMaker m;
  m.stripe({{16, 50, {5}}, {16, 32, {0, 7}}, {20, 21, {3}}});
  const Node& node = m.plan->root();
  CHECK(at(node, 49 * kBlock + 511).offset == 54 * kBlock + 511);
  CHECK(at(node, 50 * kBlock).file == 1);
  CHECK(at(node, (50 + 16) * kBlock).file == 2);
  CHECK(at(node, (50 + 16) * kBlock).offset == 7 * kBlock);
  CHECK(at(node, (50 + 32) * kBlock).file == 1);
  CHECK(at(node, (50 + 32) * kBlock).offset == 16 * kBlock);
  CHECK(at(node, (50 + 64 + 20) * kBlock).offset == 23 * kBlock);

  std::vector<Fragment> out(3);
  std::uint64_t covered = 0;
  CHECK(mapNode(node, 40 * kBlock, 60 * kBlock, out, covered) == 3);
  CHECK(covered == (10 + 16 + 16) * kBlock);
  CHECK(out[0].length == 10 * kBlock);
  CHECK(out[1].length == 16 * kBlock);
}

TEST_CASE("stripe: a large request is one Io per component") {
  PlanMaker m;
  m.stripe({{32, 2048, {0, 3, 6, 9}}});
  Bench b(m, 1);
  Call write(Op::write, 0, 1 << 20, 7);
  for (std::size_t i = 0; i < write.buffer.size(); i++) write.buffer[i] = static_cast<std::byte>(i / 512 * 37 + i);
  CHECK(b.run(write) == 0);
  CHECK(b.sim.started(IoOp::write) == 4);
  Call read(Op::read, 0, 1 << 20);
  CHECK(b.run(read) == 0);
  CHECK(b.sim.started(IoOp::read) == 4);
  CHECK(read.buffer == write.buffer);
  CHECK(b.run(Op::zero, 5 * kBlock, 2000 * kBlock) == 0);
  CHECK(b.sim.started(IoOp::zero) == 4);
  CHECK(b.run(Op::trim, 5 * kBlock, 27 * kBlock) == 0);
  CHECK(b.sim.started(IoOp::discard) == 1);
  CHECK(b.run(Op::cache, 0, 64 * kBlock) == 0);
  CHECK(b.sim.started(IoOp::cache) == 2);
}

TEST_CASE("stripe: more pieces than an iovec list holds still arrive") {
  PlanMaker m;
  m.stripe({{16, 16 * 100, {0, 0}}});
  Bench b(m, 1);
  Call write(Op::write, 0, 3200 * kBlock);
  for (std::size_t i = 0; i < write.buffer.size(); i++) write.buffer[i] = static_cast<std::byte>(i / 512 * 41 + i);
  CHECK(b.run(write) == 0);
  CHECK(b.sim.started(IoOp::write) == 4);  // 100 pieces each, 64 to a list
  CHECK(b.sides()[0] == write.buffer);
}

TEST_CASE("stripe: bounds, label and read-only") {
  PlanMaker m;
  m.stripe({{16, 100, {0}}});
  SUBCASE("outside") {
    Bench b(m, 1);
    CHECK(b.run(Op::read, 99 * kBlock, 2 * kBlock) == EINVAL);
    CHECK(b.run(Op::write, UINT64_MAX - 511, 1024) == EINVAL);
    CHECK(b.run(Op::read, 100 * kBlock, 0) == 0);
    CHECK(b.run(Op::read, 99 * kBlock, kBlock) == 0);
  }
  SUBCASE("label") {
    m.plan->labelled = true;
    Bench b(m, 1);
    CHECK(b.run(Op::write, 511, 1) == EINVAL);
    CHECK(b.run(Op::zero, 0, 4096) == EINVAL);
    CHECK(b.run(Op::trim, 0, 4096) == EINVAL);
    CHECK(b.run(Op::write, 512, 512) == 0);
    CHECK(b.run(Op::read, 0, 512) == 0);
  }
  SUBCASE("read-only") {
    m.plan->readOnly = true;
    Bench b(m, 1);
    for (const Op op : {Op::write, Op::zero, Op::trim}) CHECK(b.run(op, 512, 512) == EROFS);
    CHECK(b.run(Op::read, 0, 512) == 0);
    CHECK(b.run(Op::flush) == 0);
  }
}

TEST_CASE("stripe: the error of one component is the answer, after all pieces") {
  PlanMaker m;
  m.stripe({{16, 64, {0, 2}}});
  Bench b(m, 3);
  b.sim.fault({.file = 1, .op = IoOp::write, .error = ENOSPC});
  CHECK(b.run(Op::write, 0, 32 * kBlock, 1) == ENOSPC);
  REQUIRE(b.events.size() == 1);
  CHECK(b.events[0].component == 101);
  CHECK(b.events[0].op == ComponentOp::write);
  CHECK(b.events[0].block == 2);
  CHECK(b.events[0].error == ENOSPC);
  CHECK(b.run(Op::write, 0, 16 * kBlock, 1) == 0);
}

TEST_CASE("flush: every component, in one batch for those that wait") {
  PlanMaker m;
  m.stripe({{16, 64, {0, 0, 0}}});
  Bench b(m, 3);
  std::vector<Call> calls(10, Call(Op::flush, 0, 0));
  for (Call& call : calls) b.volume->submit(call);
  b.drain();
  for (const Call& call : calls) CHECK(call.finished());
  CHECK(b.sim.started(IoOp::sync) == 6);  // the first alone, nine together
}

TEST_CASE("flush: a failed sync never turns into a later success") {
  PlanMaker m;
  m.stripe({{16, 64, {0, 0}}});
  Bench b(m, 3);
  CHECK(b.run(Op::write, 0, 32 * kBlock, 1) == 0);
  b.sim.fault({.file = 1, .op = IoOp::sync, .error = EIO, .times = 1});
  CHECK(b.run(Op::flush) == EIO);
  REQUIRE(b.events.size() == 1);
  CHECK(b.events[0].op == ComponentOp::flush);
  CHECK(b.run(Op::flush) == EIO);
  CHECK(b.run(Op::write, 0, 512, 1, true) == EIO);
  CHECK(b.run(Op::trim, 0, 512, 1, true) == EIO);
  CHECK(b.run(Op::write, 0, 512, 1) == 0);
  CHECK(b.run(Op::flush) == EIO);
}

TEST_CASE("fua: the data is durable without a flush, on every component it touches") {
  PlanMaker m;
  m.stripe({{16, 64, {0, 0}}});
  Bench b(m, 3);
  CHECK(b.run(Op::write, 0, 32 * kBlock, 9, true) == 0);
  CHECK(b.sim.started(IoOp::sync) == 0);
  for (const std::uint32_t file : {0U, 1U}) CHECK(b.sim.durable(file)[16 * kBlock - 1] == std::byte{9});
  CHECK(b.run(Op::zero, 0, 32 * kBlock, 0, true) == 0);
  for (const std::uint32_t file : {0U, 1U}) CHECK(b.sim.durable(file)[16 * kBlock - 1] == std::byte{0});
}

TEST_CASE("fua: a failing write with EIO poisons later flushes, one without space does not") {
  PlanMaker m;
  m.component(0, 64);
  for (const int error : {EIO, ENOSPC}) {
    Bench b(m, 3);
    b.sim.fault({.file = 0, .op = IoOp::write, .error = error, .times = 1});
    CHECK(b.run(Op::write, 0, 512, 1, true) == error);
    CHECK(b.run(Op::flush) == (error == EIO ? EIO : 0));
  }
}
