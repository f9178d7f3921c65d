// Passes over a graph: each gives another graph that computes the same, to rounding where the order of a sum changes.
#pragma once

#include <string>
#include <vector>

#include "passes/rewrite.h"

namespace bptt {

/// Sums of products with weights become one operation: W x + U h + b.
Rewritten accumulate_sums(const Graph&, const Request&);

/// Such operations on the same inputs become one, of stacked weights, and slices of its result.
Rewritten stack_products(const Graph&, const Request&);

/// Element-wise operations that follow one another become one pass over memory.
Rewritten chain_elementwise(const Graph&, const Request&);

/// The groups of weights, by name, that would best lie as the row blocks of one matrix.
std::vector<std::vector<std::string>> stacked_weights(const Graph&);

/// All of them, one after the other.
Rewritten rewritten(const Graph&, const Request&);

}  // namespace bptt
