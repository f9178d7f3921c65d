// The order in which a frame's operations run, and which of them have to go through time step by step.
#pragma once

#include <string>
#include <vector>

#include "frame/graph.h"

namespace bptt {

/// Operations that run together: a strongly connected component of the graph, in the order they were traced.
struct Stage {
  std::vector<int> nodes;
  /// A cycle through time: one frame of every operation, then the next frame. Otherwise whole windows at
  /// once.
  bool stepwise;
};

/// Whether an operation is made of window values, and so runs after the last frame.
bool of_window_values(const Graph&, const Node&);

/// The stages that compute the wanted values, each after those it depends on (recurrences included); those of constants
/// first, those of window values last.
std::vector<Stage> schedule(const Graph&, const std::vector<bool>& wanted);

}  // namespace bptt
