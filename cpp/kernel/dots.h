// The other way through a packed factor: y (+)= A^T b for a column alone and a few numbers y. Each is the dot product of b
// with a column of A, which lies in the panels in one piece each; so no transpose has to be packed, which for so few
// would take longer than all products with it.
#pragma once

#include <vector>

#include "kernel/panels.h"

namespace bptt {

/// What is to be done.
template <class S>
struct DotTask {
  const Panelled<S>& left;             // A
  Index first;                         // its column for the first number of y
  const std::vector<Right<S>>& right;  // what the first rows of each panel meet, without steps
  Index column;                        // of that
  S* y;
  Index valid;  // so many numbers at y may be written: zeros, or y as it is, behind those that are made
  bool add;     // to y, or overwrite it
};

/// Those made of one kind of packet.
template <class S>
struct Dots {
  using Run = void (*)(const DotTask<S>&);
  static constexpr Index most = 8;

  Index width;
  Run run[most];  // [numbers - 1]

  /// Whether it makes so many.
  bool take(Index numbers) const { return numbers <= std::min(width, most); }
  void operator()(Index numbers, const DotTask<S>& task) const { run[numbers - 1](task); }

  /// Those of this width, one that `packet_width` gave.
  static const Dots& of(Index width);
};

extern template struct Dots<float>;
extern template struct Dots<double>;

}  // namespace bptt
