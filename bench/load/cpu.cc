#include "cpu.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

namespace metadisk::load {
namespace {

void collect(pid_t pid, std::set<pid_t>& into) {
  if (!into.insert(pid).second) return;
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  DIR* dir = ::opendir(tasks.c_str());
  if (dir == nullptr) return;
  while (const dirent* entry = ::readdir(dir)) {
    std::ifstream children(tasks + "/" + entry->d_name + "/children");
    for (pid_t child = 0; children >> child;) collect(child, into);
  }
  ::closedir(dir);
}

// utime + stime of the thread group; the kernel scales their sum to the exact run time.
double statSeconds(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return 0;
  const auto close = line.rfind(')');
  if (close == std::string::npos) return 0;
  std::istringstream rest(line.substr(close + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i) rest >> skipped;  // state .. cmajflt
  double user = 0, system = 0;
  rest >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace

double cpuSeconds(std::span<const pid_t> pids) {
  std::set<pid_t> all;
  for (const pid_t pid : pids) collect(pid, all);
  double sum = 0;
  for (const pid_t pid : all) sum += statSeconds(pid);
  return sum;
}

double ownCpuSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace metadisk::load
