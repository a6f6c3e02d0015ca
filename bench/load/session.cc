#include "session.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <memory>
#include <vector>

namespace metadisk::load {
namespace {

bool sendAll(int fd, const std::byte* data, std::size_t length) {
  while (length > 0) {
    const ssize_t n = ::send(fd, data, length, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    length -= static_cast<std::size_t>(n);
  }
  return true;
}

bool recvAll(int fd, std::byte* data, std::size_t length) {
  while (length > 0) {
    const ssize_t n = ::recv(fd, data, length, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    length -= static_cast<std::size_t>(n);
  }
  return true;
}

Fd dialUnix(const std::string& path, std::string& why) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    why = "socket path too long";
    return Fd{};
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    why = path + ": " + std::strerror(errno);
    return Fd{};
  }
  return fd;
}

Fd dialTcp(const std::string& host, const std::string& port, std::string& why) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int rc = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); rc != 0) {
    why = ::gai_strerror(rc);
    return Fd{};
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    Fd fd(::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol));
    if (fd.get() < 0 || ::connect(fd.get(), at->ai_addr, at->ai_addrlen) != 0) continue;
    const int one = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
  }
  why = host + ":" + port + ": " + std::strerror(errno);
  return Fd{};
}

bool sendOption(int fd, std::uint32_t option, const std::vector<std::byte>& data) {
  std::vector<std::byte> message(16 + data.size());
  std::byte* at = message.data();
  put<std::uint64_t>(at, kOptMagic);
  put<std::uint32_t>(at, option);
  put<std::uint32_t>(at, static_cast<std::uint32_t>(data.size()));
  if (!data.empty()) std::memcpy(at, data.data(), data.size());
  return sendAll(fd, message.data(), message.size());
}

struct OptionReply {
  std::uint32_t type = 0;
  std::vector<std::byte> data;
};

bool recvOptionReply(int fd, std::uint32_t option, OptionReply& reply, std::string& why) {
  std::byte head[20];
  if (!recvAll(fd, head, sizeof head)) {
    why = "connection closed during the handshake";
    return false;
  }
  const auto length = get<std::uint32_t>(head + 16);
  if (get<std::uint64_t>(head) != kOptReplyMagic || get<std::uint32_t>(head + 8) != option || length > 65536) {
    why = "not an option reply";
    return false;
  }
  reply.type = get<std::uint32_t>(head + 12);
  reply.data.resize(length);
  return length == 0 || recvAll(fd, reply.data.data(), length);
}

bool go(const Options& o, Session& s, std::string& why) {
  std::vector<std::byte> data(4 + o.exportName.size() + 2);
  std::byte* at = data.data();
  put<std::uint32_t>(at, static_cast<std::uint32_t>(o.exportName.size()));
  if (!o.exportName.empty()) std::memcpy(at, o.exportName.data(), o.exportName.size());
  at += o.exportName.size();
  put<std::uint16_t>(at, 0);
  if (!sendOption(s.fd.get(), kOptGo, data)) return false;
  bool sized = false;
  for (OptionReply reply; recvOptionReply(s.fd.get(), kOptGo, reply, why);) {
    if (reply.type == kRepAck) return sized;
    if (reply.type != kRepInfo) {
      why = "export refused: " + std::string(reinterpret_cast<const char*>(reply.data.data()), reply.data.size());
      return false;
    }
    if (reply.data.size() >= 12 && get<std::uint16_t>(reply.data.data()) == kInfoExport) {
      s.sizeBytes = get<std::uint64_t>(reply.data.data() + 2);
      s.flags = get<std::uint16_t>(reply.data.data() + 10);
      sized = true;
    }
  }
  return false;
}

bool exportName(const Options& o, Session& s, bool noZeroes, std::string& why) {
  std::vector<std::byte> name(o.exportName.size());
  if (!name.empty()) std::memcpy(name.data(), o.exportName.data(), name.size());
  std::byte reply[134];
  if (!sendOption(s.fd.get(), kOptExportName, name) || !recvAll(s.fd.get(), reply, noZeroes ? 10 : 134)) {
    why = "export refused";
    return false;
  }
  s.sizeBytes = get<std::uint64_t>(reply);
  s.flags = get<std::uint16_t>(reply + 8);
  return true;
}

}  // namespace

bool openSession(const Options& o, Session& s, std::string& why) {
  s.fd = o.unixPath.empty() ? dialTcp(o.tcpHost, o.tcpPort, why) : dialUnix(o.unixPath, why);
  if (s.fd.get() < 0) return false;
  std::byte greeting[18];
  if (!recvAll(s.fd.get(), greeting, sizeof greeting) || get<std::uint64_t>(greeting) != kInitMagic ||
      get<std::uint64_t>(greeting + 8) != kOptMagic) {
    why = "no newstyle greeting";
    return false;
  }
  const auto server = get<std::uint16_t>(greeting + 16);
  const bool noZeroes = (server & kFlagNoZeroes) != 0;
  std::byte flags[4];
  std::byte* at = flags;
  put<std::uint32_t>(at, server & (kFlagFixedNewstyle | kFlagNoZeroes));
  if (!sendAll(s.fd.get(), flags, sizeof flags)) return false;
  if (o.structured) {
    OptionReply reply;
    if (!sendOption(s.fd.get(), kOptStructuredReply, {}) ||
        !recvOptionReply(s.fd.get(), kOptStructuredReply, reply, why))
      return false;
    s.structured = reply.type == kRepAck;
    if (!s.structured) {
      why = "structured replies refused";
      return false;
    }
  }
  return o.handshakeGo ? go(o, s, why) : exportName(o, s, noZeroes, why);
}

}  // namespace metadisk::load
