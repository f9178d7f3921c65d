// One of several threads that are in the same call, and how it meets the others.
#pragma once

#include "kernel/part.h"

namespace bptt {

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
