// Element-wise operations as loops over numbers side by side, whole packets of them, for chains of several.
#pragma once

#include <string>

#include "ops/operation.h"

namespace bptt {

/// One step back, from y = f(a, b): da (+)= dy dy/da, db (+)= dy dy/db. Values go by numbers, and so do their gradients.
struct RowBack {
  std::size_t y, a, b;
  bool to_a = false, to_b = false;  // wanted
  bool add_a = false, add_b = false;
};

/// One element-wise operation over n numbers, whole packets; of a unary one, b is not looked at.
template <class S>
struct RowRule {
  void (*forward)(S* y, const S* a, const S* b, Index n);
  /// Value v is at at[v], if it is looked at; its gradient at gradients + v n.
  void (*backward)(const RowBack&, S* const* at, S* gradients, Index n);
  int operands;
  bool differentiable;
  bool costly;                     // to be kept for the backward rather than computed once more
  bool reads_a, reads_b, reads_y;  // what `backward` looks at
};

/// The rule of the operation of this name; null if it is not element-wise.
template <class S>
const RowRule<S>* row_rule(const std::string& name);

}  // namespace bptt
