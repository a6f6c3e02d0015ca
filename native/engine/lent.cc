#include "engine/lent.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <utility>

#include "core/clock.h"

namespace metadisk {

namespace {

// A client that reads has taken its pages within the first; one that does not is looked at now and then.
constexpr std::uint64_t kFirstLook = 1'000'000;
constexpr std::uint64_t kLastLook = 100'000'000;

// Whether no more than `behind` bytes of what went into the socket may still be in it.
bool taken(int socket, std::uint64_t behind) noexcept {
  int queued = 0;
  return ::ioctl(socket, SIOCOUTQ, &queued) == 0 && static_cast<std::uint64_t>(queued) <= behind;
}

}  // namespace

LentPages::~LentPages() {
  for (Reader& reader : readers_) release(reader);
}

void LentPages::leaves(nbd::Connection& connection, const Marks& files) {
  Reader reader;
  reader.connection = &connection;
  reader.place = connection.lentUpTo();
  if (!owes(reader)) return;
  reader.marks = files;
  for (const Mark& mark : files) mark->fetch_add(1, std::memory_order_acq_rel);
  watch(std::move(reader));
}

void LentPages::ends(nbd::Connection& connection, const Marks& files) {
  Reader reader;
  reader.connection = &connection;
  reader.place = connection.lentUpTo();
  const bool owing = owes(reader);
  if (owing) {
    reader.behind = static_cast<std::uint64_t>(std::max<std::int64_t>(connection.sentBehind(reader.place), 0));
    reader.marks = files;
    for (const Mark& mark : files) mark->fetch_add(1, std::memory_order_acq_rel);
  }
  std::erase_if(readers_, [&](Reader& other) {
    if (other.connection != &connection) return false;
    if (owing) {
      reader.marks.insert(reader.marks.end(), other.marks.begin(), other.marks.end());
    } else {
      release(other);
    }
    return true;
  });
  if (!owing) return;
  reader.connection = nullptr;
  reader.socket = connection.takeSocket();
  ended_++;
  watch(std::move(reader));
}

void LentPages::watch(Reader reader) {
  readers_.push_back(std::move(reader));
  patience_ = kFirstLook;
  wakeAt_ = std::min(readers_.size() == 1 ? UINT64_MAX : wakeAt_, coarseNanos() + patience_);
}

bool LentPages::owes(const Reader& reader) noexcept {
  if (reader.connection == nullptr) return !taken(reader.socket.get(), reader.behind);
  if (reader.place == 0) return false;
  const std::int64_t behind = reader.connection->sentBehind(reader.place);
  return behind < 0 || !taken(reader.connection->fd(), static_cast<std::uint64_t>(behind));
}

void LentPages::release(Reader& reader) noexcept {
  for (const Mark& mark : reader.marks) mark->fetch_sub(1, std::memory_order_acq_rel);
  reader.marks.clear();
}

void LentPages::look(std::uint64_t now) {
  std::erase_if(readers_, [this](Reader& reader) {
    if (owes(reader)) return false;
    if (reader.connection == nullptr) ended_--;
    release(reader);
    return true;
  });
  patience_ = std::min(2 * patience_, kLastLook);
  wakeAt_ = now + patience_;
}

}  // namespace metadisk
