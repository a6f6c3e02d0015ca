// Pages of components that clients may not have taken out of their sockets yet, once the device has given the
// component up or the connection has ended: storage that must not become something else before.
//
// A page that was lent (core/pages.h) is the file's until the client has read it, and the end of a connection does
// not take it out of the client's queue. On a unix socket the kernel counts what it holds of ours until the reader
// has it or is gone (SIOCOUTQ), at least a byte for each, in order: so pages up to a place are taken when no more is
// counted than went in behind it. That holds for sockets that are shut down, too, so those that owe something stay
// open for it.
// Invariants: one thread; a mark is counted up before the old plan is reported gone or the connection closed, and
// down when the client has taken all that it was lent until then. Sockets that stay are bounded by full(), which stops
// lending. Nothing here is on the way of a request.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/fd.h"
#include "nbd/connection.h"

namespace metadisk {

class LentPages {
 public:
  using Mark = std::shared_ptr<std::atomic<std::uint32_t>>;  // ComponentFile::lent
  using Marks = std::vector<Mark>;

  LentPages() = default;
  ~LentPages();
  LentPages(const LentPages&) = delete;
  LentPages& operator=(const LentPages&) = delete;

  // Nothing of these files is lent to the connection any more.
  void leaves(nbd::Connection& connection, const Marks& files);
  // It is about to be destroyed; what it may have been lent lies in `files`.
  void ends(nbd::Connection& connection, const Marks& files);

  bool full() const noexcept { return ended_ >= kEndedMax; }
  // Whoever has taken everything is forgotten. UINT64_MAX: nobody is watched.
  void look(std::uint64_t now);
  std::uint64_t wakeAt() const noexcept { return readers_.empty() ? UINT64_MAX : wakeAt_; }

  static constexpr std::size_t kEndedMax = 64;

 private:
  struct Reader {
    nbd::Connection* connection = nullptr;  // null: it has ended
    Fd socket;                              // then
    std::uint64_t place = 0;                // of a connection
    std::uint64_t behind = 0;               // of a socket: bytes that may still be in it
    Marks marks;
  };
  void watch(Reader reader);
  static bool owes(const Reader& reader) noexcept;
  static void release(Reader& reader) noexcept;

  std::vector<Reader> readers_;
  std::size_t ended_ = 0;
  std::uint64_t wakeAt_ = 0;
  std::uint64_t patience_ = 0;  // nanoseconds until the next look
};

}  // namespace metadisk
