// The rules of the optimisers: one block each, its equations at the top. g is the gradient, t counts updates from 1.
//
// A block has the names of its moments, and `at(update)`, which makes what does not differ from number to number once
// and gives back the rest: a function of rows of weights, gradients and moments.
//
// Weight decay (lambda) is what all of them share: it is added to the gradient, g + lambda w, as the slope of
// lambda/2 |w|², unless a rule says that it is decoupled: then w shrinks by the factor 1 - rate lambda first.
#include <Eigen/Core>
#include <cmath>

#include "optimise/optimiser.h"

namespace bptt {
namespace {

template <class S>
using Row = Eigen::Map<Eigen::Array<S, Eigen::Dynamic, 1>>;
template <class S>
using Rows = std::array<Row<S>, Buffers<S>::most>;

/// Stochastic gradient descent; with momentum (Polyak 1964), or Nesterov's, in the form of Sutskever, Martens, Dahl &
/// Hinton, "On the importance of initialization and momentum in deep learning", ICML 2013, as PyTorch writes it:
///
///   b = momentum b + g        w -= rate b, or with Nesterov rate (g + momentum b)
template <class S>
struct Sgd {
  S momentum;
  bool nesterov;
  static constexpr double start = 0;

  std::vector<std::string> moments() const {
    return momentum == S(0) ? std::vector<std::string>{} : std::vector<std::string>{"b"};
  }

  auto at(const Update& update) const {
    return [*this, rate = static_cast<S>(update.rate)](Row<S>& w, const Row<S>& g, Rows<S>& moments) {
      if (momentum == S(0)) {
        w -= rate * g;
        return;
      }
      Row<S>& b = moments[0];
      b = momentum * b + g;
      if (nesterov)
        w -= rate * (g + momentum * b);
      else
        w -= rate * b;
    };
  }
};

/// RMSProp: Tieleman & Hinton, lecture 6.5 of "Neural networks for machine learning", 2012. Centred by the mean of g, and
/// with momentum, as in Graves 2013 (arXiv:1308.0850), equations 38 to 41, but with epsilon outside of the root:
///
///   v = alpha v + (1 - alpha) g²    a = alpha a + (1 - alpha) g    d = g / (sqrt(v - a²) + epsilon)
///   b = momentum b + d              w -= rate b
///
/// without centring a = 0, without momentum b = d.
template <class S>
struct RmsProp {
  S alpha, rest, epsilon, momentum;
  bool centered;
  static constexpr double start = 0;

  std::vector<std::string> moments() const {
    std::vector<std::string> names{"v"};
    if (centered) names.emplace_back("a");
    if (momentum != S(0)) names.emplace_back("b");
    return names;
  }

  auto at(const Update& update) const {
    return [*this, rate = static_cast<S>(update.rate)](Row<S>& w, const Row<S>& g, Rows<S>& moments) {
      Row<S>& v = moments[0];
      v = alpha * v + rest * g.square();
      const auto move = [&](const auto& step) {
        if (momentum == S(0)) {
          w -= rate * step;
          return;
        }
        Row<S>& b = moments[centered ? 2 : 1];
        b = momentum * b + step;
        w -= rate * b;
      };
      if (!centered) return move(g / (v.sqrt() + epsilon));
      Row<S>& a = moments[1];
      a = alpha * a + rest * g;
      move(g / ((v - a.square()).max(S(0)).sqrt() + epsilon));  // rounding may leave a variance below 0
    };
  }
};

/// Adagrad: Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic optimization", JMLR
/// 2011, figure 1 with diagonal matrices.
///
///   s = s + g²     w -= rate g / (sqrt(s) + epsilon)    or, with epsilon inside,   rate g / sqrt(s + epsilon)
template <class S>
struct Adagrad {
  S epsilon;
  bool epsilon_inside;
  double start;

  std::vector<std::string> moments() const { return {"s"}; }

  auto at(const Update& update) const {
    return [*this, rate = static_cast<S>(update.rate)](Row<S>& w, const Row<S>& g, Rows<S>& moments) {
      Row<S>& s = moments[0];
      s += g.square();
      if (epsilon_inside)
        w -= rate * g / (s + epsilon).sqrt();
      else
        w -= rate * g / (s.sqrt() + epsilon);
    };
  }
};

/// Adam: Kingma & Ba, "Adam: a method for stochastic optimization", ICLR 2015 (arXiv:1412.6980).
///
///   m = beta1 m + (1 - beta1) g         v = beta2 v + (1 - beta2) g²
///
/// then, as in algorithm 1,            w -= rate  mhat / (sqrt(vhat) + epsilon)
/// or, in the form of the end of §2,   w -= rate_t  m  / (sqrt(v) + epsilon)
///
/// with mhat = m / (1 - beta1^t), vhat = v / (1 - beta2^t), rate_t = rate sqrt(1 - beta2^t) / (1 - beta1^t).
/// In the second form epsilon (the paper's epsilon hat) is added before the bias of v is corrected.
///
/// With decoupled weight decay it is AdamW: Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019
/// (arXiv:1711.05101), algorithm 2.
template <class S>
struct Adam {
  double beta1, beta2, epsilon;
  bool epsilon_hat, decoupled;
  static constexpr double start = 0;

  std::vector<std::string> moments() const { return {"m", "v"}; }

  auto at(const Update& update) const {
    const double t = static_cast<double>(update.count);
    const double correction1 = 1 - std::pow(beta1, t);
    const double root2 = std::sqrt(1 - std::pow(beta2, t));
    // Algorithm 1 is the other form with epsilon scaled by the correction of sqrt(v).
    return [rate = static_cast<S>(update.rate * root2 / correction1),
            epsilon = static_cast<S>(epsilon_hat ? epsilon : epsilon * root2), beta1 = static_cast<S>(beta1),
            beta2 = static_cast<S>(beta2), rest1 = static_cast<S>(1 - beta1),
            rest2 = static_cast<S>(1 - beta2)](Row<S>& w, const Row<S>& g, Rows<S>& moments) {
      Row<S>&m = moments[0], &v = moments[1];
      m = beta1 * m + rest1 * g;
      v = beta2 * v + rest2 * g.square();
      w -= rate * m / (v.sqrt() + epsilon);
    };
  }
};

/// A rule carried out piece by piece.
template <class S, class Block>
class ByPieces final : public Optimiser<S> {
 public:
  explicit ByPieces(const Block& rule) : rule_(rule) {}

  std::vector<std::string> moments() const override { return rule_.moments(); }
  double start() const override { return rule_.start; }

  void update(const Update& update, std::span<const Piece> pieces, const Buffers<S>& buffers) const override {
    const auto move = rule_.at(update);
    for (const Piece& piece : pieces) {
      const auto row = [&](S* buffer) {
        return buffer ? Row<S>(buffer + piece.from, piece.size) : Row<S>(nullptr, 0);
      };
      Row<S> w = row(buffers.weights), g = row(buffers.gradients);
      Rows<S> moments{row(buffers.moments[0]), row(buffers.moments[1]), row(buffers.moments[2])};
      if (piece.decay != 0) decay(w, g, update.rate, piece.decay);
      move(w, g, moments);
    }
  }

 private:
  void decay(Row<S>& w, Row<S>& g, double rate, double decay) const {
    if constexpr (requires { rule_.decoupled; })
      if (rule_.decoupled) {
        w *= static_cast<S>(1 - rate * decay);
        return;
      }
    g += static_cast<S>(decay) * w;
  }

  Block rule_;
};

template <class S, class Block>
Rule<S> by_pieces(const Block& rule) {
  return std::make_shared<ByPieces<S, Block>>(rule);
}

}  // namespace

template <class S>
Rule<S> sgd(double momentum, bool nesterov) {
  return by_pieces<S>(Sgd<S>{static_cast<S>(momentum), nesterov});
}

template <class S>
Rule<S> rmsprop(double alpha, double epsilon, double momentum, bool centered) {
  return by_pieces<S>(RmsProp<S>{static_cast<S>(alpha), static_cast<S>(1 - alpha), static_cast<S>(epsilon),
                                 static_cast<S>(momentum), centered});
}

template <class S>
Rule<S> adagrad(double epsilon, bool epsilon_inside, double start) {
  return by_pieces<S>(Adagrad<S>{static_cast<S>(epsilon), epsilon_inside, start});
}

template <class S>
Rule<S> adam(double beta1, double beta2, double epsilon, bool epsilon_hat, bool decoupled) {
  return by_pieces<S>(Adam<S>{beta1, beta2, epsilon, epsilon_hat, decoupled});
}

template Rule<float> sgd<float>(double, bool);
template Rule<double> sgd<double>(double, bool);
template Rule<float> rmsprop<float>(double, double, double, bool);
template Rule<double> rmsprop<double>(double, double, double, bool);
template Rule<float> adagrad<float>(double, bool, double);
template Rule<double> adagrad<double>(double, bool, double);
template Rule<float> adam<float>(double, double, double, bool, bool);
template Rule<double> adam<double>(double, double, double, bool, bool);

}  // namespace bptt
