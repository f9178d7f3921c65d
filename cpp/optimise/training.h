// Consecutive windows of a sequence: feed, forward, backward, meet other ranks, clip, update, carry the state on.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <span>
#include <sstream>
#include <vector>

#include "kernel/denormals.h"
#include "optimise/clip.h"
#include "optimise/moments.h"
#include "optimise/ranks.h"
#include "unroll/carry.h"

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
    const bool packed = time_stride == shape.size() && (shape.features == 1 || feature_stride == 1) &&
                        (shape.batch == 1 || batch_stride == shape.features);
    for (Index at = start % frames; count > 0; at = 0) {
      const Index run = std::min(count, frames - at);
      const S* from = data + at * time_stride;
      count -= run;
      if (packed) {
        to = std::copy_n(from, run * shape.size(), to);
        continue;
      }
      for (Index t = 0; t < run; ++t, from += time_stride)
        for (Index b = 0; b < shape.batch; ++b)
          for (Index f = 0; f < shape.features; ++f) *to++ = from[f * feature_stride + b * batch_stride];
    }
  }
};

/// A way to change the weights of a net by the gradient of a loss.
template <class S>
class Training {
 public:
  /// The weights must outlive it.
  Training(Weights<S>& weights, const Clip<S>& clip, Rule<S> rule, Groups groups = {})
      : weights_(weights), clip_(clip), moments_(std::move(rule), std::move(groups)) {}

  /// How many updates were made.
  Index steps() const { return steps_; }
  /// The next rate, of those planned, is that of the next update all the same.
  void set_steps(Index steps) {
    planned_at_ += steps - steps_;
    steps_ = steps;
  }

  /// The rates of the coming updates, one each; the last serves all that follow.
  void plan(std::vector<double> rates) {
    if (rates.empty()) throw UsageError("expected at least one learning rate");
    rates_ = std::move(rates);
    planned_at_ = steps_;
  }
  /// That of the next update.
  double rate() const {
    return rates_[static_cast<std::size_t>(std::min(steps_ - planned_at_, std::ssize(rates_) - 1))];
  }

  /// What the optimiser keeps beside the weights.
  Moments<S>& moments() {
    moments_.reserve(weights_);
    return moments_;
  }
  const Weights<S>& weights() const { return weights_; }

  /// After a forward: backward, clip, update; nothing where no frame counts. `values`, of which the first is the loss,
  /// become those of all ranks. Throws NonFiniteError, on every rank and with weights and moments as they were, if the loss
  /// or a gradient is not finite.
  template <class P>
  void step(P& program, Pulse& pulse, Ranks<S>& ranks, std::span<S> values) {
    const Index counted = program.counted();
    const bool gradient = counted > 0 && std::isfinite(program.loss());
    if (gradient) program.backward(pulse);
    if (!ranks.meet(counted, program.frames(), gradient, weights_.gradients(), values)) return;
    if (!std::isfinite(values[0])) refuse_loss(program, values[0]);
    moments_.reserve(weights_);
    const Index norms_needed = clip_.norms(weights_.gradients().size());
    if (norms_.size() != norms_needed) norms_ = Block<double>(norms_needed);
    Block<S>& weights = weights_.writable();
    std::atomic<int> found = 0;
    program.together(pulse, [&](Member& member, Pulse&) { update(weights, member, found); });
    ++steps_;
  }

 private:
  /// One thread's share of it; `found` has a bit for each look at the gradients that failed.
  void update(Block<S>& weights, Member& member, std::atomic<int>& found) {
    const FlushDenormals flush;
    Block<S>& all = weights_.gradients();
    if (moments_.some_frozen()) {
      moments_.clear_frozen(all, member.part);
      member.barrier();
    }
    const Index from = member.part.begin(all.size()), to = member.part.end(all.size());
    const Eigen::Map<const Eigen::Array<S, Eigen::Dynamic, 1>> g(all.data() + from, to - from);
    const auto finite = [](const auto& numbers) {
      return (numbers * S(0)).sum() == S(0);  // 0 times infinity or NaN is NaN
    };
    const auto require = [&](bool fine, int look) {
      if (!fine) found |= look;
      member.barrier();
      if ((found & look) == 0) return;
      if (member.first()) refuse_gradient();
      member.barrier();  // where the others leave
    };
    // A look at the squares tells of the numbers, too, and of clipped ones there is nothing to tell.
    if (clip_.kind != Clip<S>::Kind::None) {
      require(finite(g), 1);
      clip_(all, norms_, member);
    }
    require(!clip_.leaves_large() || finite(g.square()), 2);
    moments_.update({rate(), steps_ + 1}, weights, all, member.part);
  }

  /// The present window in words: as many came before as there were updates.
  std::string window() const {
    return "window " + std::to_string(steps_) + " of this training operation, counted from 0,";
  }

  template <class P>
  [[noreturn]] void refuse_loss(P& program, S loss) const {
    std::ostringstream message;
    message << "the loss of " << window() << " is " << loss;
    if (std::isfinite(program.loss()))
      message << " over all ranks, and " << program.loss() << " in this one";
    else
      message << ": the first that is not finite is " << program.not_finite();
    message << ". Weights, moments and state are those before that window";
    throw NonFiniteError(message.str());
  }

  [[noreturn]] void refuse_gradient() const {
    const Block<S>& all = weights_.gradients();
    std::string first;
    S largest = 0;
    bool finite = true;
    for (const Variable& weight : weights_.variables()) {
      const Matrix<S> part = weights_.part(all, weight.name);
      if (!part.array().square().allFinite() && first.empty()) first = weight.name;
      for (const S x : part.reshaped())
        if (std::isfinite(x))
          largest = std::max(largest, std::abs(x));
        else
          finite = false;
    }
    std::ostringstream message;
    message << "the gradient of " << window() << " "
            << (finite ? "has a square that is not finite (clipping would help)" : "is not finite")
            << ", first that of the weight '" << first
            << "'; the largest finite magnitude in the gradient is " << largest
            << ". Weights, moments and state are those before that window";
    throw NonFiniteError(message.str());
  }

  Weights<S>& weights_;
  Clip<S> clip_;
  Moments<S> moments_;
  Index steps_ = 0;
  std::vector<double> rates_{0};
  Index planned_at_ = 0;                   // the number of steps at which the first of them is the next
  Block<double> norms_ = Block<double>();  // for clipping
};

/// A yes or no for each lane of each frame of a sequence, lane fastest; null: there is none.
struct Flags {
  const bool* data = nullptr;
  Index frames = 0, lanes = 1;
  std::unique_ptr<bool[]> room = {};  // for those of a window

  /// Those of `count` frames, at most as many as the first time, from `start` on; after the last frame comes the first.
  const bool* window(Index start, Index count) {
    if (!data) return nullptr;
    if (!room) room = std::make_unique<bool[]>(static_cast<std::size_t>(count * lanes));
    for (Index t = 0; t < count; ++t)
      std::copy_n(data + (start + t) % frames * lanes, lanes, room.get() + t * lanes);
    return room.get();
  }
};

/// What windows are made of: a sequence for each of the program's placeholders, and where lanes begin anew and are valid.
template <class S>
struct Data {
  std::vector<Sequence<S>> sequences;
  Flags resets = {}, valid = {};

  /// Feeds so many frames of a window, from frame `start` on. Those from `counted` on count in losses. All threads copy.
  void feed(Program<S>& program, Index start, Index frames, Index counted, Pulse& pulse) {
    program.together(pulse, [&](Member& member, Pulse&) {
      const Index from = member.part.begin(frames), count = member.part.end(frames) - from;
      for (std::size_t i = 0; i < sequences.size(); ++i) {
        const Sequence<S>& sequence = sequences[i];
        S* const to = program.tensor(program.placeholders()[i]).value;
        sequence.copy(start + from, count, to + from * sequence.shape.size());
      }
    });
    program.mark(resets.window(start, frames), valid.window(start, frames), counted, frames);
  }
};

/// The window from frame `start` of the data on. Of its frames those from `counted` on count in losses.
template <class S>
void feed(Program<S>& program, Data<S>& data, Index start, Index counted, Pulse& pulse) {
  data.feed(program, start, program.frames(), counted, pulse);
}

/// One window from frame `start` of the data on: feed, run, carry the state. Its first lane has this number among all
/// ranks'. `middle` is called between the run and the carrying; if it throws, or the pulse does, state and counter are
/// those before the window.
template <class P, class S, class F>
void run_window(P& program, const Carry<S>& carry, Data<S>& data, Index start, Index counted,
                std::uint64_t lane, Pulse& pulse, F&& middle) {
  feed(program, data, start, counted, pulse);
  carry.load();
  program.forward(carry.frame(), pulse, lane);
  pulse.spend(256);
  middle();
  carry.store();
}

/// Runs windows from frame `start` on, each `stride` frames after the one before; see(window, values) gets the loss of each
/// before its update, which is that of its last `stride` frames, and then the numbers at `watched`, of all ranks. Without
/// `training` nothing but the state changes.
template <class P, class S, class F>
void fit(P& program, State<S>& state, Training<S>* training, Ranks<S>& ranks, Data<S>& data, Index start,
         Index stride, Index windows, const std::vector<const S*>& watched, Pulse& pulse, F&& see) {
  const Carry<S> carry(program, state, stride);
  const Index gradients = training ? training->weights().gradients().size() : 0;
  std::vector<S> values(watched.size() + 1);
  const auto middle = [&] {
    values[0] = program.loss();
    std::ranges::transform(watched, values.begin() + 1, [](const S* value) { return *value; });
    if (training) training->step(program, pulse, ranks, values);
  };
  for (Index window = 0; window < windows; ++window) {
    ranks.window(gradients, [&] {
      run_window(program, carry, data, start + window * stride, program.frames() - stride, ranks.first_lane(),
                 pulse, middle);
    });
    see(window, std::span<const S>(values));
  }
}

/// Runs windows one after the other, and hands each to `collect`.
template <class S, class F>
void predict(Program<S>& program, State<S>& state, Data<S>& data, Index windows, F&& collect, Pulse& pulse) {
  const Carry<S> carry(program, state);
  for (Index window = 0; window < windows; ++window)
    run_window(program, carry, data, window * program.frames(), 0, 0, pulse, [&] { collect(window); });
}

}  // namespace bptt
