// Long short-term memory as in Graves, "Generating sequences with recurrent neural networks", 2013
// (arXiv:1308.0850), equations 7-11, fused:
//
//   i_t = sigmoid(W_xi x_t + W_hi h_{t-1} + W_ci c_{t-1} + b_i)
//   f_t = sigmoid(W_xf x_t + W_hf h_{t-1} + W_cf c_{t-1} + b_f)
//   g_t = tanh   (W_xc x_t + W_hc h_{t-1}                + b_c)
//   c_t = f_t c_{t-1} + i_t g_t
//   o_t = sigmoid(W_xo x_t + W_ho h_{t-1} + W_co c_t     + b_o)
//   h_t = o_t tanh(c_t)
//
// The peephole weights W_ci, W_cf, W_co are full matrices, diagonal (held as one column), or absent. The
// weights of the four gates are row blocks of one matrix, in the order i f g o, so that all gates come from
// one product: over the whole range for the input, frame by frame for the state.
#include "ops/operation.h"

namespace bptt {
namespace {

// The inputs, by number: each entry is the first of its gates.
enum Input : std::size_t { X = 0, C_PAST = 1, H_PAST = 2, W_X = 3, W_H = 7, BIAS = 11, W_CI = 15, W_CO = 17 };
enum class Peephole { None, Full, Diagonal };

Peephole peephole_of(const Attributes& attributes) {
  const std::string& name = std::get<std::string>(attributes.at("peephole"));
  if (name == "none") return Peephole::None;
  if (name == "full") return Peephole::Full;
  if (name == "diagonal") return Peephole::Diagonal;
  throw UsageError("lstm: peephole is \"none\", \"full\" or \"diagonal\", got \"" + name + "\"");
}

/// The row blocks of several gates as one matrix, given the first.
template <class S>
Tensor<S> stack(Tensor<S> first, Index gates) {
  first.shape.features *= gates;
  return first;
}

template <class S>
class Lstm final : public Operation<S> {
 public:
  explicit Lstm(const Binding<S>& b)
      : peephole_(peephole_of(b.attributes)),
        H_(b.outputs[0].shape.features),
        x_(b.inputs[X]),
        c_past_(b.inputs[C_PAST]),
        h_past_(b.inputs[H_PAST]),
        W_x_(stack(b.inputs[W_X], 4)),
        W_h_(stack(b.inputs[W_H], 4)),
        bias_(stack(b.inputs[BIAS], 4)),
        c_(b.outputs[0]),
        h_(b.outputs[1]),
        work_{b.scratch.take(5 * H_ * c_.shape.batch * b.frames),
              nullptr,
              {5 * H_, c_.shape.batch},
              Extent::Frame,
              5 * H_} {
    const Index lanes = c_.shape.batch, columns = lanes * b.frames;
    const bool backward = h_.gradient;
    from_x_ = factor(W_x_, false, columns, b.scratch);
    from_h_ = factor(W_h_, false, lanes, b.scratch);
    if (backward) to_x_ = factor(W_x_, true, columns, b.scratch);
    if (backward) to_h_ = factor(W_h_, true, lanes, b.scratch);
    if (peephole_ == Peephole::None) return;
    W_cif_ = stack(b.inputs[W_CI], 2);
    W_co_ = b.inputs[W_CO];
    if (peephole_ == Peephole::Diagonal) return;
    peep_past_ = factor(W_cif_, false, lanes, b.scratch);
    peep_ = factor(W_co_, false, lanes, b.scratch);
    if (backward) to_c_past_ = factor(W_cif_, true, lanes, b.scratch);
    if (backward) to_c_ = factor(W_co_, true, lanes, b.scratch);
  }

  void forward(Range r) override {
    auto z = gates(r);
    from_x_.set(z, x_.values(r));
    z.colwise() += bias_.values(0).col(0);
    for (Index t = r.begin; t < r.end; ++t) forward_frame(t);
  }

  void backward(Range r) override {
    for (Index t = r.end - 1; t >= r.begin; --t) backward_frame(t);
    if (x_.gradient) to_x_.add(x_.gradients(r), gates(r));
  }

  /// By now the gates hold the gradients of the sums under their sigmoids and tanh.
  void accumulate(Range r, Part) override {
    const auto dz = gates(r);
    if (W_x_.gradient) add_outer_product(W_x_.gradients(0), dz, x_.values(r));
    if (W_h_.gradient) add_outer_product(W_h_.gradients(0), dz, h_past_.values(r));
    if (bias_.gradient) bias_.gradients(0) += dz.rowwise().sum();
    if (peephole_ == Peephole::Full) {
      if (W_cif_.gradient) add_outer_product(W_cif_.gradients(0), rows(r, 0, 2), c_past_.values(r));
      if (W_co_.gradient) add_outer_product(W_co_.gradients(0), rows(r, 3, 1), c_.values(r));
    } else if (peephole_ == Peephole::Diagonal && W_cif_.gradient) {
      const auto past = c_past_.values(r);
      W_cif_.gradients(0).topRows(H_) += dz.topRows(H_).cwiseProduct(past).rowwise().sum();
      W_cif_.gradients(0).bottomRows(H_) += dz.middleRows(H_, H_).cwiseProduct(past).rowwise().sum();
      W_co_.gradients(0) += dz.bottomRows(H_).cwiseProduct(c_.values(r)).rowwise().sum();
    }
  }

 private:
  void forward_frame(Index t) {
    auto z = gates({t, t + 1});
    const auto c_past = c_past_.values(t);
    from_h_.add(z, h_past_.values(t));
    if (peephole_ == Peephole::Full) peep_past_.add(rows({t, t + 1}, 0, 2), c_past);
    auto i = gate(t, 0), f = gate(t, 1), g = gate(t, 2), o = gate(t, 3), tanh_c = gate(t, 4);
    if (peephole_ == Peephole::Diagonal) {
      i += diagonal(W_cif_, 0).asDiagonal() * c_past;
      f += diagonal(W_cif_, 1).asDiagonal() * c_past;
    }
    i.array() = i.array().logistic();
    f.array() = f.array().logistic();
    g.array() = g.array().tanh();
    auto c = c_.values(t);
    c = f.cwiseProduct(c_past) + i.cwiseProduct(g);
    if (peephole_ == Peephole::Full) peep_.add(o, c);
    if (peephole_ == Peephole::Diagonal) o += diagonal(W_co_, 0).asDiagonal() * c;
    o.array() = o.array().logistic();
    tanh_c.array() = c.array().tanh();
    h_.values(t) = o.cwiseProduct(tanh_c);
  }

  /// The mirror of forward_frame, line by line from below; each gate gives way to the gradient of its sum.
  void backward_frame(Index t) {
    const auto c_past = c_past_.values(t).array();
    const auto dh = h_.gradients(t).array();
    auto dc = c_.gradients(t);
    auto i = gate(t, 0).array(), f = gate(t, 1).array(), g = gate(t, 2).array(), o = gate(t, 3).array();
    const auto tanh_c = gate(t, 4).array();
    const S one(1);

    dc.array() += dh * o * (one - tanh_c.square());
    o = dh * tanh_c * o * (one - o);
    if (peephole_ == Peephole::Full) to_c_.add(dc, gate(t, 3));
    if (peephole_ == Peephole::Diagonal) dc += diagonal(W_co_, 0).asDiagonal() * o.matrix();
    if (c_past_.gradient) c_past_.gradients(t).array() += dc.array() * f;
    // di and dg need each other's value: the first is set aside in the place of tanh(c), which has served.
    auto di = gate(t, 4).array();
    di = dc.array() * g * i * (one - i);
    g = dc.array() * i * (one - g.square());
    i = di;
    f = dc.array() * c_past * f * (one - f);

    if (h_past_.gradient) to_h_.add(h_past_.gradients(t), gates({t, t + 1}));
    if (!c_past_.gradient) return;
    if (peephole_ == Peephole::Full) to_c_past_.add(c_past_.gradients(t), rows({t, t + 1}, 0, 2));
    if (peephole_ == Peephole::Diagonal)
      c_past_.gradients(t) +=
          diagonal(W_cif_, 0).asDiagonal() * i.matrix() + diagonal(W_cif_, 1).asDiagonal() * f.matrix();
  }

  /// So many of i f g o tanh(c), from the k-th on, at the frames r.
  MatrixMap<S> rows(Range r, Index k, Index count) const {
    MatrixMap<S> all = work_.values(r);
    return {all.data() + k * H_, count * H_, all.cols(), Eigen::OuterStride<>(all.outerStride())};
  }
  MatrixMap<S> gates(Range r) const { return rows(r, 0, 4); }
  MatrixMap<S> gate(Index t, Index k) const { return rows({t, t + 1}, k, 1); }
  auto diagonal(const Tensor<S>& w, Index k) const { return w.values(0).col(0).segment(k * H_, H_); }

  Peephole peephole_;
  Index H_;
  Tensor<S> x_, c_past_, h_past_;
  Tensor<S> W_x_, W_h_, bias_, W_cif_, W_co_;
  Tensor<S> c_, h_;
  Tensor<S> work_;  // scratch: for each frame the gates i f g o and tanh(c), one above the other
  Factor<S> from_x_, from_h_, peep_past_, peep_, to_x_, to_h_, to_c_past_, to_c_;
};

std::vector<Signature> infer(const Call& call) {
  const Peephole peephole = peephole_of(call.attributes);
  require_inputs(call, "lstm", peephole == Peephole::None ? 15 : 18);
  const Shape x = call.inputs[X].shape;
  const Index H = call.inputs[C_PAST].shape.features;
  require_shape(call, C_PAST, {H, x.batch}, "lstm: c at t-1");
  require_shape(call, H_PAST, {H, x.batch}, "lstm: h at t-1");
  const char* const gates[] = {"i", "f", "c", "o"};
  for (std::size_t k = 0; k < 4; ++k) {
    require_shape(call, W_X + k, {H, x.features}, std::string("lstm: W_x") + gates[k]);
    require_shape(call, W_H + k, {H, H}, std::string("lstm: W_h") + gates[k]);
    require_shape(call, BIAS + k, {H, 1}, std::string("lstm: b_") + gates[k]);
  }
  const char* const peepholes[] = {"lstm: W_ci", "lstm: W_cf", "lstm: W_co"};
  if (peephole != Peephole::None)
    for (std::size_t k = 0; k < 3; ++k)
      require_shape(call, W_CI + k, {H, peephole == Peephole::Full ? H : 1}, peepholes[k]);
  return {call.inputs[C_PAST], call.inputs[H_PAST]};
}

/// Shapes of all inputs for I input features, H units, B lanes.
std::vector<Shape> shapes(Index I, Index H, Index B, Index peephole_columns) {
  std::vector<Shape> all = {{I, B}, {H, B}, {H, B}};
  all.insert(all.end(), 4, {H, I});
  all.insert(all.end(), 4, {H, H});
  all.insert(all.end(), 4, {H, 1});
  if (peephole_columns > 0) all.insert(all.end(), 3, {H, peephole_columns});
  return all;
}

const Register<Lstm> lstm{{
    .name = "lstm",
    .infer = infer,
    .examples = {{shapes(1, 3, 1, 0), {{"peephole", std::string("none")}}},
                 {shapes(2, 2, 3, 0), {{"peephole", std::string("none")}}},
                 {shapes(1, 1, 1, 1), {{"peephole", std::string("full")}}},
                 {shapes(3, 2, 2, 2), {{"peephole", std::string("full")}}},
                 {shapes(2, 3, 1, 1), {{"peephole", std::string("diagonal")}}},
                 {shapes(2, 4, 2, 1), {{"peephole", std::string("diagonal")}}}},
    .first_weight = W_X,
    .loops = {{C_PAST, 0}, {H_PAST, 1}},
    .stacks = {{W_X, W_X + 1, W_X + 2, W_X + 3},
               {W_H, W_H + 1, W_H + 2, W_H + 3},
               {BIAS, BIAS + 1, BIAS + 2, BIAS + 3},
               {W_CI, W_CI + 1}},
}};

}  // namespace
}  // namespace bptt
