// Two ends of a TCP connection of this process.
#pragma once

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "core/fd.h"

namespace metadisk::test {

// A connected pair on the loopback address with small buffers on both ends (smaller ones only wait for timers).
struct TcpPair {
  TcpPair() {
    const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    client = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int small = 32768;
    for (const int which : {SO_SNDBUF, SO_RCVBUF}) {
      ::setsockopt(listener.get(), SOL_SOCKET, which, &small, sizeof small);
      ::setsockopt(client.get(), SOL_SOCKET, which, &small, sizeof small);
    }
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof at;
    auto* const generic = reinterpret_cast<sockaddr*>(&at);
    REQUIRE(::bind(listener.get(), generic, sizeof at) == 0);
    REQUIRE(::listen(listener.get(), 1) == 0);
    REQUIRE(::getsockname(listener.get(), generic, &length) == 0);
    REQUIRE(::connect(client.get(), generic, sizeof at) == 0);
    server = Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    REQUIRE(server);
  }
  Fd client;
  Fd server;
};

}  // namespace metadisk::test
