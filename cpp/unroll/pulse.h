// Long loops look up now and then, whether someone wants them to stop.
#pragma once

#include <functional>
#include <utility>

#include "frame/graph.h"

namespace bptt {

/// Counts work, in multiplications or so, and calls `look` about every few milliseconds of it. `look` may throw; whoever
/// calls `spend` must be in a state to be left.
class Pulse {
 public:
  explicit Pulse(std::function<void()> look = {}) : look_(std::move(look)) {}

  /// As much work as may go by unseen.
  static constexpr Index unseen = Index{1} << 24;

  void spend(Index work) {
    spent_ += work;
    if (spent_ < unseen) return;
    spent_ = 0;
    if (look_) look_();
  }

 private:
  std::function<void()> look_;
  Index spent_ = 0;
};

}  // namespace bptt
