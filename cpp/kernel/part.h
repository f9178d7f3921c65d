// What one of several threads does of something.
#pragma once

#include "kernel/panels.h"

namespace bptt {

/// A share of work that is dealt out to threads: number `index` of `count`.
struct Part {
  Index index = 0, count = 1;

  /// This share of the numbers 0 ... size - 1, in order: from `begin` to `end`.
  Index begin(Index size) const { return share(size * index); }
  Index end(Index size) const { return share(size * (index + 1)); }
  Span of(Index size) const { return {begin(size), end(size)}; }
  Span of(const Panels& panels) const { return of(panels.count()); }

 private:
  Index share(Index all) const { return count == 1 ? all : all / count; }  // a division takes its time
};

}  // namespace bptt
