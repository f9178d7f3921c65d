// Symbols of a finite set, such as the characters of a text: integers from 0 on, held as numbers of the net's precision,
// in which they are exact up to 2^24 (float) or 2^53 (double).
#pragma once

#include "ops/operation.h"

namespace bptt {

/// The integer that stands at a frame and lane of a (1, batch) value. Throws UsageError if it is none of 0 ... count - 1.
template <class S>
Index symbol_at(const Tensor<S>& symbols, Index t, Index lane, Index count, const char* operation) {
  const S number = symbols.values(t)(0, lane);
  if (number >= S(0) && number < static_cast<S>(count)) {
    const Index symbol = static_cast<Index>(number);
    if (static_cast<S>(symbol) == number) return symbol;
  }
  throw UsageError(std::string(operation) + " expects symbols, integers from 0 to " +
                   std::to_string(count - 1) + "; got " + std::to_string(number) + " in lane " +
                   std::to_string(lane) + " at frame " + std::to_string(t) + " of the window");
}

/// Calls f(t, first lane, lane beyond the last) for the frames of a range that a value has.
template <class S, class F>
void each_frame_of(const Tensor<S>& value, const Range& r, F&& f) {
  const Range frames = value.frames(r);
  const bool all = r.lanes == Range::all;
  for (Index t = frames.begin; t < frames.end; ++t)
    f(t, all ? 0 : r.lane, all ? value.shape.batch : r.lane + r.lanes);
}

}  // namespace bptt
