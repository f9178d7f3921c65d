// Matrix products and transposition.
#include "ops/operation.h"

namespace bptt {
namespace {

/// y = a b at every frame, with a constant left factor, which meets the columns of all frames side by side.
template <class S>
class Linear final : public Operation<S> {
 public:
  explicit Linear(const Binding<S>& b)
      : a_(b.inputs[0]),
        b_(b.inputs[1]),
        y_(b.outputs[0]),
        alone_(y_.shape.batch * y_.frames({0, b.at_once}).size() == 1),
        left_(Panels::plain<S>(a_.shape.features), a_.version),
        right_{{b_.value, b_.shape.features, 1, b_.outer}} {
    left_.add(a_.values(0));
    b.scratch.take(left_);
    if (!b_.gradient) return;
    transposed_ = Factor<S>(Panels::plain<S>(a_.shape.batch), a_.version);
    transposed_.add_transposed(a_.values(0));
    b.scratch.take(transposed_);
    gradient_ = {{y_.gradient, y_.shape.features, 1, y_.outer}};
  }

  void prepare() override {
    left_.pack();
    if (b_.gradient) transposed_.pack();
  }

  void forward(const Range& r) override {
    columns(y_.frames(r), y_.shape.batch, [&](Index first, Index count) {
      left_.multiply(right_, y_.values(0), false, first, count, alone_, Part{}.of(left_.panels()));
    });
  }

  void backward(const Range& r) override {
    if (!b_.constant()) add_gradient_b(r);
    if (!a_.constant()) add_gradient_a(r, {});
  }

  void accumulate(const Range& r, Part part) override {
    if (b_.constant() && part.index == 0) add_gradient_b(r);
    if (a_.constant()) add_gradient_a(r, part);
  }

 private:
  void add_gradient_a(const Range& r, Part part) {  // da += dy b^T
    if (!a_.gradient) return;
    const Outer<S> term[] = {{a_.gradients(0), all_packets, b_.values(r).data(), b_.outer}};
    add_outer_products<S>(term, y_.gradients(r), left_.panels(), {0, y_.gradients(r).cols()}, part);
  }

  void add_gradient_b(const Range& r) {  // db += a^T dy
    if (!b_.gradient) return;
    columns(y_.frames(r), y_.shape.batch, [&](Index first, Index count) {
      transposed_.multiply(gradient_, b_.gradients(0), !b_.fresh, first, count, alone_,
                           Part{}.of(transposed_.panels()));
    });
  }

  Tensor<S> a_, b_, y_;
  bool alone_;  // y has one column in all
  Factor<S> left_, transposed_;
  std::vector<Right<S>> right_, gradient_;
};

/// y = a b where the left factor is another one at each frame.
template <class S>
class Bilinear final : public Operation<S> {
 public:
  explicit Bilinear(const Binding<S>& b)
      : a_(b.inputs[0]), b_(b.inputs[1]), y_(b.outputs[0]), panels_(Panels::plain<S>(a_.shape.features)) {}

  void forward(const Range& r) override {
    for (Index t = r.begin; t < r.end; ++t) {
      y_.values(t).setZero();
      add_product(y_.values(t), a_.values(t), b_.values(t));
    }
  }

  void backward(const Range& r) override {
    if (!b_.constant()) add_gradient_b(r);
    if (!a_.gradient) return;
    for (Index t = r.begin; t < r.end; ++t) {  // da += dy b^T
      const Outer<S> term[] = {{a_.gradients(t), all_packets, b_.values(t).data(), b_.outer}};
      add_outer_products<S>(term, y_.gradients(t), panels_, {0, y_.shape.batch}, {});
    }
  }

  void accumulate(const Range& r, Part part) override {
    if (b_.constant() && part.index == 0) add_gradient_b(r);
  }

 private:
  void add_gradient_b(const Range& r) {  // db += a^T dy
    if (!b_.gradient) return;
    for (Index t = r.begin; t < r.end; ++t) {
      if (b_.fresh) b_.gradients(t).setZero();
      add_product(b_.gradients(t), a_.values(t).transpose(), y_.gradients(t));
    }
  }

  /// y += a b in ways that need no memory.
  template <class A>
  static void add_product(MatrixMap<S> y, const A& a, const MatrixMap<S>& b) {
    if (y.cols() == 1)
      y.col(0).noalias() += a * b.col(0);
    else
      y += a.lazyProduct(b);
  }

  Tensor<S> a_, b_, y_;
  Panels panels_;
};

/// The product that suits the left factor.
template <class S>
struct MatMul {
  static std::unique_ptr<Operation<S>> make(const Binding<S>& b) {
    if (b.inputs[0].extent == Extent::Frame) return std::make_unique<Bilinear<S>>(b);
    return std::make_unique<Linear<S>>(b);
  }
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
    .linear = LinearIn::Each,
    .divides = true,
    .begins = [](const Call&, std::size_t input) { return input == 1; },
}};

/// y = x^T at every frame.
template <class S>
class Transpose final : public Operation<S> {
 public:
  explicit Transpose(const Binding<S>& b) : x_(b.inputs[0]), y_(b.outputs[0]) {}

  void forward(const Range& r) override {
    const Range frames = y_.frames(r);
    for (Index t = frames.begin; t < frames.end; ++t) y_.values(t) = x_.values(t).transpose();
  }

  void backward(const Range& r) override {
    if (!x_.constant()) add_gradient(r);
  }

  void accumulate(const Range& r, Part) override {
    if (x_.constant()) add_gradient(r);
  }

 private:
  void add_gradient(const Range& r) {  // dx += dy^T
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
    .linear = LinearIn::All,
}};

}  // namespace
}  // namespace bptt
