// Sums and means: per frame over features and/or lanes, and over a whole window. What is masked is left out, chosen by
// the mask rather than multiplied by zero, and a mean is that of the rest.
#include <algorithm>

#include "ops/operation.h"

namespace bptt {
namespace {

Index axis_of(const Attributes& attributes) {
  return std::get<Index>(attributes.at("axis"));
}

/// Over features (axis 0), lanes (1) or both (2), with both axes kept.
template <class S, bool mean>
class Reduce : public Operation<S> {
 public:
  explicit Reduce(const Binding<S>& b)
      : x_(b.inputs[0]),
        y_(b.outputs[0]),
        mask_(*b.mask),
        mixes_(!x_.constant() && x_.shape.batch > y_.shape.batch),
        factor_(mean ? S(1) / static_cast<S>(x_.shape.size() / y_.shape.size()) : S(1)) {}

  void forward(const Range& r) override {
    const Range frames = y_.frames(r);
    for (Index t = frames.begin; t < frames.end; ++t) {
      if (masked()) {
        auto y = y_.values(t);
        y.setZero();
        const S factor = each_valid(t, [&](Index lane) {
          const auto x = x_.values(t).col(lane);
          y += x.reshaped(y.rows(), x.size() / y.rows()).rowwise().sum();
        });
        y *= factor;
        continue;
      }
      const Range frame{t, t + 1, r.lane, r.lanes};
      const auto x = x_.values(frame);
      auto y = y_.values(frame);
      if (y.size() == 1)
        y(0, 0) = factor_ * x.sum();
      else if (y.rows() == 1)
        y = factor_ * x.colwise().sum();
      else
        y = factor_ * x.rowwise().sum();
    }
  }

  void backward(const Range& r) override {
    if (!x_.constant()) add_gradient(r);
  }

  void accumulate(const Range& r, Part) override {
    if (x_.constant()) add_gradient(r);
  }

 private:
  void add_gradient(const Range& r) {  // dx += factor dy, for all that went into the sum
    if (!x_.gradient) return;
    const Range frames = y_.frames(r);
    for (Index t = frames.begin; t < frames.end; ++t) {
      if (masked()) {
        const S factor = each_valid(t, [](Index) {});
        const auto dy = y_.gradients(t);
        each_valid(t, [&](Index lane) {
          auto dx = x_.gradients(t).col(lane);
          dx += factor * dy.replicate(dx.rows() / dy.rows(), 1);
        });
        continue;
      }
      const Range frame{t, t + 1, r.lane, r.lanes};
      const auto dy = y_.gradients(frame);
      auto dx = x_.gradients(frame);
      dx += factor_ * dy.replicate(dx.rows() / dy.rows(), dx.cols() / dy.cols());
    }
  }

  /// Whether some of the lanes that are added up may be padding.
  bool masked() const { return mixes_ && mask_.valid && x_.shape.batch == mask_.valid.lanes; }

  /// Calls f(lane) for the valid lanes of a frame; returns what their sum is multiplied by.
  template <class F>
  S each_valid(Index t, F&& f) const {
    Index count = 0;
    for (Index lane = 0; lane < x_.shape.batch; ++lane)
      if (mask_.valid(t, lane, x_.shape.batch)) {
        ++count;
        f(lane);
      }
    if (!mean || count == 0) return S(1);
    return S(1) / static_cast<S>(count * x_.shape.features / y_.shape.features);
  }

  Tensor<S> x_, y_;
  const Mask& mask_;
  bool mixes_;  // it adds up lanes
  S factor_;
};

template <bool mean>
OpType reduce_type(const char* name) {
  OpType type;
  type.name = name;
  type.infer = [name](const Call& call) -> std::vector<Signature> {
    require_inputs(call, name, 1);
    const Index axis = axis_of(call.attributes);
    if (axis < 0 || axis > 2)
      throw ShapeError(std::string(name) + ": axis is 0 (features), 1 (batch) or both, got " +
                       std::to_string(axis));
    const Shape x = call.inputs[0].shape;
    return {{{axis == 1 ? x.features : 1, axis == 0 ? x.batch : 1}, call.extent()}};
  };
  type.split = [](const Call& call) { return axis_of(call.attributes) == 0 ? Split::Lanes : Split::Frames; };
  type.linear = LinearIn::All;
  type.gathers = [](const Call& call) {
    return axis_of(call.attributes) == 0 ? Gather::None : mean ? Gather::Mean : Gather::Sum;
  };
  for (const Index axis : {0, 1, 2}) {
    type.examples.push_back({{{3, 4}}, {{"axis", axis}}});
    type.examples.push_back({{{1, 1}}, {{"axis", axis}}});
  }
  return type;
}

template <class S>
using Sum = Reduce<S, false>;
template <class S>
using Mean = Reduce<S, true>;
const Register<Sum> sum{reduce_type<false>("sum")};
const Register<Mean> mean{reduce_type<true>("mean")};

/// Over all frames of the window, features and lanes: a (1, 1) window value. A constant stands for the same
/// number at every frame, so it counts as often as there are frames; a window value has no frames to sum
/// over. A frame counts for a constant, which has no lanes of its own, if it does for one lane. Each forward adds its
/// frames to those that came before in the window.
template <class S, bool mean>
class WindowReduce : public Operation<S> {
 public:
  explicit WindowReduce(const Binding<S>& b) : x_(b.inputs[0]), y_(b.outputs[0]), counted_(b.mask->counted) {}

  void prepare() override {
    sum_ = 0;
    count_ = 0;
  }

  void forward(const Range& r) override {
    if (masked()) {
      counted_.require(x_.shape.batch);
      S sum = 0;
      each_counted(r, [&](Index column) {
        sum += x_.value_column(column).sum();
        ++count_;
      });
      sum_ += sum;
    } else if (x_.extent == Extent::Frame) {
      sum_ += all(x_.value, r).sum();
      count_ += x_.shape.batch * r.size();
    } else {
      sum_ = x_.values(r).sum();
      const bool some = x_.constant() && counted_;
      count_ += some ? std::count(counted_.any + r.begin, counted_.any + r.end, 1) : r.size();
    }
    *y_.value = factor() * sum_;
  }

  void backward(const Range& r) override {
    if (!x_.constant()) add_gradient(r);
  }

  void accumulate(const Range& r, Part) override {
    if (x_.constant()) add_gradient(r);
  }

 private:
  /// Whether some of the entries that are added up may not count.
  bool masked() const { return x_.extent == Extent::Frame && counted_; }

  /// Frames of x as one row: they lie side by side.
  auto all(S* base, const Range& r) const {
    const Index frame = x_.shape.size();
    return Eigen::Map<Eigen::Array<S, Eigen::Dynamic, 1>>(base + r.begin * frame, r.size() * frame);
  }

  /// Calls f for each column of x that counts.
  template <class F>
  void each_counted(const Range& r, F&& f) const {
    const Index batch = x_.shape.batch;
    for (Index t = r.begin; t < r.end; ++t)
      for (Index lane = 0; lane < batch; ++lane)
        if (counted_(t, lane, batch)) f(t * batch + lane);
  }

  /// What the sum is multiplied by.
  S factor() const {
    const Index columns = x_.extent == Extent::Frame ? count_ : x_.shape.batch;
    if (mean) return columns == 0 ? S(0) : S(1) / static_cast<S>(x_.shape.features * columns);
    return x_.constant() ? static_cast<S>(count_) : S(1);
  }

  void add_gradient(const Range& r) {  // dx += factor dy
    if (!x_.gradient) return;
    const S d = factor() * *y_.gradient;
    if (masked())
      each_counted(r, [&](Index column) { x_.gradient_column(column).array() += d; });
    else if (x_.extent == Extent::Frame)
      all(x_.gradient, r) += d;
    else
      x_.gradients(r).array() += d;
  }

  Tensor<S> x_, y_;
  const Rows& counted_;
  S sum_ = 0;
  Index count_ = 0;  // columns, or, of a constant, frames
};

template <bool mean>
OpType window_type(const char* name) {
  OpType type;
  type.name = name;
  type.infer = [name](const Call& call) -> std::vector<Signature> {
    require_inputs(call, name, 1);
    return {{{1, 1}, Extent::Window}};
  };
  type.linear = LinearIn::All;
  type.gathers = [](const Call&) { return mean ? Gather::Mean : Gather::Sum; };
  type.examples = {{{{1, 1}}}, {{{3, 2}}}};
  return type;
}

template <class S>
using WindowSum = WindowReduce<S, false>;
template <class S>
using WindowMean = WindowReduce<S, true>;
const Register<WindowSum> window_sum{window_type<false>("window_sum")};
const Register<WindowMean> window_mean{window_type<true>("window_mean")};

}  // namespace
}  // namespace bptt
