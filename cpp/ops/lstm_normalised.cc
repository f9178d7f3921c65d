// Long short-term memory with layer normalisation: Ba, Kiros & Hinton, "Layer normalization", 2016 (arXiv:1607.06450),
// equations 20 to 22, fused. With LN(v; g) = g (v - mean(v)) / sqrt(variance(v) + epsilon), mean and variance over the rows
// of one column, and the rows of all four gates in one column,
//
//   z_t = LN(W_x x_t; g_x) + LN(W_h h_{t-1}; g_h) + b         z: the sums under i f g o
//   c_t = sigmoid(z_f) c_{t-1} + sigmoid(z_i) tanh(z_g)
//   h_t = sigmoid(z_o) tanh(LN(c_t; g_c) + b_c)
//
// The paper's two further biases, in the first two LN, add to b and are one with it. What goes on to the next frame is c_t
// itself, not what became of it.
#include <numeric>

#include "kernel/activate.h"
#include "ops/gates.h"
#include "ops/layer_norm.h"
#include "ops/recurrent.h"

namespace bptt {
namespace {

constexpr std::size_t gate_count = 4;
enum Input : std::size_t {
  X = 0,
  C_PAST = 1,
  H_PAST = 2,
  W_X = 3,  // the first of as many as there are gates
  W_H = W_X + gate_count,
  BIAS = W_H + gate_count,
  GAIN_X = BIAS + gate_count,
  GAIN_H = GAIN_X + gate_count,
  GAIN_CELL = GAIN_H + gate_count,
  BIAS_CELL = GAIN_CELL + 1
};

template <class S>
class NormalisedLstm final : public Operation<S> {
 public:
  explicit NormalisedLstm(const Binding<S>& b)
      : H_(b.outputs[0].shape.features),
        batch_(b.outputs[0].shape.batch),
        apart_(inputs_before(Panels::gates<S>(H_, gate_count), batch_, b.at_once)),
        x_(b.inputs[X]),
        c_past_(b.inputs[C_PAST]),
        h_past_(b.inputs[H_PAST]),
        W_x_(stack(b.inputs[W_X], gate_count)),
        W_h_(stack(b.inputs[W_H], gate_count)),
        bias_(stack(b.inputs[BIAS], gate_count)),
        gain_x_(stack(b.inputs[GAIN_X], gate_count)),
        gain_h_(stack(b.inputs[GAIN_H], gate_count)),
        gain_cell_(b.inputs[GAIN_CELL]),
        bias_cell_(b.inputs[BIAS_CELL]),
        c_(b.outputs[0]),
        h_(b.outputs[1]),
        input_(Panels::gates<S>(H_, gate_count), W_x_.version),
        state_(Panels::gates<S>(H_, gate_count), W_h_.version) {
    const bool backward = h_.gradient;
    const Index columns = batch_ * (backward || apart_ ? b.frames : 1);
    for (Panelled<S>* panels : {&gates_, &from_x_, &from_h_}) {
      *panels = {Panels::gates<S>(H_, gate_count), nullptr, columns};
      panels->data = b.scratch.take(panels->size());
    }
    for (Panelled<S>* panels : {&cell_, &seen_}) {
      *panels = {Panels::gates<S>(H_, 1), nullptr, columns};
      panels->data = b.scratch.take(panels->size());
    }
    const double epsilon = std::get<double>(b.attributes.at("epsilon"));
    const auto norm = [&](const Panelled<S>& numbers, Index gates, const Tensor<S>& gain) {
      return LayerNorm<S>(numbers, gates, gain, batch_, epsilon, backward, b.scratch);
    };
    norm_x_ = norm(from_x_, gate_count, gain_x_);
    norm_h_ = norm(from_h_, gate_count, gain_h_);
    norm_cell_ = norm(cell_, 1, gain_cell_);
    input_.add(W_x_.values(0));
    input_pieces_ = {{x_.value, x_.shape.features, 1, x_.outer}};
    const Packed<S> packed{&state_, state_.add(W_h_.values(0))};
    state_pieces_ = {{h_past_.value, H_, 1, h_past_.outer}};
    b.scratch.take(input_);
    b.scratch.take(state_);
    with_packet<S>(gates_.panels.width(), [&]<class P>(P*) {
      with_size<P>(batch_, H_, [&]<Size size>() {
        forward_ = &NormalisedLstm::template forward<P, size>;
        backward_ = &NormalisedLstm::template backward<P, size>;
      });
    });
    if (!backward) return;
    to_x_ = Back<S>(W_x_, x_, from_x_, all_packets, b.scratch);
    to_h_past_ = Back<S>(W_h_, h_past_, from_h_, all_packets, b.scratch, packed);
    const auto gradients = [&](const Panelled<S>& dz, auto&&... met) {
      WeightGradients<S> made(dz, batch_);
      made.add(met...);
      return made;
    };
    gradients_ = {gradients(from_x_, W_x_, x_), gradients(from_h_, W_h_, h_past_), gradients(gates_, bias_),
                  gradients(seen_, bias_cell_)};
  }

  void prepare() override {
    input_.pack();
    state_.pack();
    to_x_.pack();
    to_h_past_.pack();
    for (const LayerNorm<S>* norm : {&norm_x_, &norm_h_, &norm_cell_}) norm->prepare();
  }

  void forward(const Range& r) override { forward_(*this, r); }
  void backward(const Range& r) override { backward_(*this, r); }

  void accumulate(const Range& r, Part part) override {
    for (const WeightGradients<S>& gradients : gradients_) gradients.accumulate(r, part);
    Index k = 0;
    for (const LayerNorm<S>* norm : {&norm_x_, &norm_h_, &norm_cell_})
      if (k++ % part.count == part.index) norm->accumulate();
  }

  void read_gate(Index k, Index t, S* to) const override { copy_gate(gates_, k, H_, batch_, t, to); }

 private:
  enum Gate : Index { I, F, G, O };  // the packets of a panel
  using Pass = void (*)(const NormalisedLstm&, const Range&);

  template <class P, Size size>
  static void forward(const NormalisedLstm& self, const Range& r) {
    const Span mine = r.rows().of(self.gates_.panels);
    if (self.apart_)
      columns(r, self.batch_, [&](Index first, Index count) {
        self.input_.multiply(self.input_pieces_, self.from_x_, false, first, count, mine, nothing);
      });
    const auto product = [&](const Factor<S>& a, const std::vector<Right<S>>& b, const Panelled<S>& y,
                             Index first, Index count) {
      frame_product<P, gate_count, size>(a, b, y, Begin::Zero, first, count, r.rows(), nothing);
    };
    each_frame<size>(r, self.batch_, [&](Index first, Index count) {
      if (!self.apart_) product(self.input_, self.input_pieces_, self.from_x_, first, count);
      product(self.state_, self.state_pieces_, self.from_h_, first, count);
      r.meet();
      if (r.leads()) forward_cell<P>(self, first, count);
    });
  }

  template <class P, Size size>
  static void backward(const NormalisedLstm& self, const Range& r) {
    const auto frame = [&](Index first, Index count) {
      if (r.leads()) backward_cell<P>(self, first, count);
    };
    through_time<P, gate_count, size>(r, self.batch_, self.to_h_past_, false, frame, nothing);
    self.to_x_.add(r);
    r.meet();
  }

  // Means go over all rows of a column: where threads share rows, that is the products', and all else one thread's.

  /// Calls f(place) for all units of some columns.
  template <class P, class F>
  void each(Index first, Index count, F&& f) const {
    for (Index panel = 0; panel < gates_.panels.count(); ++panel)
      each_column<P, gate_count>(gates_, H_, panel, first, count, 0, f);
  }

  /// The same units and column among the products, and among what there is one number of for each unit.
  Place<S> in(const Panelled<S>& products, const Place<S>& at) const {
    return {products.data + (at.gates - gates_.data), at.unit, at.state, at.valid, at.room};
  }
  S* of_unit(const Panelled<S>& one, const Place<S>& at) const {
    return one.data + (at.gates - gates_.data) / static_cast<Index>(gate_count);
  }
  /// A gate's number of each unit of a column of weights.
  template <class P>
  P weight(const Tensor<S>& w, Index k, const Place<S>& at) const {
    return load_first<P>(w.value + k * H_ + at.unit, at.valid);
  }

  template <class P>
  static void forward_cell(const NormalisedLstm& self, Index first, Index count) {
    using namespace Eigen::internal;
    self.norm_x_.template forward<P>(first, count);
    self.norm_h_.template forward<P>(first, count);
    self.template each<P>(first, count, [&](const Place<S>& at) {
      const Place<S> x = self.in(self.from_x_, at), h = self.in(self.from_h_, at);
      const auto sum = [&](Index k) {
        const P bias = self.weight<P>(self.bias_, k, at);
        const P both = pmadd(self.weight<P>(self.gain_x_, k, at), gate<P>(x, k), bias);
        return pmadd(self.weight<P>(self.gain_h_, k, at), gate<P>(h, k), both);
      };
      const P i = packet_sigmoid(sum(I)), f = packet_sigmoid(sum(F)), g = packet_tanh(sum(G));
      const P c = pmadd(f, state<P>(self.c_past_.value, at), pmul(i, g));
      set(at, I, i);
      set(at, F, f);
      set(at, G, g);
      set(at, O, packet_sigmoid(sum(O)));
      set_state(self.c_.value, at, c);
      pstoreu(self.of_unit(self.cell_, at), c);
    });
    self.norm_cell_.template forward<P>(first, count);
    self.template each<P>(first, count, [&](const Place<S>& at) {
      const P n = ploadu<P>(self.of_unit(self.cell_, at));
      const P seen = packet_tanh(
          pmadd(self.weight<P>(self.gain_cell_, 0, at), n, self.weight<P>(self.bias_cell_, 0, at)));
      pstoreu(self.of_unit(self.seen_, at), seen);
      set_state(self.h_.value, at, pmul(gate<P>(at, O), seen));
    });
  }

  /// The mirror, from below: gates give way to the gradients of the sums under them, what is seen of the cell to that under
  /// its tanh, and normalised products to the gradients of the products.
  template <class P>
  static void backward_cell(const NormalisedLstm& self, Index first, Index count) {
    using namespace Eigen::internal;
    const P one = pset1<P>(S(1));
    self.template each<P>(first, count, [&](const Place<S>& at) {
      S* const under = self.of_unit(self.seen_, at);
      const P seen = ploadu<P>(under), o = gate<P>(at, O), dh_o = pmul(state<P>(self.h_.gradient, at), o);
      set(at, O, pmul(pmul(dh_o, seen), psub(one, o)));
      pstoreu(under, pmul(dh_o, psub(one, pmul(seen, seen))));
    });
    self.norm_cell_.template backward<P>(self.seen_, first, count);
    self.template each<P>(first, count, [&](const Place<S>& at) {
      const P dc = padd(state<P>(self.c_.gradient, at), ploadu<P>(self.of_unit(self.cell_, at)));
      set_state(self.c_.gradient, at, dc);
      const P i = gate<P>(at, I), f = gate<P>(at, F), g = gate<P>(at, G);
      const P dc_i = pmul(dc, i), dc_f = pmul(dc, f);
      set(at, I, pmul(pmul(dc_i, g), psub(one, i)));
      set(at, F, pmul(pmul(dc_f, state<P>(self.c_past_.value, at)), psub(one, f)));
      set(at, G, pmul(dc_i, psub(one, pmul(g, g))));
      if (S* const to = self.c_past_.gradient) set_state(to, at, padd(state<P>(to, at), dc_f));
    });
    self.norm_x_.template backward<P>(self.gates_, first, count);
    self.norm_h_.template backward<P>(self.gates_, first, count);
  }

  Index H_, batch_;
  bool apart_;  // the input's product is one over all frames
  Tensor<S> x_, c_past_, h_past_;
  Tensor<S> W_x_, W_h_, bias_, gain_x_, gain_h_, gain_cell_, bias_cell_;
  Tensor<S> c_, h_;
  Factor<S> input_, state_;
  std::vector<Right<S>> input_pieces_, state_pieces_;
  Panelled<S> gates_;            // scratch: i f g o; of one frame where no more is needed
  Panelled<S> from_x_, from_h_;  // scratch: the two products, normalised
  Panelled<S> cell_, seen_;      // scratch: the cell, normalised, and the tanh that the output sees
  LayerNorm<S> norm_x_, norm_h_, norm_cell_;
  Back<S> to_x_, to_h_past_;
  std::vector<WeightGradients<S>> gradients_;
  Pass forward_, backward_;
};

std::vector<Signature> infer(const Call& call) {
  const std::string name = "lstm_normalised: ";
  require_inputs(call, "lstm_normalised", BIAS_CELL + 1);
  if (!(call.real("epsilon") > 0))
    throw UsageError(name + "epsilon is above 0, got " + std::to_string(call.real("epsilon")));
  const Shape x = call.inputs[X].shape;
  const Index H = call.inputs[C_PAST].shape.features;
  require_shape(call, C_PAST, {H, x.batch}, name + "c at t-1");
  require_shape(call, H_PAST, {H, x.batch}, name + "h at t-1");
  const char* const gates[] = {"i", "f", "c", "o"};
  for (std::size_t k = 0; k < gate_count; ++k) {
    require_shape(call, W_X + k, {H, x.features}, name + "W_x" + gates[k]);
    require_shape(call, W_H + k, {H, H}, name + "W_h" + gates[k]);
    require_shape(call, BIAS + k, {H, 1}, name + "b_" + gates[k]);
    require_shape(call, GAIN_X + k, {H, 1}, name + "gain_x" + gates[k]);
    require_shape(call, GAIN_H + k, {H, 1}, name + "gain_h" + gates[k]);
  }
  require_shape(call, GAIN_CELL, {H, 1}, name + "gain_cell");
  require_shape(call, BIAS_CELL, {H, 1}, name + "bias_cell");
  return {call.inputs[C_PAST], call.inputs[H_PAST]};
}

Example example(Index I, Index H, Index B) {
  std::vector<Shape> all = {{I, B}, {H, B}, {H, B}};
  all.insert(all.end(), gate_count, {H, I});
  all.insert(all.end(), gate_count, {H, H});
  all.insert(all.end(), 3 * gate_count + 2, {H, 1});
  return {all, {{"epsilon", 1e-3}}};
}

std::vector<std::size_t> block(std::size_t first) {
  std::vector<std::size_t> inputs(gate_count);
  std::iota(inputs.begin(), inputs.end(), first);
  return inputs;
}

const Register<NormalisedLstm> lstm_normalised{{
    .name = "lstm_normalised",
    .infer = infer,
    .examples = {example(1, 3, 1), example(3, 4, 2), example(2, 1, 1)},
    .first_weight = W_X,
    .loops = {{C_PAST, 0}, {H_PAST, 1}},
    .stacks = {block(W_X), block(W_H), block(BIAS), block(GAIN_X), block(GAIN_H)},
    .split = by_lanes,
    .divides = true,
    .rereads = [](const Attributes&) { return false; },
    .begins = begins_first,
    .gates = {"i", "f", "g", "o"},
}};

}  // namespace
}  // namespace bptt
