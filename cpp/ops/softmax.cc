// softmax over features, and the cross-entropies of it. Of each column x of logits
//
//   lse = log sum_i exp(x_i)    log_softmax = x - lse    softmax = exp(x - lse)
//
// with the largest logit taken out of the sum first, so that nothing overflows, and a sum of one at least. Probabilities
// are not kept for the way back: their exponential is cheaper than the memory.
#include <cmath>
#include <limits>
#include <tuple>

#include "kernel/activate.h"
#include "ops/symbols.h"

namespace bptt {
namespace {

/// Columns of so many numbers, in packets. What the last packet has beyond the end is -inf: never the largest, its exponential 0.
template <class S>
class Packets {
 public:
  using P = FullPacket<S>;
  static constexpr Index width = width_of<P>;

  explicit Packets(Index size) : size_(size), whole_(size / width * width) {
    S beyond[width];
    for (Index i = 0; i < width; ++i)
      beyond[i] = i < size - whole_ ? S(0) : -std::numeric_limits<S>::infinity();
    beyond_ = Eigen::internal::ploadu<P>(beyond);
  }

  /// Calls f(packet, where it begins, how many of its numbers are real).
  template <class F>
  void each(const S* x, F&& f) const {
    Index i = 0;
    for (; i < whole_; i += width) f(Eigen::internal::ploadu<P>(x + i), i, width);
    if (const Index rest = size_ - i; rest > 0)
      f(Eigen::internal::padd(load_first<P>(x + i, rest), beyond_), i, rest);
  }

  /// The largest number, and the sum of all exponentials to it.
  std::pair<S, S> sum_exp(const S* x) const {
    using namespace Eigen::internal;
    P high = pset1<P>(-std::numeric_limits<S>::infinity()), sum = pset1<P>(S(0));
    each(x, [&](const P& numbers, Index, Index) { high = pmax(high, numbers); });
    const S highest = predux_max(high);
    const P reference = pset1<P>(highest);
    each(x, [&](const P& numbers, Index, Index) {
      sum = padd(sum, packet_exp_below(psub(numbers, reference)));
    });
    return {highest, predux(sum)};
  }

 private:
  Index size_, whole_;
  P beyond_;
};

/// The gradient of an input is added to, or written.
void give(auto dx, const auto& expression, bool fresh) {
  if (fresh)
    dx = expression;
  else
    dx += expression;
}

/// y = softmax(x), or its logarithm.
template <class S, bool logarithm>
class Softmax : public Operation<S> {
 public:
  explicit Softmax(const Binding<S>& b) : x_(b.inputs[0]), y_(b.outputs[0]) {}

  void forward(const Range& r) override {
    const Packets<S> packets(y_.shape.features);
    each_frame_of(y_, r, [&](Index t, Index lane, Index end) {
      for (; lane < end; ++lane) {
        const auto x = x_.values(t).col(lane).array();
        auto y = y_.values(t).col(lane).array();
        const auto [highest, sum] = packets.sum_exp(x.data());
        const S lse = highest + std::log(sum);
        if constexpr (logarithm)
          y = x - lse;
        else
          y = (x - lse).exp();
      }
    });
  }

  void backward(const Range& r) override {
    if (!x_.constant()) add_gradient(r);
  }

  void accumulate(const Range& r, Part) override {
    if (x_.constant()) add_gradient(r);
  }

 private:
  /// dx += y (dy - <dy, y>), of the logarithm dx += dy - softmax sum(dy).
  void add_gradient(const Range& r) {
    if (!x_.gradient) return;
    each_frame_of(y_, r, [&](Index t, Index lane, Index end) {
      for (; lane < end; ++lane) {
        const auto y = y_.values(t).col(lane).array();
        const auto dy = y_.gradients(t).col(lane).array();
        const auto dx = x_.gradients(t).col(lane).array();
        if constexpr (logarithm)
          give(dx, dy - y.exp() * dy.sum(), x_.fresh);
        else
          give(dx, y * (dy - (dy * y).sum()), x_.fresh);
      }
    });
  }

  Tensor<S> x_, y_;
};

OpType softmax_type(const char* name) {
  OpType type;
  type.name = name;
  type.infer = [name](const Call& call) -> std::vector<Signature> {
    require_inputs(call, name, 1);
    return {call.inputs[0]};
  };
  type.examples = {{{{1, 1}}}, {{{5, 3}}}, {{{19, 2}}}};
  type.cost = 12;
  type.split = by_lanes;
  type.begins = begins_first;
  return type;
}

template <class S>
using Probabilities = Softmax<S, false>;
template <class S>
using LogProbabilities = Softmax<S, true>;
const Register<Probabilities> softmax{softmax_type("softmax")};
const Register<LogProbabilities> log_softmax{softmax_type("log_softmax")};

/// What both cross-entropies do of each column of logits; `Target` says of what distribution they are.
template <class S, class Target>
class CrossEntropy : public Operation<S> {
 public:
  explicit CrossEntropy(const Binding<S>& b)
      : x_(b.inputs[0]),
        target_(b.inputs[1]),
        y_(b.outputs[0]),
        lse_(b.scratch.take(y_.shape.batch * b.frames)) {}

  void forward(const Range& r) override {
    const Packets<S> packets(x_.shape.features);
    each_frame_of(y_, r, [&](Index t, Index lane, Index end) {
      const auto x = x_.values(t);
      S* const lse = lse_ + t * y_.shape.batch;
      S* const y = y_.value + t * y_.shape.batch;
      for (Index i = lane; i < end; ++i) std::tie(lse[i], y[i]) = packets.sum_exp(x.col(i).data());
      add_logarithms(lse + lane, y + lane, end - lane);
      for (Index i = lane; i < end; ++i) y[i] = Target::value(x.col(i).array(), lse[i], target_, t, i);
    });
  }

  void backward(const Range& r) override { add_gradients(r, !x_.constant(), !target_.constant()); }
  void accumulate(const Range& r, Part) override { add_gradients(r, x_.constant(), target_.constant()); }

 private:
  /// to += log(x)
  static void add_logarithms(S* to, const S* x, Index n) {
    using namespace Eigen::internal;
    using P = FullPacket<S>;
    for (Index i = 0; i < n; i += width_of<P>) {
      const Index count = std::min(width_of<P>, n - i);
      const P sum = padd(load_first<P>(to + i, count), plog(load_first<P>(x + i, count)));
      store_first(to + i, sum, count);
    }
  }

  void add_gradients(const Range& r, bool to_x, bool to_target) {
    to_x = to_x && x_.gradient;
    to_target = to_target && target_.gradient;
    if (!to_x && !to_target) return;
    const Packets<S> packets(x_.shape.features);
    each_frame_of(y_, r, [&](Index t, Index lane, Index end) {
      for (; lane < end; ++lane) {
        const auto x = x_.values(t).col(lane).array();
        const S lse = lse_[t * y_.shape.batch + lane], dy = y_.gradients(t)(0, lane);
        if (to_x)
          Target::add(packets, x_.gradients(t).col(lane).array(), x, lse, dy, target_, t, lane, x_.fresh);
        if (to_target) Target::add_to_target(x, lse, dy, target_, t, lane);
      }
    });
  }

  Tensor<S> x_, target_, y_;
  S* lse_;
};

/// y = - <p, log_softmax(x)>, for a column p of probabilities, whatever their sum.
///   dx = dy (softmax sum(p) - p)    dp = dy (lse - x)
struct Distribution {
  template <class S>
  static S value(const auto& x, S lse, const Tensor<S>& target, Index t, Index lane) {
    const auto p = target.values(t).col(lane).array();
    return (p * (lse - x)).sum();
  }
  template <class S>
  static void add(const Packets<S>&, auto dx, const auto& x, S lse, S dy, const Tensor<S>& target, Index t,
                  Index lane, bool fresh) {
    const auto p = target.values(t).col(lane).array();
    const S total = dy * p.sum();
    give(dx, total * (x - lse).exp() - dy * p, fresh);
  }
  template <class S>
  static void add_to_target(const auto& x, S lse, S dy, const Tensor<S>& target, Index t, Index lane) {
    target.gradients(t).col(lane).array() += dy * (lse - x);
  }
};

/// y = - log_softmax(x)_k, for a symbol k.
///   dx = dy (softmax - e_k)
struct OneSymbol {
  template <class S>
  static S value(const auto& x, S lse, const Tensor<S>& target, Index t, Index lane) {
    return lse - x(symbol(x, target, t, lane));
  }
  template <class S>
  static void add(const Packets<S>& packets, auto dx, const auto& x, S lse, S dy, const Tensor<S>& target,
                  Index t, Index lane, bool fresh) {
    using namespace Eigen::internal;
    using P = FullPacket<S>;
    const P level = pset1<P>(lse), slope = pset1<P>(dy);
    packets.each(x.data(), [&](const P& numbers, Index i, Index n) {
      const P e = packet_exp_below(psub(numbers, level));
      S* const to = dx.data() + i;
      store_first(to, fresh ? pmul(slope, e) : pmadd(slope, e, load_first<P>(to, n)), n);
    });
    dx(symbol(x, target, t, lane)) -= dy;
  }
  template <class S>
  static void add_to_target(const auto&, S, S, const Tensor<S>&, Index, Index) {}

 private:
  template <class S>
  static Index symbol(const auto& x, const Tensor<S>& target, Index t, Index lane) {
    return symbol_at(target, t, lane, x.size(), "softmax_cross_entropy");
  }
};

OpType cross_entropy_type(const char* name, bool symbols, std::vector<Example> examples) {
  OpType type;
  type.name = name;
  type.infer = [name, symbols](const Call& call) -> std::vector<Signature> {
    require_inputs(call, name, 2);
    const Shape x = call.inputs[0].shape;
    require_shape(call, 1, {symbols ? 1 : x.features, x.batch}, std::string(name) + ": the target");
    return {{{1, x.batch}, call.extent()}};
  };
  type.examples = std::move(examples);
  type.split = by_lanes;
  type.begins = begins_first;
  return type;
}

template <class S>
using OfDistribution = CrossEntropy<S, Distribution>;
template <class S>
using OfSymbol = CrossEntropy<S, OneSymbol>;
const Register<OfDistribution> of_distribution{cross_entropy_type(
    "softmax_cross_entropy", false, {{{{1, 1}, {1, 1}}}, {{{5, 3}, {5, 3}}}, {{{19, 2}, {19, 2}}}})};
const Register<OfSymbol> of_symbol{cross_entropy_type(
    "softmax_cross_entropy_of_symbols", true, {{{{1, 1}, {1, 1}}}, {{{5, 3}, {1, 3}}}, {{{19, 2}, {1, 2}}}})};

}  // namespace
}  // namespace bptt
