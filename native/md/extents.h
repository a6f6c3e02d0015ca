// A request for extents on its way through the components; see extents.cc.
#pragma once

#include <array>

#include "md/volume_impl.h"

namespace metadisk {

struct Volume::Impl::Walk : Io {
  // What a component said of its bytes; one for each, by the low bits of its index.
  struct Known {
    std::uint32_t file = UINT32_MAX;
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    bool hole = false;
  };

  Known& known(std::uint32_t which) noexcept { return answers[which % answers.size()]; }

  Impl* impl = nullptr;
  Request* request = nullptr;
  std::uint64_t at = 0;     // all before it is answered
  std::uint64_t run = 0;    // from there: what the sides asked so far have in one piece
  std::uint32_t side = 0;   // the next one to be asked
  std::uint32_t index = 0;  // of the file that is asked
  std::uint32_t count = 0;  // extents so far
  unsigned questions = 0;
  unsigned pieces = 0;
  bool hole = false;    // at least one side was asked, and none has data
  bool inside = false;  // start() has not returned
  bool answered = false;
  std::array<Known, 16> answers;
  Walk* poolNext = nullptr;
};

}  // namespace metadisk
