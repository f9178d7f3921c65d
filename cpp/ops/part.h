// What one of several threads does of something, and how it meets the others.
#pragma once

#include <cstddef>

#include "kernel/panels.h"

namespace bptt {

/// A share of work that is dealt out to threads: number `index` of `count`.
struct Part {
  Index index = 0, count = 1;

  /// This share of the numbers 0 ... size - 1, in order: from `begin` to `end`.
  Index begin(Index size) const { return share(size * index); }
  Index end(Index size) const { return share(size * (index + 1)); }
  Span of(const Panels& panels) const { return {begin(panels.count()), end(panels.count())}; }

 private:
  Index share(Index all) const { return count == 1 ? all : all / count; }  // a division takes its time
};

struct Crew;

/// One thread's view of a call that several are in.
class Member {
 public:
  /// All of the work, for one thread alone.
  Member() = default;

  /// This thread's share.
  Part part;
  /// It is the one that called.
  bool first() const { return part.index == 0; }
  /// Waits for the others. What they wrote before is seen after. Leaves, by an exception, if one of them threw.
  void barrier() {
    if (crew_) wait_for_all();
  }

 private:
  friend struct Crew;
  void wait_for_all();
  Crew* crew_ = nullptr;
};

}  // namespace bptt
