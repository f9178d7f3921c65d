// How the work of a stage is dealt out to threads.
#pragma once

#include "ops/operation.h"
#include "unroll/schedule.h"

namespace bptt {

struct Deal {
  enum class Kind {
    Whole,   // one thread does all of it
    Frames,  // each does some pieces of the window
    Lanes,   // each goes through the whole window with some of the lanes
    Rows,    // each makes some of the rows of a frame, and then they meet, frame by frame
  };
  Kind kind = Kind::Whole;
  Index lanes = 1;  // Lanes: as many as there are
  Index run = 1;    // Lanes: as many at least, and in multiples
  bool apart =
      false;  // Frames: it uses what another thread made of the frame before a piece, or adds to its gradient

  /// Whether all threads work on the same part of the numbers in both stages.
  bool same(const Deal& other) const {
    return kind == other.kind && lanes == other.lanes && run == other.run && !apart && !other.apart;
  }

  /// A share of the lanes: all if they are not dealt out; perhaps none.
  Range share(Index begin, Index end, Part part) const {
    if (kind != Kind::Lanes || part.count == 1) return {begin, end};
    const Index runs = lanes / run;
    const Index from = part.begin(runs) * run,
                to = part.index + 1 == part.count ? lanes : part.end(runs) * run;
    return {begin, end, from, to - from};
  }
};

/// How this stage can be dealt out, over windows of so many frames in so many pieces. Numbers have so many bytes.
Deal deal(const Graph&, const Stage&, Index frames, Index pieces, std::size_t bytes);

}  // namespace bptt
