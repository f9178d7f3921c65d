// The way of the recurrent state into a program and out of it again, its places looked up once for many windows.
#pragma once

#include <vector>

#include "kernel/packet.h"
#include "unroll/program.h"
#include "unroll/state.h"

namespace bptt {

/// Both must outlive it. From one window to the next the sequence goes on by so many frames: all of the window's, or fewer
/// where windows overlap.
template <class S>
class Carry {
 public:
  template <class P>
  Carry(P& program, State<S>& state) : Carry(program, state, program.frames()) {}
  template <class P>
  Carry(P& program, State<S>& state, Index frames) : state_(state), frames_(frames) {
    for (const std::string& name : program.pasts()) {
      auto outside = state.at(name), first = program.first(name), last = program.before(name, frames);
      if (outside.rows() != first.rows() || outside.cols() != first.cols())
        throw ShapeError("the state '" + name + "' has another shape than in the program");
      ways_.push_back({outside.data(), first.data(), last.data(), outside.size()});
    }
  }

  /// The number of the next window's first frame.
  std::uint64_t frame() const { return state_.frame; }

  /// Before a window's forward.
  void load() const {
    for (const Way& way : ways_) copy_in_packets(way.outside, way.first, way.size);
  }

  /// After it: the state is that before the next window's first frame, and the frames between have gone by.
  void store() const {
    for (const Way& way : ways_) copy_in_packets(way.last, way.outside, way.size);
    state_.frame += static_cast<std::uint64_t>(frames_);
  }

 private:
  struct Way {
    S *outside, *first, *last;
    Index size;
  };

  State<S>& state_;
  Index frames_;
  std::vector<Way> ways_;
};

}  // namespace bptt
