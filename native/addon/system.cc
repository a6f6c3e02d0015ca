#include "addon/system.h"

#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>
#include <thread>

#include "core/fd.h"

namespace metadisk {

namespace {

Napi::Value fail(const Napi::Env& env, const char* call, int error) {
  Napi::Error e = Napi::Error::New(env, std::string(call) + ": " + std::strerror(error));
  e.Set("errno", Napi::Number::New(env, error));
  e.ThrowAsJavaScriptException();
  return env.Undefined();
}

Napi::Value peerUid(const Napi::CallbackInfo& info) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(info[0].ToNumber().Int32Value(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
    return fail(info.Env(), "SO_PEERCRED", errno);
  }
  return Napi::Number::New(info.Env(), peer.uid);
}

Napi::Value blockDeviceInfo(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int fd = info[0].ToNumber().Int32Value();
  std::uint64_t size = 0;
  int logical = 0;
  int readOnly = 0;
  if (::ioctl(fd, BLKGETSIZE64, &size) != 0) return fail(env, "BLKGETSIZE64", errno);
  if (::ioctl(fd, BLKSSZGET, &logical) != 0) return fail(env, "BLKSSZGET", errno);
  if (::ioctl(fd, BLKROGET, &readOnly) != 0) return fail(env, "BLKROGET", errno);
  Napi::Object out = Napi::Object::New(env);
  out.Set("sizeBytes", Napi::BigInt::New(env, size));
  out.Set("logicalBlock", Napi::Number::New(env, logical));
  out.Set("readOnly", Napi::Boolean::New(env, readOnly != 0));
  return out;
}

// False when nobody listens (NOTIFY_SOCKET unset) or the message could not be sent.
Napi::Value sdNotify(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const char* const path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return Napi::Boolean::New(env, false);
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  const std::size_t length = std::strlen(path);
  if (length >= sizeof to.sun_path) return Napi::Boolean::New(env, false);
  std::memcpy(to.sun_path, path, length);
  if (path[0] == '@') to.sun_path[0] = '\0';
  const std::string text = info[0].ToString().Utf8Value();
  const Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto toLength = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  const ssize_t n =
      ::sendto(socket.get(), text.data(), text.size(), MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&to), toLength);
  return Napi::Boolean::New(env, n == static_cast<ssize_t>(text.size()));
}

// False when somebody else holds the lock.
Napi::Value lockFile(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (::flock(info[0].ToNumber().Int32Value(), LOCK_EX | LOCK_NB) == 0) return Napi::Boolean::New(env, true);
  if (errno == EWOULDBLOCK) return Napi::Boolean::New(env, false);
  return fail(env, "flock", errno);
}

// Memory reclaim must not wait for this process, which may be the way to the disk reclaim writes to.
Napi::Value setIoFlusher(const Napi::CallbackInfo& info) {
#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
  const bool flusher = ::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0;
  return Napi::Boolean::New(info.Env(), flusher);
}

// Ends the process with this status so many milliseconds from now, however it is stuck by then: exit() waits for
// threads that may wait for a disk. What the kernel itself does not let go ends when it does.
Napi::Value endWithin(const Napi::CallbackInfo& info) {
  const int status = info[0].ToNumber().Int32Value();
  const std::chrono::milliseconds patience(info[1].ToNumber().Uint32Value());
  try {
    std::thread([status, patience] {
      std::this_thread::sleep_for(patience);
      ::_exit(status);
    }).detach();
  } catch (const std::system_error& e) {
    return fail(info.Env(), "thread", e.code().value());
  }
  return info.Env().Undefined();
}

}  // namespace

void defineSystem(Napi::Env env, Napi::Object exports) {
  exports.Set("peerUid", Napi::Function::New<peerUid>(env, "peerUid"));
  exports.Set("blockDeviceInfo", Napi::Function::New<blockDeviceInfo>(env, "blockDeviceInfo"));
  exports.Set("sdNotify", Napi::Function::New<sdNotify>(env, "sdNotify"));
  exports.Set("lockFile", Napi::Function::New<lockFile>(env, "lockFile"));
  exports.Set("endWithin", Napi::Function::New<endWithin>(env, "endWithin"));
  exports.Set("setIoFlusher", Napi::Function::New<setIoFlusher>(env, "setIoFlusher"));
}

}  // namespace metadisk
