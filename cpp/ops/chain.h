// Several element-wise operations in one pass over memory: what passes make of everything element-wise around a product.
//
// A small program runs over one block of numbers after the other: it loads operands, computes, and stores what is used
// elsewhere. All between stays in the inner cache. The backward goes through the same blocks from below; of the values
// between, those that are costly were kept and the rest is computed once more.
#pragma once

#include "ops/operation.h"

namespace bptt {

/// What a chain computes. Its values are numbered: what is loaded first, then results in order.
struct ChainCode {
  struct Load {
    Index input, start;  // rows `start` ... of an input, or one row, for all
    bool operator==(const Load&) const = default;
  };
  struct Step {
    std::string operation;
    Index a, b;  // b = a if it has one operand
  };
  Shape shape;  // of all results
  std::vector<Load> loads = {};
  std::vector<Step> steps = {};
  std::vector<Index> outputs = {};  // numbers of results, which are computed rather than loaded

  Attributes attributes() const;
  static ChainCode from(const Attributes&);
};

/// Its outputs have a value at each frame. Inputs broadcast to the shape of the results; a frame value's rows may be some
/// of the input's.
const Registered& chain();

/// A chain whose code is known, with outputs of any extent.
template <class S>
std::unique_ptr<Operation<S>> make_chain(const Binding<S>&, const ChainCode&);

}  // namespace bptt
