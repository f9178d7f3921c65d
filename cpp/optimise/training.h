// Consecutive windows of a sequence: feed, forward, backward, clip, update, carry the state on.
#pragma once

#include <cmath>
#include <functional>
#include <sstream>
#include <vector>

#include "optimise/adam.h"
#include "optimise/clip.h"
#include "unroll/program.h"

namespace bptt {

/// A sequence of frames wherever it lies in memory, seen in any order of axes. Strides count numbers, not
/// bytes.
template <class S>
struct Sequence {
  const S* data;
  Index frames;
  Shape shape;
  Index time_stride, feature_stride, batch_stride;

  /// Copies `count` frames from `start` on to a packed block; after the last frame comes the first.
  void copy(Index start, Index count, S* to) const {
    const bool packed =
        (shape.features == 1 || feature_stride == 1) && (shape.batch == 1 || batch_stride == shape.features);
    for (Index t = 0; t < count; ++t, to += shape.size()) {
      const S* from = data + (start + t) % frames * time_stride;
      if (packed)
        std::copy_n(from, shape.size(), to);
      else
        for (Index b = 0; b < shape.batch; ++b)
          for (Index f = 0; f < shape.features; ++f)
            to[b * shape.features + f] = from[f * feature_stride + b * batch_stride];
    }
  }
};

/// A way to change the weights of a net after a backward pass.
template <class S>
struct Training {
  Weights<S>& weights;
  Clip<S> clip;
  Adam<S> optimiser;

  void update() {
    clip(weights.gradients());
    optimiser.update(weights);
  }
};

/// One window of each sequence, in the order of the program's placeholders.
template <class S>
void feed(Program<S>& program, const std::vector<Sequence<S>>& data, Index start) {
  for (std::size_t i = 0; i < data.size(); ++i)
    data[i].copy(start, program.frames(), program.tensor(program.placeholders()[i]).value);
}

/// Runs as many windows as `losses` has room for, from frame `start` on, and writes the loss of each. Without
/// `training` nothing but the state changes. `between` is called before every window and may throw; state,
/// weights and counters are then those of the last whole window.
template <class S>
void fit(Program<S>& program, State<S>& state, Training<S>* training, const std::vector<Sequence<S>>& data,
         Index start, std::vector<S>& losses, const std::function<void()>& between) {
  for (std::size_t window = 0; window < losses.size(); ++window) {
    between();
    feed(program, data, start + static_cast<Index>(window) * program.frames());
    program.load(state);
    program.forward(state.frame);
    losses[window] = program.loss();
    if (training) {
      if (!std::isfinite(losses[window])) {
        std::ostringstream message;
        message << "the loss of window " << window << " is " << losses[window]
                << "; weights and state are those before it";
        throw NonFiniteError(message.str());
      }
      program.backward();
      training->update();
    }
    program.store(state);
    state.frame += static_cast<std::uint64_t>(program.frames());
  }
}

/// Runs a program frame by frame (T = 1) or window by window over the data, carrying the state, and hands
/// every window to `collect`.
template <class S>
void predict(Program<S>& program, State<S>& state, const std::vector<Sequence<S>>& data, Index windows,
             const std::function<void(Index)>& collect, const std::function<void()>& between) {
  for (Index window = 0; window < windows; ++window) {
    between();
    feed(program, data, window * program.frames());
    program.load(state);
    program.forward(state.frame);
    program.store(state);
    state.frame += static_cast<std::uint64_t>(program.frames());
    collect(window);
  }
}

}  // namespace bptt
