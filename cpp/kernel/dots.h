// The other way through a packed factor: y (+)= A^T b for a column alone. Each number of y is the dot product of b with a
// column of A, which lies in the panels in one piece each; so no transpose has to be packed.
#pragma once

#include <vector>

#include "kernel/panels.h"

namespace bptt {

/// What one packet of y, or less, is to be made of.
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

  Index width;
  Run run[width_of<FullPacket<S>>];  // [numbers - 1], up to `width` of them

  void operator()(Index numbers, const DotTask<S>& task) const { run[numbers - 1](task); }

  /// Those of this width, one that `packet_width` gave.
  static const Dots& of(Index width);
};

extern template struct Dots<float>;
extern template struct Dots<double>;

}  // namespace bptt
