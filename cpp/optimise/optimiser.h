// The contract between a training and the rule by which it changes weights.
//
// A rule says how one number of a weight moves by its gradient and by the numbers that are kept beside it, its moments.
// It holds settings only: the moments belong to the training, in buffers of the weights' layout, so that threads,
// checkpoints and copies know no rule.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "frame/graph.h"

namespace bptt {

/// A run of numbers that are updated alike, short enough to stay in the first cache.
struct Piece {
  static constexpr Index longest = 512;
  Index from, size;
  double decay = 0;  // of their weights
};

/// What one update is made with.
struct Update {
  double rate;  // the learning rate
  Index count;  // which one it is, counted from 1
};

/// The flat buffers that it goes over.
template <class S>
struct Buffers {
  static constexpr std::size_t most = 3;
  S *weights, *gradients;
  std::array<S*, most> moments;  // as many as the rule has
};

template <class S>
class Optimiser {
 public:
  virtual ~Optimiser() = default;

  /// The names of the moments.
  virtual std::vector<std::string> moments() const = 0;
  /// What they are before the first update.
  virtual double start() const = 0;
  /// Changes the weights and the moments at these pieces; the gradients there may change too.
  virtual void update(const Update&, std::span<const Piece>, const Buffers<S>&) const = 0;
};

template <class S>
using Rule = std::shared_ptr<Optimiser<S>>;

// The rules; their equations stand in rules.cc.

template <class S>
Rule<S> sgd(double momentum, bool nesterov);
template <class S>
Rule<S> rmsprop(double alpha, double epsilon, double momentum, bool centered);
template <class S>
Rule<S> adagrad(double epsilon, bool epsilon_inside, double start);
template <class S>
Rule<S> adam(double beta1, double beta2, double epsilon, bool epsilon_hat, bool decoupled);

}  // namespace bptt
