// Which numbers of a program are needed when, and where they lie: what is not needed at the same time shares memory.
//
// The steps of a program: what comes in; forward over each stage; the turn; back over each stage, from the last to the
// first; what goes out. What is read from outside is needed to the end: what was fetched, carried state, placeholders,
// gradients that were asked for. Other values are needed until their last use, or, where there is a backward, until their
// users and their maker have been swept back; a gradient from the first sweep that adds to it until its maker's.
#pragma once

#include <algorithm>
#include <vector>

#include "unroll/plan.h"

namespace bptt {

/// From one step of a program to another, both included.
struct Life {
  int first, last;
  bool meets(const Life& other) const { return first <= other.last && other.first <= last; }
};

class Lives {
 public:
  Lives(const Graph&, const Plan&, const Request&);

  /// Of a frame value, and of its gradient. The two sides of a recurrence have one.
  const Life& value(Value v) const { return values_[static_cast<std::size_t>(v)]; }
  const Life& gradient(Value v) const { return gradients_[static_cast<std::size_t>(v)]; }
  /// The step back over a stage, and the one before all of them.
  int back(std::size_t stage) const { return turn() + static_cast<int>(stages_ - stage); }
  int turn() const { return static_cast<int>(stages_) + 1; }
  /// The stage of a step back; of the turn, as many as there are.
  std::size_t stage_back(int step) const {
    return stages_ - static_cast<std::size_t>(std::max(step - turn(), 0));
  }

 private:
  int forward(std::size_t stage) const { return static_cast<int>(stage) + 1; }
  int end() const { return turn() + turn(); }

  std::size_t stages_;
  std::vector<Life> values_, gradients_;
};

/// So many numbers that are needed for some time, and where they lie.
struct Slot {
  Index size;
  Life life;
  Index place = 0;
};

/// Places them; returns how much room they take. Greedy by size: the largest first, each in the smallest gap that it fits
/// into among those needed at the same time (Pisarchyk & Lee, "Efficient memory management for deep neural net
/// inference", 2020, algorithm 3).
Index place(std::vector<Slot>&);

}  // namespace bptt
