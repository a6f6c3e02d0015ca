#include "engine/closer.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace metadisk {

namespace {

constexpr auto kPatience = std::chrono::seconds(1);

// Signals belong to the process's main thread. False: no thread is to be had.
bool aside(std::function<void()> work) noexcept {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool started = true;
  try {
    std::thread(std::move(work)).detach();
  } catch (const std::system_error&) {
    started = false;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return started;
}

}  // namespace

struct Closer::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t issued = 0;
  std::map<std::uint64_t, std::uint32_t> closing;  // components, in the order in which their closes began
  unsigned waiting = 0;                            // afterwards() that have not called yet
};

Closer::Closer() : state_(std::make_shared<State>()) {}

Closer::~Closer() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [this] { return state_->waiting == 0; });
}

std::shared_ptr<ComponentFile> Closer::share(std::unique_ptr<ComponentFile> file) {
  return {file.release(), [state = state_](ComponentFile* last) {
            std::uint64_t ticket = 0;
            {
              const std::lock_guard lock(state->mutex);
              ticket = ++state->issued;
              state->closing.emplace(ticket, last->component);
            }
            const auto close = [state, last, ticket] {
              std::default_delete<ComponentFile>{}(last);
              const std::lock_guard lock(state->mutex);
              state->closing.erase(ticket);
              state->changed.notify_all();
            };
            if (!aside(close)) close();
          }};
}

bool Closer::closing(std::uint32_t component) const {
  const std::lock_guard lock(state_->mutex);
  return std::any_of(state_->closing.begin(), state_->closing.end(),
                     [component](const auto& entry) { return entry.second == component; });
}

void Closer::afterwards(std::function<void()> then) {
  {
    const std::lock_guard lock(state_->mutex);
    if (!state_->closing.empty()) {
      const auto wait = [state = state_, last = state_->issued, then] {
        {
          std::unique_lock held(state->mutex);
          state->changed.wait_for(held, kPatience,
                                  [&] { return state->closing.empty() || state->closing.begin()->first > last; });
        }
        then();
        const std::lock_guard held(state->mutex);
        state->waiting--;
        state->changed.notify_all();
      };
      if (aside(wait)) {
        state_->waiting++;
        return;
      }
    }
  }
  then();
}

}  // namespace metadisk
