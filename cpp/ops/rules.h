// Element-wise operations as loops over numbers side by side, whole packets of them, for chains of several.
#pragma once

#include <string>

#include "ops/operation.h"

namespace bptt {

/// What a row of numbers goes through backwards: da (+)= dy dy/da, db (+)= dy dy/db.
template <class S>
struct RowBack {
  const S *a, *b, *y, *dy;
  S *da, *db;  // null: not wanted
  bool add_a, add_b;
  Index n;
};

/// One element-wise operation over n numbers, whole packets; of a unary one, b is not looked at.
template <class S>
struct RowRule {
  void (*forward)(S* y, const S* a, const S* b, Index n);
  void (*backward)(const RowBack<S>&);
  int operands;
  bool differentiable;
  bool costly;                     // to be kept for the backward rather than computed once more
  bool reads_a, reads_b, reads_y;  // what `backward` looks at
};

/// The rule of the operation of this name; null if it is not element-wise.
template <class S>
const RowRule<S>* row_rule(const std::string& name);

}  // namespace bptt
