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
#include "kernel/activate.h"
#include "ops/recurrent.h"

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
        batch_(b.outputs[0].shape.batch),
        x_(b.inputs[X]),
        c_past_(b.inputs[C_PAST]),
        h_past_(b.inputs[H_PAST]),
        W_x_(stack(b.inputs[W_X], 4)),
        W_h_(stack(b.inputs[W_H], 4)),
        bias_(stack(b.inputs[BIAS], 4)),
        c_(b.outputs[0]),
        h_(b.outputs[1]),
        product_(Panels::gates<S>(H_, 4), W_x_.version, batch_, b.frames) {
    const bool backward = h_.gradient;
    gates_ = {Panels::gates<S>(H_, 4), nullptr, batch_ * (backward || product_.apart() ? b.frames : 1)};
    gates_.data = b.scratch.take(gates_.size());
    if (backward) tanh_c_ = b.scratch.take(H_ * batch_ * b.frames);
    product_.input(W_x_, x_);
    product_.input(bias_);
    product_.state(W_h_, h_past_);
    if (peephole_ != Peephole::None) {
      W_cif_ = stack(b.inputs[W_CI], 2);
      W_co_ = b.inputs[W_CO];
    }
    if (peephole_ == Peephole::Full) {
      product_.state(W_cif_, c_past_);
      peep_ = Factor<S>(Panels::gates<S>(H_, 1), W_co_.version);
      peep_.add(W_co_.values(0));
      peep_pieces_ = {{c_.value, H_, 1, c_.outer}};
      b.scratch.take(peep_);
    }
    product_.place(b.scratch);
    with_packet<S>(gates_.panels.width(), [&]<class P>(P*) {
      forward_cell_ = &Lstm::template forward_cell<P>;
      forward_output_ = &Lstm::template forward_output<P>;
      backward_output_ = &Lstm::template backward_output<P>;
      backward_cell_ = &Lstm::template backward_cell<P>;
      diagonals_ = &Lstm::template diagonals<P>;
    });
    if (!backward) return;
    to_x_ = Back<S>(W_x_, x_, gates_, all_packets, b.scratch);
    to_h_past_ = Back<S>(W_h_, h_past_, gates_, all_packets, b.scratch);
    if (peephole_ != Peephole::Full) return;
    to_c_past_ = Back<S>(W_cif_, c_past_, gates_, {I, G}, b.scratch);
    to_c_ = Back<S>(W_co_, c_, gates_, {O, O + 1}, b.scratch);
  }

  void prepare() override {
    product_.pack();
    peep_.pack();
    to_x_.pack();
    to_h_past_.pack();
    to_c_past_.pack();
    to_c_.pack();
  }

  void forward(Range r) override {
    product_.before(r, gates_);
    each_frame(r, batch_, [&](Index first, Index count) {
      product_.frame(first, count, gates_, pass(forward_cell_));
      if (peephole_ == Peephole::Full)
        peep_.multiply(peep_pieces_, packet(O), true, first, count, batch_ == 1, pass(forward_output_));
    });
  }

  void backward(Range r) override {
    const auto frame = [&](Index first, Index count) {
      for (Index panel = 0; panel < gates_.panels.count(); ++panel)
        backward_output_(*this, panel, first, count);
      if (peephole_ != Peephole::Full) return;
      to_c_.add(first, count, nothing);
      for (Index panel = 0; panel < gates_.panels.count(); ++panel)
        backward_cell_(*this, panel, first, count);
      to_c_past_.add(first, count, nothing);
    };
    // The product's panels have several packets of units, the gates' one.
    const auto tile = [&](Index panel, Index column, Index count) {
      const Index end = std::min((panel + 1) * Tiles<S>::packets, gates_.panels.count());
      for (Index p = panel * Tiles<S>::packets; p < end; ++p) backward_output_(*this, p, column, count);
    };
    through_time(r, batch_, to_h_past_, peephole_ != Peephole::Full && to_h_past_.leads_to(h_), frame, tile);
    to_x_.add(r);
  }

  /// By now the gates hold the gradients of the sums under their sigmoids and tanh.
  void accumulate(Range r, Part part) override {
    const Span mine = part.of(gates_.panels);
    add_weight_gradient(W_x_, gates_, all_packets, x_, r, mine);
    add_weight_gradient(W_h_, gates_, all_packets, h_past_, r, mine);
    add_bias_gradient(bias_, gates_, all_packets, batch_, r, mine);
    if (peephole_ == Peephole::Full) {
      add_weight_gradient(W_cif_, gates_, {I, G}, c_past_, r, mine);
      add_weight_gradient(W_co_, gates_, {O, O + 1}, c_, r, mine);
    } else if (peephole_ == Peephole::Diagonal && W_cif_.gradient) {
      for (Index panel = mine.begin; panel < mine.end; ++panel)
        diagonals_(*this, panel, r.begin * batch_, r.size() * batch_);
    }
  }

 private:
  enum Gate : Index { I, F, G, O };  // the packets of a panel
  using Pass = void (*)(const Lstm&, Index panel, Index column, Index count);

  /// Where the numbers of one packet of units and one column lie, and how many units are real.
  struct Place {
    S* gates;
    Index unit, state, valid;
  };
  template <class P, class F>
  void each_column(Index panel, Index column, Index count, F&& f) const {
    const Index unit = gates_.panels.row(panel), valid = gates_.panels.valid(panel, 0);
    for (Index c = column; c < column + count; ++c) f(Place{gates_.at(panel, c), unit, c * H_ + unit, valid});
  }

  template <class P>
  static P gate(const Place& place, Gate k) {
    return Eigen::internal::ploadu<P>(place.gates + k * width_of<P>);
  }
  template <class P>
  static void set(const Place& place, Gate k, const P& value) {
    Eigen::internal::pstoreu(place.gates + k * width_of<P>, value);
  }
  /// A diagonal peephole's weights: of W_cif the k-th gate's, or of W_co.
  template <class P>
  static P diagonal(const Tensor<S>& w, Index gate, Index units, const Place& place) {
    return load_first<P>(w.value + gate * units + place.unit, place.valid);
  }

  /// From the sums to the cell, and where no product with it is needed, on to the output.
  template <class P>
  static void forward_cell(const Lstm& self, Index panel, Index column, Index count) {
    using namespace Eigen::internal;
    self.template each_column<P>(panel, column, count, [&](const Place& at) {
      const P past = load_first<P>(self.c_past_.value + at.state, at.valid);
      P i = gate<P>(at, I), f = gate<P>(at, F);
      if (self.peephole_ == Peephole::Diagonal) {
        i = pmadd(diagonal<P>(self.W_cif_, 0, self.H_, at), past, i);
        f = pmadd(diagonal<P>(self.W_cif_, 1, self.H_, at), past, f);
      }
      i = packet_sigmoid(i);
      f = packet_sigmoid(f);
      const P g = packet_tanh(gate<P>(at, G));
      const P c = pmadd(f, past, pmul(i, g));
      set(at, I, i);
      set(at, F, f);
      set(at, G, g);
      store_first(self.c_.value + at.state, c, at.valid);
      if (self.peephole_ != Peephole::Full) output(self, at, c);
    });
  }

  template <class P>
  static void forward_output(const Lstm& self, Index panel, Index column, Index count) {
    self.template each_column<P>(panel, column, count, [&](const Place& at) {
      output(self, at, load_first<P>(self.c_.value + at.state, at.valid));
    });
  }

  template <class P>
  static void output(const Lstm& self, const Place& at, const P& c) {
    using namespace Eigen::internal;
    P o = gate<P>(at, O);
    if (self.peephole_ == Peephole::Diagonal) o = pmadd(diagonal<P>(self.W_co_, 0, self.H_, at), c, o);
    o = packet_sigmoid(o);
    const P tanh_c = packet_tanh(c);
    set(at, O, o);
    if (self.tanh_c_) store_first(self.tanh_c_ + at.state, tanh_c, at.valid);
    store_first(self.h_.value + at.state, pmul(o, tanh_c), at.valid);
  }

  // The mirror, from below; each gate gives way to the gradient of its sum.

  template <class P>
  static void backward_output(const Lstm& self, Index panel, Index column, Index count) {
    using namespace Eigen::internal;
    const P one = pset1<P>(S(1));
    self.template each_column<P>(panel, column, count, [&](const Place& at) {
      const P dh = load_first<P>(self.h_.gradient + at.state, at.valid);
      const P tanh_c = load_first<P>(self.tanh_c_ + at.state, at.valid);
      const P o = gate<P>(at, O), dh_o = pmul(dh, o);
      P dc = load_first<P>(self.c_.gradient + at.state, at.valid);
      dc = pmadd(dh_o, psub(one, pmul(tanh_c, tanh_c)), dc);
      const P d_o = pmul(pmul(dh_o, tanh_c), psub(one, o));
      if (self.peephole_ == Peephole::Diagonal) dc = pmadd(diagonal<P>(self.W_co_, 0, self.H_, at), d_o, dc);
      set(at, O, d_o);
      if (self.peephole_ == Peephole::Full)
        store_first(self.c_.gradient + at.state, dc, at.valid);
      else
        cell(self, at, dc);
    });
  }

  template <class P>
  static void backward_cell(const Lstm& self, Index panel, Index column, Index count) {
    self.template each_column<P>(panel, column, count, [&](const Place& at) {
      cell(self, at, load_first<P>(self.c_.gradient + at.state, at.valid));
    });
  }

  template <class P>
  static void cell(const Lstm& self, const Place& at, const P& dc) {
    using namespace Eigen::internal;
    const P one = pset1<P>(S(1));
    const P past = load_first<P>(self.c_past_.value + at.state, at.valid);
    const P i = gate<P>(at, I), f = gate<P>(at, F), g = gate<P>(at, G);
    const P dc_f = pmul(dc, f), dc_i = pmul(dc, i);
    const P d_i = pmul(pmul(dc_i, g), psub(one, i));
    const P d_f = pmul(pmul(dc_f, past), psub(one, f));
    set(at, I, d_i);
    set(at, F, d_f);
    set(at, G, pmul(dc_i, psub(one, pmul(g, g))));
    if (!self.c_past_.gradient) return;
    S* const to = self.c_past_.gradient + at.state;
    P d_past = padd(load_first<P>(to, at.valid), dc_f);
    if (self.peephole_ == Peephole::Diagonal) {
      d_past = pmadd(diagonal<P>(self.W_cif_, 0, self.H_, at), d_i, d_past);
      d_past = pmadd(diagonal<P>(self.W_cif_, 1, self.H_, at), d_f, d_past);
    }
    store_first(to, d_past, at.valid);
  }

  /// The gradients of diagonal peepholes.
  template <class P>
  static void diagonals(const Lstm& self, Index panel, Index column, Index count) {
    using namespace Eigen::internal;
    P i = pset1<P>(S(0)), f = i, o = i;
    self.template each_column<P>(panel, column, count, [&](const Place& at) {
      const P past = load_first<P>(self.c_past_.value + at.state, at.valid);
      i = pmadd(gate<P>(at, I), past, i);
      f = pmadd(gate<P>(at, F), past, f);
      o = pmadd(gate<P>(at, O), load_first<P>(self.c_.value + at.state, at.valid), o);
    });
    const Index unit = self.gates_.panels.row(panel), valid = self.gates_.panels.valid(panel, 0);
    const auto add = [&](S* to, const P& sum) {
      store_first(to + unit, padd(load_first<P>(to + unit, valid), sum), valid);
    };
    add(self.W_cif_.gradient, i);
    add(self.W_cif_.gradient + self.H_, f);
    add(self.W_co_.gradient, o);
  }

  /// One gate alone, in the panels of all.
  Panelled<S> packet(Gate k) const {
    Panelled<S> one = gates_;
    one.data += k * gates_.panels.width();
    return one;
  }
  auto pass(Pass run) const {
    return [this, run](Index panel, Index column, Index count) { run(*this, panel, column, count); };
  }

  Peephole peephole_;
  Index H_, batch_;
  Tensor<S> x_, c_past_, h_past_;
  Tensor<S> W_x_, W_h_, bias_, W_cif_, W_co_;
  Tensor<S> c_, h_;
  RecurrentProduct<S> product_;
  Factor<S> peep_;  // W_co, if it is a matrix
  std::vector<Right<S>> peep_pieces_;
  Panelled<S> gates_;    // scratch: i f g o, then their gradients; of one frame where no more is needed
  S* tanh_c_ = nullptr;  // scratch, for the backward
  Back<S> to_x_, to_h_past_, to_c_past_, to_c_;
  Pass forward_cell_, forward_output_, backward_output_, backward_cell_, diagonals_;
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
    .split = by_lanes,
    .divides = true,
}};

}  // namespace
}  // namespace bptt
