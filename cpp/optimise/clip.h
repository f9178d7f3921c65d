// Gradients are clipped where they lie: one pass over a flat buffer.
#pragma once

#include <Eigen/Core>

#include "unroll/arena.h"

namespace bptt {

template <class S>
struct Clip {
  enum class Kind { None, ByValue, ByGlobalNorm };
  Kind kind = Kind::None;
  double limit = 0;

  void operator()(Block<S>& gradients) const {
    Eigen::Map<Eigen::Array<S, Eigen::Dynamic, 1>> g(gradients.data(), gradients.size());
    const S bound = static_cast<S>(limit);
    switch (kind) {
      case Kind::None:
        return;
      case Kind::ByValue:
        g = g.template max<Eigen::PropagateNaN>(-bound).template min<Eigen::PropagateNaN>(bound);
        return;
      case Kind::ByGlobalNorm: {
        // Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
        // algorithm 1.
        // In double, and scaled there, so that the squares of large gradients do not overflow.
        const double norm = g.template cast<double>().matrix().stableNorm();
        if (norm > limit) g *= static_cast<S>(limit / norm);
        return;
      }
    }
  }
};

}  // namespace bptt
