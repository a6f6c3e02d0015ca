#include "options.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string_view>

namespace metadisk::load {
namespace {

constexpr const char* kUsage =
    "usage: nbdload (--unix PATH | --tcp HOST:PORT) [--export NAME] [--handshake go|export-name] [--structured]\n"
    "  --rw read|write|mix [--read-percent N] [--sequential] [--bs BYTES] [--qd N] [--connections N] [--threads N]\n"
    "  [--span BYTES] [--offset BYTES] [--seconds S | --count N] [--warmup S] [--flush-every N] [--fua] [--seed N]\n"
    "  [--scatter BYTES]           one block of every so many bytes, each once, far from the one before\n"
    "  [--server-pid PID[,PID]] [--stall S] [--tolerate-disconnect] [--tolerate-errors] [--ready-file PATH]\n"
    "verifying mode, one journal per export:\n"
    "  --journal FILE --init       write every block of the span once and flush\n"
    "  --journal FILE --rw ...     load whose contents and journal can be verified\n"
    "  --journal FILE --verify [--settle] [--file PATH [--file-offset BYTES]]\n"
    "sizes take k, m, g. Exit status: 0 good, 1 wrong data or I/O errors, 2 usage or connection, 3 disconnected\n";

[[noreturn]] void refuse(std::string_view why) {
  std::fprintf(stderr, "nbdload: %.*s\n%s", static_cast<int>(why.size()), why.data(), kUsage);
  std::exit(2);
}

std::uint64_t number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc{}) refuse("not a number: " + std::string(text));
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  if (unit.empty()) return value;
  if (unit == "k") return value << 10;
  if (unit == "m") return value << 20;
  if (unit == "g") return value << 30;
  refuse("not a size: " + std::string(text));
}

std::uint32_t small(std::string_view text) {
  const std::uint64_t value = number(text);
  if (value > UINT32_MAX) refuse("too large: " + std::string(text));
  return static_cast<std::uint32_t>(value);
}

double real(std::string_view text) {
  char* end = nullptr;
  const std::string owned(text);
  const double value = std::strtod(owned.c_str(), &end);
  if (end == owned.c_str() || *end != 0 || value < 0) refuse("not a duration: " + owned);
  return value;
}

void check(const Options& o) {
  if (o.file.empty() && o.unixPath.empty() == o.tcpHost.empty()) refuse("one of --unix and --tcp is needed");
  if (o.blockBytes == 0 || o.blockBytes % 512 != 0 || o.blockBytes > (32u << 20))
    refuse("--bs: multiple of 512 up to 32m");
  if (o.depth == 0 || o.depth > 4096) refuse("--qd: 1 to 4096");
  if (o.connections == 0 || o.connections > 1024) refuse("--connections: 1 to 1024");
  if (o.threads == 0 || o.threads > o.connections) refuse("--threads: 1 to the number of connections");
  if (o.readPercent > 100) refuse("--read-percent: 0 to 100");
  if ((o.verify || o.initialise || !o.file.empty() || o.settle) && o.journal.empty()) refuse("--journal is needed");
  if (o.scatterBytes % o.blockBytes != 0) refuse("--scatter: a multiple of --bs");
  if (o.scatterBytes > 0 && (o.connections > 1 || o.sequential || o.count > 0 || !o.journal.empty()))
    refuse("--scatter excludes --connections, --sequential, --count and --journal");
  if (o.verify && o.initialise) refuse("--verify and --init exclude each other");
  if ((!o.file.empty() || o.settle) && !o.verify) refuse("only with --verify");
}

}  // namespace

Options parseOptions(int argc, char** argv) {
  Options o;
  using Take = std::function<void(std::string_view)>;
  const std::map<std::string_view, Take> values = {
      {"--unix", [&](auto v) { o.unixPath = v; }},
      {"--tcp",
       [&](auto v) {
         const auto colon = v.rfind(':');
         o.tcpHost = v.substr(0, colon);
         if (colon != std::string_view::npos) o.tcpPort = v.substr(colon + 1);
       }},
      {"--export", [&](auto v) { o.exportName = v; }},
      {"--handshake",
       [&](auto v) {
         if (v != "go" && v != "export-name") refuse("--handshake: go or export-name");
         o.handshakeGo = v == "go";
       }},
      {"--rw",
       [&](auto v) {
         if (v == "read")
           o.mix = Mix::read;
         else if (v == "write")
           o.mix = Mix::write;
         else if (v == "mix")
           o.mix = Mix::mixed;
         else
           refuse("--rw: read, write or mix");
       }},
      {"--read-percent", [&](auto v) { o.readPercent = small(v); }},
      {"--bs", [&](auto v) { o.blockBytes = small(v); }},
      {"--qd", [&](auto v) { o.depth = small(v); }},
      {"--connections", [&](auto v) { o.connections = small(v); }},
      {"--threads", [&](auto v) { o.threads = small(v); }},
      {"--span", [&](auto v) { o.spanBytes = number(v); }},
      {"--scatter", [&](auto v) { o.scatterBytes = number(v); }},
      {"--offset", [&](auto v) { o.offsetBytes = number(v); }},
      {"--seconds", [&](auto v) { o.seconds = real(v); }},
      {"--warmup", [&](auto v) { o.warmup = real(v); }},
      {"--count", [&](auto v) { o.count = number(v); }},
      {"--flush-every", [&](auto v) { o.flushEvery = number(v); }},
      {"--seed", [&](auto v) { o.seed = number(v); }},
      {"--stall", [&](auto v) { o.stallSeconds = real(v); }},
      {"--journal", [&](auto v) { o.journal = v; }},
      {"--file", [&](auto v) { o.file = v; }},
      {"--file-offset", [&](auto v) { o.fileOffset = number(v); }},
      {"--ready-file", [&](auto v) { o.readyFile = v; }},
      {"--server-pid",
       [&](auto v) {
         while (!v.empty()) {
           const auto comma = v.find(',');
           o.serverPids.push_back(static_cast<pid_t>(small(v.substr(0, comma))));
           v = comma == std::string_view::npos ? std::string_view{} : v.substr(comma + 1);
         }
       }},
  };
  const std::map<std::string_view, bool*> switches = {
      {"--structured", &o.structured},
      {"--sequential", &o.sequential},
      {"--fua", &o.fua},
      {"--init", &o.initialise},
      {"--verify", &o.verify},
      {"--settle", &o.settle},
      {"--tolerate-errors", &o.tolerateErrors},
      {"--tolerate-disconnect", &o.tolerateDisconnect},
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (const auto at = switches.find(word); at != switches.end()) {
      *at->second = true;
    } else if (const auto with = values.find(word); with != values.end()) {
      if (++i == argc) refuse(std::string(word) + " needs a value");
      with->second(argv[i]);
    } else {
      refuse("unknown word " + std::string(word));
    }
  }
  check(o);
  return o;
}

}  // namespace metadisk::load
