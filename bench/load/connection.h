// One connection of a worker: slots, the batch being sent, the reply being parsed.
#pragma once

#include "worker.h"

namespace metadisk::load {

std::uint64_t nowNs() noexcept;

class Connection {
 public:
  Connection(Worker& worker, Session session, std::uint32_t index);

  // Fills free slots and sends; receives what is there (waits for it when `wait`).
  void send();
  void receive(bool wait);
  void sayGoodbye() noexcept;
  void fail(std::string reason, bool violation);

  [[nodiscard]] int fd() const noexcept { return session_.fd.get(); }
  [[nodiscard]] bool alive() const noexcept { return alive_; }
  [[nodiscard]] bool finished() const noexcept { return !alive_ || (ended_ && inFlight_ == 0); }
  [[nodiscard]] bool wantsSend() const noexcept { return alive_ && outAt_ < out_.size(); }
  [[nodiscard]] bool waits() const noexcept { return alive_ && inFlight_ > 0; }
  [[nodiscard]] bool stalled(std::uint64_t now) const noexcept;

 private:
  enum class Kind : std::uint8_t { free, read, write, flush };
  struct Slot {
    Kind kind = Kind::free;
    std::uint32_t sequence = 0, generation = 0, received = 0;
    int error = 0;
    std::uint64_t block = 0, sentNs = 0;
    std::unique_ptr<std::byte[]> data;
    std::vector<Worker::Acked> covers;  // flush
  };

  void fill();
  bool next(Slot& slot);
  bool nextOfLoad(Slot& slot);
  void prepareFlush(Slot& slot);
  std::uint64_t scattered() const noexcept;  // places, with --scatter
  std::uint64_t pickBlock();
  void queue(Slot& slot, std::uint32_t index, std::uint64_t now);
  bool parse(std::uint64_t now);
  std::size_t parseHead(std::span<const std::byte> in, std::uint64_t now);
  std::size_t parseChunk(std::span<const std::byte> in, std::uint64_t now);
  Slot* slotOf(std::uint64_t cookie);
  void complete(Slot& slot, std::uint64_t now);
  void answeredRead(Slot& slot);
  void answeredWrite(Slot& slot);
  [[nodiscard]] std::uint64_t random() noexcept;
  [[nodiscard]] std::uint64_t place(std::uint64_t block) const noexcept;

  Worker& worker_;
  const Shared& shared_;
  const Options& options_;
  Session session_;
  std::uint32_t index_;
  bool alive_ = true, ended_ = false, finalFlushSent_ = false, wrote_ = false;

  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::uint32_t inFlight_ = 0;
  std::uint64_t owned_ = 0;  // blocks of this connection
  std::uint64_t cursor_ = 0, issued_ = 0, quota_ = UINT64_MAX, sinceFlush_ = 0;
  std::uint64_t rng_;
  std::vector<std::uint8_t> busy_;        // journal: own blocks with a request in flight
  std::vector<std::uint32_t> floor_;      // journal: own blocks, lowest generation a read may return now
  std::vector<Worker::Acked> acked_;      // without multi-conn
  std::unique_ptr<std::byte[]> pattern_;  // payload when nothing is verified

  std::vector<std::byte> heads_;
  std::size_t headsAt_ = 0;
  std::vector<iovec> out_;
  std::size_t outAt_ = 0;

  std::unique_ptr<std::byte[]> in_;
  std::size_t inStart_ = 0, inEnd_ = 0;
  Slot* payload_ = nullptr;  // read whose payload is arriving
  std::uint32_t payloadLeft_ = 0;
  std::size_t payloadAt_ = 0;
  bool payloadEnds_ = false;  // the reply is complete after the payload
  std::uint64_t progressNs_ = 0;
};

}  // namespace metadisk::load
