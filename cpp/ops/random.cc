// Noise. A number depends on the seed, the call's ordinal in its trace, the frame's place in the sequence,
// the feature and the lane, and on nothing else: not on the window's length, nor on where a run was resumed.
#include <cmath>
#include <numbers>

#include "kernel/philox.h"
#include "ops/operation.h"

namespace bptt {
namespace {

/// Fills every frame of the range, four features at a time, from `Draw::four(words)`.
template <class Draw, class S>
class Noise final : public Operation<S> {
 public:
  explicit Noise(const Binding<S>& b)
      : y_(b.outputs[0]),
        clock_(b.clock),
        key_(stream_key(b.clock->seed,
                        static_cast<std::uint32_t>(std::get<Index>(b.attributes.at("ordinal"))))),
        draw_(b.attributes) {}

  void forward(Range r) override {
    for (Index t = r.begin; t < r.end; ++t) {
      auto y = y_.values(t);
      const Index end = r.lanes == Range::all ? y.cols() : r.lane + r.lanes;
      for (Index lane = r.lane; lane < end; ++lane)
        for (Index feature = 0; feature < y.rows(); feature += 4) {
          const PhiloxCounter words =
              noise_words(key_, clock_->frame + static_cast<std::uint64_t>(t),
                          static_cast<std::uint32_t>(feature / 4), static_cast<std::uint32_t>(lane));
          const std::array<S, 4> drawn = draw_.template four<S>(words);
          for (Index i = feature; i < std::min(feature + 4, y.rows()); ++i)
            y(i, lane) = drawn[static_cast<std::size_t>(i - feature)];
        }
    }
  }

 private:
  Tensor<S> y_;
  const Clock* clock_;
  PhiloxKey key_;
  Draw draw_;
};

/// Box & Muller 1958: two uniform numbers make two normal ones.
struct Normal {
  explicit Normal(const Attributes& a)
      : mean(std::get<double>(a.at("mean"))), stddev(std::get<double>(a.at("stddev"))) {}

  template <class S>
  std::array<S, 4> four(const PhiloxCounter& words) const {
    std::array<S, 4> drawn;
    for (std::size_t i = 0; i < 4; i += 2) {
      const S radius = static_cast<S>(stddev) * std::sqrt(S(-2) * std::log(unit<S>(words[i])));
      const S angle = 2 * std::numbers::pi_v<S> * unit<S>(words[i + 1]);
      drawn[i] = static_cast<S>(mean) + radius * std::cos(angle);
      drawn[i + 1] = static_cast<S>(mean) + radius * std::sin(angle);
    }
    return drawn;
  }

  double mean, stddev;
};

struct Uniform {
  explicit Uniform(const Attributes& a)
      : low(std::get<double>(a.at("low"))), high(std::get<double>(a.at("high"))) {}

  template <class S>
  std::array<S, 4> four(const PhiloxCounter& words) const {
    std::array<S, 4> drawn;
    for (std::size_t i = 0; i < 4; ++i)
      drawn[i] = static_cast<S>(low) + static_cast<S>(high - low) * unit<S>(words[i]);
    return drawn;
  }

  double low, high;
};

OpType noise_type(const char* name, Attributes numbers) {
  OpType type;
  type.name = name;
  type.infer = [name](const Call& call) -> std::vector<Signature> {
    require_inputs(call, name, 0);
    return {{{call.integer("features"), call.integer("batch")}, Extent::Frame}};
  };
  type.differentiable = false;
  type.split = by_lanes;
  type.cost = 64;
  numbers.insert({{"features", Index{6}}, {"batch", Index{3}}, {"ordinal", Index{0}}});
  type.examples = {{{}, numbers}};
  return type;
}

template <class S>
using NormalNoise = Noise<Normal, S>;
template <class S>
using UniformNoise = Noise<Uniform, S>;
const Register<NormalNoise> normal{noise_type("normal", {{"mean", 0.5}, {"stddev", 2.0}})};
const Register<UniformNoise> uniform{noise_type("uniform", {{"low", -1.0}, {"high", 3.0}})};

}  // namespace
}  // namespace bptt
