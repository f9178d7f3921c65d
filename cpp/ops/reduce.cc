// Sums and means: per frame over features and/or lanes, and over a whole window.
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
        factor_(mean ? S(1) / static_cast<S>(x_.shape.size() / y_.shape.size()) : S(1)) {}

  void forward(Range r) override {
    const Range frames = y_.frames(r);
    for (Index t = frames.begin; t < frames.end; ++t) {
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

  void backward(Range r) override {
    if (!x_.constant()) add_gradient(r);
  }

  void accumulate(Range r, Part) override {
    if (x_.constant()) add_gradient(r);
  }

 private:
  void add_gradient(Range r) {  // dx += factor dy, for all that went into the sum
    if (!x_.gradient) return;
    const Range frames = y_.frames(r);
    for (Index t = frames.begin; t < frames.end; ++t) {
      const Range frame{t, t + 1, r.lane, r.lanes};
      const auto dy = y_.gradients(frame);
      auto dx = x_.gradients(frame);
      dx += factor_ * dy.replicate(dx.rows() / dy.rows(), dx.cols() / dy.cols());
    }
  }

  Tensor<S> x_, y_;
  S factor_;
};

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
const Register<Sum> sum{reduce_type("sum")};
const Register<Mean> mean{reduce_type("mean")};

/// Over all frames of the window, features and lanes: a (1, 1) window value. A constant stands for the same
/// number at every frame, so it counts as often as there are frames; a window value has no frames to sum
/// over.
template <class S, bool mean>
class WindowReduce : public Operation<S> {
 public:
  explicit WindowReduce(const Binding<S>& b) : x_(b.inputs[0]), y_(b.outputs[0]) {}

  void forward(Range r) override { *y_.value = factor(r) * x_.values(r).sum(); }

  void backward(Range r) override {
    if (!x_.constant()) add_gradient(r);
  }

  void accumulate(Range r, Part) override {
    if (x_.constant()) add_gradient(r);
  }

 private:
  S factor(Range r) const {
    if (mean) return S(1) / static_cast<S>(x_.shape.size() * x_.frames(r).size());
    return x_.constant() ? static_cast<S>(r.size()) : S(1);
  }

  void add_gradient(Range r) {  // dx += factor dy
    if (x_.gradient) x_.gradients(r).array() += factor(r) * *y_.gradient;
  }

  Tensor<S> x_, y_;
};

OpType window_type(const char* name) {
  OpType type;
  type.name = name;
  type.infer = [name](const Call& call) -> std::vector<Signature> {
    require_inputs(call, name, 1);
    return {{{1, 1}, Extent::Window}};
  };
  type.examples = {{{{1, 1}}}, {{{3, 2}}}};
  return type;
}

template <class S>
using WindowSum = WindowReduce<S, false>;
template <class S>
using WindowMean = WindowReduce<S, true>;
const Register<WindowSum> window_sum{window_type("window_sum")};
const Register<WindowMean> window_mean{window_type("window_mean")};

}  // namespace
}  // namespace bptt
