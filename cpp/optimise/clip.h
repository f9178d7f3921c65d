// Gradients are clipped where they lie: one pass over a flat buffer, or two.
#pragma once

#include <Eigen/Core>
#include <limits>

#include "unroll/arena.h"
#include "unroll/team.h"

namespace bptt {

template <class S>
struct Clip {
  enum class Kind { None, ByValue, ByGlobalNorm };
  Kind kind = Kind::None;
  double limit = 0;

  /// Whether finite gradients may have squares that are not, after it.
  bool leaves_large() const {
    return kind == Kind::None || !(2 * limit * limit < static_cast<double>(std::numeric_limits<S>::max()));
  }

  /// One thread's share of it, of gradients that are finite. `norms` is there to be used, and has room for them.
  void operator()(Block<S>& gradients, Block<double>& norms, Member& member) const {
    const Index from = member.part.begin(gradients.size()), to = member.part.end(gradients.size());
    Eigen::Map<Eigen::Array<S, Eigen::Dynamic, 1>> g(gradients.data() + from, to - from);
    const S bound = static_cast<S>(limit);
    switch (kind) {
      case Kind::None:
        return;
      case Kind::ByValue:
        g = g.max(-bound).min(bound);
        return;
      case Kind::ByGlobalNorm: {
        // Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
        // algorithm 1.
        const double norm = global_norm(gradients, norms, member);
        if (norm > limit) g *= static_cast<S>(limit / norm);
        return;
      }
    }
  }

  /// How many norms there are of so many numbers.
  Index norms(Index size) const { return kind == Kind::ByGlobalNorm ? pieces(size) : 0; }

 private:
  static constexpr Index piece = 4096;
  static Index pieces(Index size) { return (size + piece - 1) / piece; }

  /// First those of pieces, then the norm of them: the same bits for any number of threads. In double, and scaled there,
  /// so that the squares of large gradients do not overflow.
  static double global_norm(const Block<S>& gradients, Block<double>& norms, Member& member) {
    const auto norm_of = [&](Index from) {
      const Index n = std::min(piece, gradients.size() - from);
      return Eigen::Map<const Eigen::Array<S, Eigen::Dynamic, 1>>(gradients.data() + from, n)
          .template cast<double>()
          .matrix()
          .stableNorm();
    };
    const Index count = pieces(gradients.size());
    for (Index i = member.part.begin(count); i < member.part.end(count); ++i)
      norms.data()[i] = norm_of(i * piece);
    member.barrier();
    return count == 1 ? *norms.data() : Eigen::Map<const Eigen::VectorXd>(norms.data(), count).stableNorm();
  }
};

}  // namespace bptt
