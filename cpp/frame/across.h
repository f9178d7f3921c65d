// What ranks have together. Processes that train one net, ranks, have its weights in common and the lanes each for itself:
// every rank traces the frame with its own lanes. Here is said of each value, how that of one process with all lanes comes
// from those of the ranks.
#pragma once

#include "frame/graph.h"

namespace bptt {

enum class Across {
  Same,  // every rank has it: it depends on weights, or on what lanes have in common
  Either,  // made of constants with as many columns as there are lanes: one for each, or a matrix like any other
  Lanes,    // it has a column for each lane, which depends on no other lane
  Mean,     // it is the mean of the ranks', weighted by how much of their lanes counts
  Sum,      // it is the sum of the ranks'
  Unknown,  // what ranks have is not enough
};

/// By value. With masks it differs from rank to rank how many frames count.
std::vector<Across> across(const Graph&, bool resets, bool masks);

/// Of window values alone: Sum, or Mean, which one that is the Same is, too. Throws UsageError for one that is neither,
/// naming where that comes from.
std::vector<Across> across(const Graph&, const std::vector<Value>&, bool resets, bool masks);

}  // namespace bptt
