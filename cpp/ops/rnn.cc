// The plain recurrent layer (Elman 1990), fused:
//
//   h_t = tanh(W_aa h_{t-1} + W_ax x_t + b_a)
//
// The input's part is one product over the whole range; the recurrent part goes frame by frame.
#include "ops/operation.h"

namespace bptt {
namespace {

template <class S>
class Rnn final : public Operation<S> {
 public:
  explicit Rnn(const Binding<S>& b)
      : x_(b.inputs[0]),
        past_(b.inputs[1]),
        W_ax_(b.inputs[2]),
        W_aa_(b.inputs[3]),
        b_a_(b.inputs[4]),
        h_(b.outputs[0]),
        dz_{b.scratch.take(h_.shape.size() * b.frames), nullptr, h_.shape, Extent::Frame, h_.shape.features},
        from_x_(factor(W_ax_, false, x_.shape.batch * b.frames, b.scratch)),
        from_past_(factor(W_aa_, false, x_.shape.batch, b.scratch)) {
    if (!h_.gradient) return;
    to_x_ = factor(W_ax_, true, x_.shape.batch * b.frames, b.scratch);
    to_past_ = factor(W_aa_, true, x_.shape.batch, b.scratch);
  }

  void forward(Range r) override {
    auto z = h_.values(r);  // the sum under the tanh, made where h will stand
    from_x_.set(z, x_.values(r));
    z.colwise() += b_a_.values(0).col(0);
    for (Index t = r.begin; t < r.end; ++t) {
      auto h = h_.values(t);
      from_past_.add(h, past_.values(t));
      h.array() = h.array().tanh();
    }
  }

  void backward(Range r) override {
    for (Index t = r.end - 1; t >= r.begin; --t) {
      const auto h = h_.values(t).array();
      dz_.values(t).array() = h_.gradients(t).array() * (S(1) - h.square());
      if (past_.gradient) to_past_.add(past_.gradients(t), dz_.values(t));
    }
    if (x_.gradient) to_x_.add(x_.gradients(r), dz_.values(r));
  }

  void accumulate(Range r, Part) override {
    const auto dz = dz_.values(r);
    if (W_ax_.gradient) add_outer_product(W_ax_.gradients(0), dz, x_.values(r));
    if (W_aa_.gradient) add_outer_product(W_aa_.gradients(0), dz, past_.values(r));
    if (b_a_.gradient) b_a_.gradients(0) += dz.rowwise().sum();
  }

 private:
  Tensor<S> x_, past_, W_ax_, W_aa_, b_a_, h_;
  Tensor<S> dz_;  // scratch: the gradient of the sum under the tanh
  Factor<S> from_x_, from_past_, to_x_, to_past_;
};

const Register<Rnn> rnn{{
    .name = "rnn",
    .infer = [](const Call& call) -> std::vector<Signature> {
      require_inputs(call, "rnn", 5);
      const Shape x = call.inputs[0].shape, past = call.inputs[1].shape;
      const Index H = past.features;
      require_shape(call, 1, {H, x.batch}, "rnn: h at t-1");
      require_shape(call, 2, {H, x.features}, "rnn: W_ax");
      require_shape(call, 3, {H, H}, "rnn: W_aa");
      require_shape(call, 4, {H, 1}, "rnn: b_a");
      return {call.inputs[1]};
    },
    .examples = {{{{1, 1}, {3, 1}, {3, 1}, {3, 3}, {3, 1}}}, {{{4, 2}, {2, 2}, {2, 4}, {2, 2}, {2, 1}}}},
    .first_weight = 2,
    .loops = {{1, 0}},
}};

}  // namespace
}  // namespace bptt
