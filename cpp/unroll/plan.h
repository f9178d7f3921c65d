// What a request takes of a graph: which values, in which stages, and which of their gradients.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "unroll/schedule.h"

namespace bptt {

/// What a program is built for.
struct Request {
  Index frames = 1;                      // T
  std::vector<Value> fetches = {};       // values that will be read
  Value loss = -1;                       // a (1, 1) window value; -1: there is none, and no backward
  std::vector<Value> wrt = {};           // placeholders and past values whose gradients will be read
  std::uint64_t seed = 0;                // of the noise
  std::vector<std::string> frozen = {};  // weights whose gradients nobody needs
  bool passes = true;                    // false: operations run as they were traced
  bool trains = true;                    // false: the loss is looked at and never differentiated
  bool edges = false;                    // gradients of carried state come in from outside, and are read
  Index share_from = Index{1} << 20;     // bytes, from which on what is not needed at a time shares memory
};

struct Plan {
  /// Throws UsageError for a request that has no meaning.
  Plan(const Graph&, const Request&);

  std::vector<Stage> stages;
  std::vector<bool> computed;        // by value: it has numbers
  std::vector<bool> differentiated;  // by value: it has a gradient
  std::vector<bool> backward;        // by node: it is on the way from the loss to what is differentiated
  std::vector<int>
      begins;  // by frame value: the node that writes its gradient before others add to it; -1: none

 private:
  /// That node of the last stage that adds to it, if it makes nothing that the value depends on.
  int begins_gradient(const Graph&, const Request&, Value) const;
  /// For each value, whether the loss depends on it, and it on a weight that is not frozen, or on one of `wrt`. The
  /// weights of a cell have gradients together, or none has.
  static std::vector<bool> wanted_gradients(const Graph&, const Request&);
};

}  // namespace bptt
