// Operations that move numbers and compute none: concatenation, slices, and copies spread over lanes or time.
#include "ops/walk.h"

namespace bptt {
namespace {

/// The lanes of a range out of all of them.
template <class M>
auto lanes(M&& all, const Range& r) {
  return r.lanes == Range::all ? all.middleCols(0, all.cols()) : all.middleCols(r.lane, r.lanes);
}

/// The inputs side by side along the features (axis 0) or the batch (axis 1).
template <class S>
class Concat final : public Operation<S> {
 public:
  explicit Concat(const Binding<S>& b)
      : x_(b.inputs), y_(b.outputs[0]), axis_(std::get<Index>(b.attributes.at("axis"))) {}

  void forward(const Range& r) override {
    each_part(r, &Tensor<S>::value, [&](const Tensor<S>& x, Index t, auto y) { y = lanes(x.values(t), r); });
  }

  void backward(const Range& r) override {
    each_part(r, &Tensor<S>::gradient, [&](const Tensor<S>& x, Index t, auto dy) {
      if (x.gradient && !x.constant()) lanes(x.gradients(t), r) += dy;
    });
  }

  void accumulate(const Range& r, Part) override {
    each_part(r, &Tensor<S>::gradient, [](const Tensor<S>& x, Index t, auto dy) {
      if (x.gradient && x.constant()) x.gradients(t) += dy;
    });
  }

 private:
  /// Calls f with each frame, each input, and the input's own part of the output (or of the output's
  /// gradient).
  template <class F>
  void each_part(const Range& r, S* Tensor<S>::* which, F&& f) const {
    const Range frames = y_.frames(r);
    for (Index t = frames.begin; t < frames.end; ++t) {
      MatrixMap<S> whole = which == &Tensor<S>::value ? y_.values(t) : y_.gradients(t);
      Index row = 0, column = 0;
      for (const Tensor<S>& x : x_) {
        const auto [features, batch] = x.shape;
        f(x, t, lanes(whole.block(row, column, features, batch), r));
        (axis_ == 0 ? row : column) += axis_ == 0 ? features : batch;
      }
    }
  }

  std::vector<Tensor<S>> x_;
  Tensor<S> y_;
  Index axis_;
};

const Register<Concat> concat{{
    .name = "concat",
    .infer = [](const Call& call) -> std::vector<Signature> {
      if (call.inputs.empty()) throw UsageError("concat takes at least one value");
      const Index axis = call.integer("axis");
      if (axis != 0 && axis != 1)
        throw ShapeError("concat: axis is 0 (features) or 1 (batch), got " + std::to_string(axis));
      Shape joined = call.inputs[0].shape;
      for (std::size_t i = 1; i < call.inputs.size(); ++i) {
        const Shape next = call.inputs[i].shape;
        if (axis == 0 ? next.batch != joined.batch : next.features != joined.features)
          throw ShapeError("concat along axis " + std::to_string(axis) + ": shape " + to_string(next) +
                           " does not fit beside " + to_string(call.inputs[0].shape));
        (axis == 0 ? joined.features : joined.batch) += axis == 0 ? next.features : next.batch;
      }
      return {{joined, call.extent()}};
    },
    .examples = {{{{1, 2}, {3, 2}, {2, 2}}, {{"axis", Index{0}}}},
                 {{{3, 1}, {3, 4}}, {{"axis", Index{1}}}},
                 {{{1, 1}}, {{"axis", Index{0}}}}},
    .split = [](const Call& call) { return call.integer("axis") == 0 ? Split::Lanes : Split::Frames; },
    .linear = LinearIn::All,
}};

/// Features start ... stop-1.
template <class S>
class Slice final : public Operation<S> {
 public:
  explicit Slice(const Binding<S>& b)
      : x_(b.inputs[0]), y_(b.outputs[0]), start_(std::get<Index>(b.attributes.at("start"))) {}

  void forward(const Range& r) override { y_.values(r) = x_.values(r).middleRows(start_, y_.shape.features); }

  void backward(const Range& r) override {
    if (!x_.constant()) add_gradient(r);
  }

  void accumulate(const Range& r, Part) override {
    if (x_.constant()) add_gradient(r);
  }

 private:
  void add_gradient(const Range& r) {
    if (x_.gradient) x_.gradients(r).middleRows(start_, y_.shape.features) += y_.gradients(r);
  }

  Tensor<S> x_, y_;
  Index start_;
};

const Register<Slice> slice{{
    .name = "slice",
    .infer = [](const Call& call) -> std::vector<Signature> {
      require_inputs(call, "slice", 1);
      const Index start = call.integer("start"), stop = call.integer("stop");
      const Shape x = call.inputs[0].shape;
      if (start < 0 || stop > x.features || start >= stop)
        throw ShapeError("slice: features " + std::to_string(start) + ":" + std::to_string(stop) +
                         " of a value of shape " + to_string(x));
      return {{{stop - start, x.batch}, call.extent()}};
    },
    .examples = {{{{4, 3}}, {{"start", Index{1}}, {"stop", Index{3}}}},
                 {{{1, 1}}, {{"start", Index{0}}, {"stop", Index{1}}}}},
    .split = by_lanes,
    .linear = LinearIn::All,
}};

/// A copy of x with a value at each frame, spread over features or lanes where x has one.
template <class S>
class Expand final : public Operation<S> {
 public:
  explicit Expand(const Binding<S>& b) : x_(b.inputs[0]), y_(b.outputs[0]), walk_({y_, x_}) {}

  void forward(const Range& r) override {
    lying(walk_.stride(1), [&](auto x_lies) {
      walk_.rows(r, [&](Index n, const auto& at) {
        Row<S>(y_.value + at[0], n) = x_lies.read(x_.value + at[1], n, walk_.stride(1));
      });
    });
  }

  void backward(const Range& r) override {
    if (!x_.constant()) add_gradient(r);
  }

  void accumulate(const Range& r, Part) override {
    if (x_.constant()) add_gradient(r);
  }

 private:
  void add_gradient(const Range& r) {
    if (!x_.gradient) return;
    lying(walk_.stride(1), [&](auto x_lies) {
      walk_.rows(r, [&](Index n, const auto& at) {
        x_lies.add(x_.gradient + at[1], n, walk_.stride(1), Row<S>(y_.gradient + at[0], n));
      });
    });
  }

  Tensor<S> x_, y_;
  Walk<S, 2> walk_;
};

const Register<Expand> expand{{
    .name = "expand",
    .infer = [](const Call& call) -> std::vector<Signature> {
      require_inputs(call, "expand", 1);
      const Shape from = call.inputs[0].shape, to{call.integer("features"), call.integer("batch")};
      if ((from.features != to.features && from.features != 1) || (from.batch != to.batch && from.batch != 1))
        throw ShapeError("expand: a value of shape " + to_string(from) + " does not spread to " +
                         to_string(to));
      if (call.extent() == Extent::Window)
        throw UsageError("expand: a window value has no value at each frame");
      return {{to, Extent::Frame}};
    },
    .examples = {{{{3, 2}}, {{"features", Index{3}}, {"batch", Index{2}}}},
                 {{{3, 1}}, {{"features", Index{3}}, {"batch", Index{4}}}},
                 {{{1, 1}}, {{"features", Index{2}}, {"batch", Index{3}}}}},
    .split = by_lanes,
    .linear = LinearIn::All,
}};

}  // namespace
}  // namespace bptt
