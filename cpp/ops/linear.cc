// Matrix products and transposition.
#include "ops/operation.h"

namespace bptt {
namespace {

/// y = a b at every frame. A constant left factor meets the columns of all frames at once, side by side.
template <class S>
class MatMul final : public Operation<S> {
 public:
  explicit MatMul(const Binding<S>& b) : a_(b.inputs[0]), b_(b.inputs[1]), y_(b.outputs[0]) {
    const Index columns = y_.shape.batch * (y_.extent == Extent::Frame ? b.frames : 1);
    left_ = factor(a_, false, columns, b.scratch);
    if (y_.gradient) left_transposed_ = factor(a_, true, columns, b.scratch);
  }

  void forward(Range r) override {
    if (at_once()) return left_.set(y_.values(r), b_.values(r));
    for (Index t = r.begin; t < r.end; ++t) left_.at(a_.values(t)).set(y_.values(t), b_.values(t));
  }

  void backward(Range r) override {
    if (b_.gradient && !b_.constant()) add_gradient_b(r);
    if (a_.gradient && !a_.constant()) add_gradient_a(r);
  }

  void accumulate(Range r, Part) override {
    if (b_.gradient && b_.constant()) add_gradient_b(r);
    if (a_.gradient && a_.constant()) add_gradient_a(r);
  }

 private:
  bool at_once() const { return a_.extent != Extent::Frame; }

  void add_gradient_a(Range r) {  // da += dy b^T
    if (at_once()) return add_outer_product(a_.gradients(0), y_.gradients(r), b_.values(r));
    for (Index t = r.begin; t < r.end; ++t) add_outer_product(a_.gradients(t), y_.gradients(t), b_.values(t));
  }

  void add_gradient_b(Range r) {  // db += a^T dy
    if (at_once()) return left_transposed_.add(b_.gradients(r), y_.gradients(r));
    for (Index t = r.begin; t < r.end; ++t)
      left_transposed_.at(a_.values(t)).add(b_.gradients(t), y_.gradients(t));
  }

  Tensor<S> a_, b_, y_;
  Factor<S> left_, left_transposed_;
};

const Register<MatMul> matmul{{
    .name = "matmul",
    .infer = [](const Call& call) -> std::vector<Signature> {
      require_inputs(call, "matmul", 2);
      const Shape a = call.inputs[0].shape, b = call.inputs[1].shape;
      if (a.batch != b.features)
        throw ShapeError("matmul: " + to_string(a) + " @ " + to_string(b) + ": the inner sizes " +
                         std::to_string(a.batch) + " and " + std::to_string(b.features) + " differ");
      return {{{a.features, b.batch}, call.extent()}};
    },
    .examples = {{{{1, 1}, {1, 1}}}, {{{3, 2}, {2, 4}}}, {{{5, 7}, {7, 1}}}, {{{1, 3}, {3, 2}}}},
    .split =
        [](const Call& call) {
          return call.inputs[0].extent == Extent::Constant ? Split::Lanes : Split::None;
        },
}};

/// y = x^T at every frame.
template <class S>
class Transpose final : public Operation<S> {
 public:
  explicit Transpose(const Binding<S>& b) : x_(b.inputs[0]), y_(b.outputs[0]) {}

  void forward(Range r) override {
    const Range frames = y_.frames(r);
    for (Index t = frames.begin; t < frames.end; ++t) y_.values(t) = x_.values(t).transpose();
  }

  void backward(Range r) override {
    if (!x_.constant()) add_gradient(r);
  }

  void accumulate(Range r, Part) override {
    if (x_.constant()) add_gradient(r);
  }

 private:
  void add_gradient(Range r) {  // dx += dy^T
    if (!x_.gradient) return;
    const Range frames = y_.frames(r);
    for (Index t = frames.begin; t < frames.end; ++t) x_.gradients(t) += y_.gradients(t).transpose();
  }

  Tensor<S> x_, y_;
};

const Register<Transpose> transpose{{
    .name = "transpose",
    .infer = [](const Call& call) -> std::vector<Signature> {
      require_inputs(call, "transpose", 1);
      const Shape x = call.inputs[0].shape;
      return {{{x.batch, x.features}, call.extent()}};
    },
    .examples = {{{{1, 1}}}, {{{3, 2}}}, {{{1, 4}}}},
    .split = by_frames,
}};

}  // namespace
}  // namespace bptt
