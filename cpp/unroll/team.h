// A few threads that work on one window together.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <vector>

#include "ops/operation.h"
#include "unroll/pulse.h"

namespace bptt {

/// The thread that calls and up to `threads - 1` others, which are started at first use. Between calls they stay awake for
/// a moment, and then sleep. A process that was forked off has none of them; it starts its own.
class Team {
 public:
  /// Windows of less work than this, in multiplications of one forward, are not shared out: docs/threads.md.
  static constexpr Index worth = Index{1} << 25;
  /// Nor are the rows of a frame, where threads meet in every one, with less than this part of that.
  static constexpr Index meetings = 128;

  explicit Team(Index threads, Index least = worth);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  /// Threads at most.
  Index size() const { return size_; }
  /// Work from which on a window is shared out.
  Index least() const { return least_; }

  /// Calls work(member, pulse) in all threads at the same time, and returns when all are done. Throws what the first to
  /// throw threw; the others then leave too, at a barrier or when their pulse looks up. The caller keeps its pulse.
  template <class F>
  void run(Pulse& pulse, F& work) {
    call({&work, [](void* f, Member& member, Pulse& p) { (*static_cast<F*>(f))(member, p); }}, pulse);
  }

 private:
  struct Work {
    void* closure;
    void (*run)(void* closure, Member&, Pulse&);
  };
  friend struct Crew;

  void call(Work, Pulse&);
  void start();
  void abandon();

  Index size_, least_;
  std::unique_ptr<Crew> crew_;
};

}  // namespace bptt
