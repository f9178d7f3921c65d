// Noise. A number depends on the seed, the call's ordinal in its trace, the frame's place in the sequence,
// the feature and the lane, and on nothing else: not on the window's length, nor on where a run was resumed.
#include <cmath>
#include <numbers>

#include "kernel/philox.h"
#include "ops/operation.h"

namespace bptt {
namespace {

/// So many times four numbers are drawn at once, whether all are needed or not, so that every number is made by the same
/// instructions.
constexpr std::size_t at_once = 32;
template <class S>
using Numbers = Eigen::Array<S, at_once, 1>;

/// Four words for features 4q ... 4q+3 of one lane at one frame of the sequence, as many times as there are counters: then
/// numbers made of them by `draw(words, numbers)`, the i-th of each four in numbers[i].
template <class Draw, class S>
class Noise final : public Operation<S> {
 public:
  explicit Noise(const Binding<S>& b)
      : y_(b.outputs[0]),
        clock_(b.clock),
        key_(stream_key(b.clock->seed,
                        static_cast<std::uint32_t>(std::get<Index>(b.attributes.at("ordinal"))))),
        draw_(b.attributes) {}

  void forward(const Range& r) override {
    const Index features = y_.shape.features, lanes = r.lanes == Range::all ? y_.shape.batch : r.lanes;
    PhiloxCounters<at_once> counters{};
    std::array<S*, at_once> places{};
    std::array<Index, at_once> counts{};
    std::size_t n = 0;
    const auto draw = [&] {
      std::array<Numbers<S>, 4> numbers;
      philox4x32_each(counters, key_);
      draw_(counters, numbers, std::min<Index>(features, 4));
      for (std::size_t i = 0; i < n; ++i)
        for (Index k = 0; k < counts[i]; ++k)
          places[i][k] = numbers[static_cast<std::size_t>(k)][static_cast<Index>(i)];
      n = 0;
    };
    // What all lanes have in common is that of lane 0.
    const std::uint64_t before = y_.shape.batch == clock_->lanes ? clock_->lane : 0;
    for (Index t = r.begin; t < r.end; ++t) {
      const std::uint64_t frame = clock_->frame + static_cast<std::uint64_t>(t);
      for (Index lane = r.lane; lane < r.lane + lanes; ++lane)
        for (Index feature = 0; feature < features; feature += 4) {
          counters[0][n] = static_cast<std::uint32_t>(frame);
          counters[1][n] = static_cast<std::uint32_t>(frame >> 32);
          counters[2][n] = static_cast<std::uint32_t>(feature / 4);
          counters[3][n] = static_cast<std::uint32_t>(before + static_cast<std::uint64_t>(lane));
          places[n] = y_.value + t * y_.shape.size() + lane * features + feature;
          counts[n] = std::min<Index>(features - feature, 4);
          if (++n == at_once) draw();
        }
    }
    if (n > 0) draw();
  }

 private:
  Tensor<S> y_;
  const Clock* clock_;
  PhiloxKey key_;
  Draw draw_;
};

template <class S>
Numbers<S> units(const std::array<std::uint32_t, at_once>& words) {
  Numbers<S> u;
  for (std::size_t i = 0; i < at_once; ++i) u[static_cast<Index>(i)] = unit<S>(words[i]);
  return u;
}

/// a b + c of each in the same way: of a plain sum a compiler may make one rounding for some numbers and two for others.
template <class S>
Numbers<S> product_and(const Numbers<S>& a, const Numbers<S>& b, S c) {
  using namespace Eigen::internal;
  using P = FullPacket<S>;
  Numbers<S> y;
  for (Index i = 0; i < y.size(); i += width_of<P>)
    pstoreu(y.data() + i, pmadd(ploadu<P>(a.data() + i), ploadu<P>(b.data() + i), pset1<P>(c)));
  return y;
}

/// Box & Muller 1958: two uniform numbers make two normal ones.
struct Normal {
  explicit Normal(const Attributes& a)
      : mean(std::get<double>(a.at("mean"))), stddev(std::get<double>(a.at("stddev"))) {}

  template <class S>
  void operator()(const PhiloxCounters<at_once>& words, std::array<Numbers<S>, 4>& numbers,
                  Index count) const {
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); i += 2) {
      const Numbers<S> radius = static_cast<S>(stddev) * (S(-2) * units<S>(words[i]).log()).sqrt();
      const Numbers<S> angle = 2 * std::numbers::pi_v<S> * units<S>(words[i + 1]);
      numbers[i] = product_and<S>(radius, angle.cos(), static_cast<S>(mean));
      if (i + 1 < static_cast<std::size_t>(count))
        numbers[i + 1] = product_and<S>(radius, angle.sin(), static_cast<S>(mean));
    }
  }

  double mean, stddev;
};

struct Uniform {
  explicit Uniform(const Attributes& a)
      : low(std::get<double>(a.at("low"))), high(std::get<double>(a.at("high"))) {}

  template <class S>
  void operator()(const PhiloxCounters<at_once>& words, std::array<Numbers<S>, 4>& numbers,
                  Index count) const {
    const Numbers<S> range = Numbers<S>::Constant(static_cast<S>(high - low));
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
      numbers[i] = product_and<S>(units<S>(words[i]), range, static_cast<S>(low));
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
