// Adam: Kingma & Ba, "Adam: a method for stochastic optimization", ICLR 2015 (arXiv:1412.6980).
//
//   m = beta1 m + (1 - beta1) g         v = beta2 v + (1 - beta2) g^2
//
// then, as in algorithm 1,            w -= rate  mhat / (sqrt(vhat) + epsilon)
// or, in the form of the end of §2,   w -= rate_t  m  / (sqrt(v) + epsilon)
//
// with mhat = m / (1 - beta1^t), vhat = v / (1 - beta2^t), rate_t = rate sqrt(1 - beta2^t) / (1 - beta1^t).
// In the second form epsilon (the paper's epsilon hat) is added before the bias of v is corrected.
#pragma once

#include <cmath>

#include "unroll/weights.h"

namespace bptt {

template <class S>
class Adam {
 public:
  struct Settings {
    double learning_rate, beta1, beta2, epsilon;
    bool epsilon_hat;
  };

  explicit Adam(const Settings& settings) : settings(settings) {}

  /// One thread's share of a step for all weights, in runs that stay in the first cache. Whoever asked for it counts it
  /// in `steps`.
  void update(Block<S>& weights, Block<S>& gradients, Part part) {
    const double t = static_cast<double>(steps + 1);
    const double correction1 = 1 - std::pow(settings.beta1, t);
    const double root2 = std::sqrt(1 - std::pow(settings.beta2, t));
    // Algorithm 1 is the other form with epsilon scaled by the correction of sqrt(v).
    const S rate = static_cast<S>(settings.learning_rate * root2 / correction1);
    const S epsilon = static_cast<S>(settings.epsilon_hat ? settings.epsilon : settings.epsilon * root2);
    const S beta1 = static_cast<S>(settings.beta1), beta2 = static_cast<S>(settings.beta2);
    const S rest1 = static_cast<S>(1 - settings.beta1), rest2 = static_cast<S>(1 - settings.beta2);

    const Index size = weights.size();
    constexpr Index run = 512;
    const Index runs = (size + run - 1) / run;
    for (Index i = part.begin(runs); i < part.end(runs); ++i) {
      const Index from = i * run, n = std::min(run, size - from);
      const auto row = [&](Block<S>& block) {
        return Eigen::Map<Eigen::Array<S, Eigen::Dynamic, 1>>(block.data() + from, n);
      };
      auto w = row(weights), g = row(gradients), m = row(this->m), v = row(this->v);
      m = beta1 * m + rest1 * g;
      v = beta2 * v + rest2 * g.square();
      w -= rate * m / (v.sqrt() + epsilon);
    }
  }

  /// Makes room for the moments, once the layout of the weights is known.
  void reserve(Weights<S>& weights) {
    if (m.size() == weights.values().size()) return;
    m = Block<S>(weights.values().size());
    v = Block<S>(weights.values().size());
  }

  Settings settings;
  Index steps = 0;
  Block<S> m, v;  // the moments, in the layout of the weights
};

}  // namespace bptt
