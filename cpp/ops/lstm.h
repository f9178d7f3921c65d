// Long short-term memory, once for all its forms. A form says which gates there are and whether the output is a
// projection; equations stand in the files of the forms. In all of them, with f = 1 - i where the gates are coupled,
//
//   c_t = f_t c_{t-1} + i_t g_t
//   m_t = o_t tanh(c_t)
//   h_t = m_t,  or  W_rm m_t  if it is projected
//
// The peephole weights W_ci, W_cf, W_co are full matrices, diagonal (held as one column), or absent. The weights of the
// gates are row blocks of one matrix, in the order i f g o, so that all gates come from one product: over the whole range
// for the input, frame by frame for the state.
#pragma once

#include <numeric>

#include "kernel/activate.h"
#include "ops/gates.h"
#include "ops/recurrent.h"

namespace bptt {

enum class Peephole { None, Full, Diagonal };

inline Peephole peephole_of(const Attributes& attributes) {
  const std::string& name = std::get<std::string>(attributes.at("peephole"));
  if (name == "none") return Peephole::None;
  if (name == "full") return Peephole::Full;
  if (name == "diagonal") return Peephole::Diagonal;
  throw UsageError("lstm: peephole is \"none\", \"full\" or \"diagonal\", got \"" + name + "\"");
}

/// The inputs of a form, by number: each is the first of its gates.
template <class Form>
struct LstmInputs {
  static constexpr std::size_t gates = Form::coupled ? 3 : 4;
  static constexpr std::size_t X = 0, C_PAST = 1, H_PAST = 2, W_X = 3, W_H = W_X + gates, BIAS = W_H + gates,
                               W_RM = BIAS + gates, W_CI = W_RM + (Form::projected ? 1 : 0),
                               W_CO = W_CI + gates - 2;
};

template <class S, class Form>
class Lstm final : public Operation<S> {
  using In = LstmInputs<Form>;

 public:
  explicit Lstm(const Binding<S>& b)
      : peephole_(peephole_of(b.attributes)),
        H_(b.outputs[0].shape.features),
        batch_(b.outputs[0].shape.batch),
        x_(b.inputs[In::X]),
        c_past_(b.inputs[In::C_PAST]),
        h_past_(b.inputs[In::H_PAST]),
        W_x_(stack(b.inputs[In::W_X], gate_count)),
        W_h_(stack(b.inputs[In::W_H], gate_count)),
        bias_(stack(b.inputs[In::BIAS], gate_count)),
        c_(b.outputs[0]),
        h_(b.outputs[1]),
        m_(Form::projected ? c_ : h_),
        product_(Panels::gates<S>(H_, gate_count), W_x_.version, batch_, b.at_once) {
    const bool backward = h_.gradient;
    gates_ = {Panels::gates<S>(H_, gate_count), nullptr,
              batch_ * (backward || product_.apart() ? b.frames : 1)};
    gates_.data = b.scratch.take(gates_.size());
    const Index all = H_ * batch_ * b.frames;
    if (backward) tanh_c_ = b.scratch.take(all);
    if constexpr (Form::projected) {
      m_.value = b.scratch.take(all);
      m_.gradient = backward ? b.scratch.take(all) : nullptr;
      W_rm_ = b.inputs[In::W_RM];
      project_ = Factor<S>(Panels::plain<S>(h_.shape.features), W_rm_.version);
      project_.add(W_rm_.values(0));
      b.scratch.take(project_);
      project_pieces_ = {{m_.value, H_, 1, m_.outer}};
    }
    product_.input(W_x_, x_);
    product_.input(bias_);
    const Packed<S> h_packed = product_.state(W_h_, h_past_);
    Packed<S> cif_packed, co_packed;
    if (peephole_ != Peephole::None) {
      W_cif_ = stack(b.inputs[In::W_CI], gate_count - 2);
      W_co_ = b.inputs[In::W_CO];
    }
    if (peephole_ == Peephole::Full) {
      cif_packed = product_.state(W_cif_, c_past_);
      peep_ = Factor<S>(Panels::gates<S>(H_, 1), W_co_.version);
      co_packed = {&peep_, peep_.add(W_co_.values(0))};
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
    if constexpr (Form::projected) {
      to_m_ = Factor<S>(Panels::plain<S>(H_), W_rm_.version);
      to_m_.add_transposed(W_rm_.values(0));
      b.scratch.take(to_m_);
      to_m_pieces_ = {{h_.gradient, h_.shape.features, 1, h_.outer}};
    }
    to_x_ = Back<S>(W_x_, x_, gates_, all_packets, b.scratch);
    to_h_past_ = Back<S>(W_h_, h_past_, gates_, all_packets, b.scratch, h_packed);
    gradients_ = {gates_, batch_};
    gradients_.add(W_x_, x_);
    gradients_.add(W_h_, h_past_);
    gradients_.add(bias_);
    if (peephole_ != Peephole::Full) return;
    gradients_.add(W_cif_, c_past_, {I, G});
    gradients_.add(W_co_, c_, {O, O + 1});
    to_c_past_ = Back<S>(W_cif_, c_past_, gates_, {I, G}, b.scratch, cif_packed);
    to_c_ = Back<S>(W_co_, c_, gates_, {O, O + 1}, b.scratch, co_packed);
  }

  void prepare() override {
    product_.pack();
    peep_.pack();
    project_.pack();
    to_m_.pack();
    to_x_.pack();
    to_h_past_.pack();
    to_c_past_.pack();
    to_c_.pack();
  }

  void forward(const Range& r) override {
    product_.before(r, gates_);
    each_frame(r, batch_, [&](Index first, Index count) {
      product_.frame(first, count, gates_, r.rows(), pass(forward_cell_, r));
      if (peephole_ == Peephole::Full) {
        r.meet();
        peep_.multiply(peep_pieces_, from_gate(gates_, O), true, first, count, batch_ == 1,
                       r.rows().of(peep_.panels()), pass(forward_output_, r));
      }
      if constexpr (Form::projected) {
        r.meet();
        project_.multiply(project_pieces_, h_.values(0), false, first, count, batch_ == 1,
                          r.rows().of(project_.panels()), nothing);
      }
    });
  }

  void backward(const Range& r) override {
    const Span mine = r.rows().of(gates_.panels);
    const auto output = pass(backward_output_, r), cell = pass(backward_cell_, r);
    const auto frame = [&](Index first, Index count) {
      if constexpr (Form::projected) {
        to_m_.multiply(to_m_pieces_, m_.gradients(0), false, first, count, batch_ == 1,
                       r.rows().of(to_m_.panels()), nothing);
        r.meet();
      }
      for (Index panel = mine.begin; panel < mine.end; ++panel) output(panel, first, count);
      if (peephole_ != Peephole::Full) return;
      r.meet();
      to_c_.add(r, first, count, nothing);
      r.meet();
      for (Index panel = mine.begin; panel < mine.end; ++panel) cell(panel, first, count);
      r.meet();
      to_c_past_.add(r, first, count, nothing);
    };
    const auto tile = [&](Index plain, Index column, Index count) {
      each_panel(gates_, plain, [&](Index panel) { output(panel, column, count); });
    };
    const bool tilewise = !Form::projected && peephole_ != Peephole::Full && to_h_past_.leads_to(h_);
    through_time(r, batch_, to_h_past_, tilewise, frame, tile);
    to_x_.add(r);
    r.meet();
  }

  /// By now the gates hold the gradients of the sums under their sigmoids and tanh.
  void accumulate(const Range& r, Part part) override {
    const Span mine = part.of(gates_.panels);
    gradients_.accumulate(r, part);
    if constexpr (Form::projected)
      if (W_rm_.gradient) {
        const Outer<S> term[] = {{W_rm_.gradients(0), all_packets, m_.values(r).data(), m_.outer}};
        add_outer_products<S>(term, h_.gradients(r), project_.panels(), {0, h_.gradients(r).cols()}, part);
      }
    if (peephole_ == Peephole::Diagonal && W_cif_.gradient)
      for (Index panel = mine.begin; panel < mine.end; ++panel)
        diagonals_(*this, panel, r.begin * batch_, r.size() * batch_, 0);
  }

  void read_gate(Index k, Index t, S* to) const override { copy_gate(gates_, k, H_, batch_, t, to); }

 private:
  static constexpr bool coupled = Form::coupled;
  static constexpr Index gate_count = coupled ? 3 : 4;
  enum Gate : Index { I, F, G = gate_count - 2, O };  // the packets of a panel; F only if it is no 1 - i
  using Pass = void (*)(const Lstm&, Index panel, Index column, Index count, Index end);

  /// A diagonal peephole's weights: of W_cif the k-th gate's, or of W_co.
  template <class P>
  static P diagonal(const Tensor<S>& w, Index gate, Index units, const Place<S>& place) {
    return load_first<P>(w.value + gate * units + place.unit, place.valid);
  }

  /// From the sums to the cell, and where no product with it is needed, on to the output.
  template <class P>
  static void forward_cell(const Lstm& self, Index panel, Index column, Index count, Index end) {
    using namespace Eigen::internal;
    each_column(self.gates_, self.H_, panel, column, count, end, [&](const Place<S>& at) {
      const P past = state<P>(self.c_past_.value, at);
      P i = gate<P>(at, I);
      if (self.peephole_ == Peephole::Diagonal) i = pmadd(diagonal<P>(self.W_cif_, 0, self.H_, at), past, i);
      i = packet_sigmoid(i);
      const P g = packet_tanh(gate<P>(at, G));
      P c;
      if constexpr (coupled) {
        c = pmadd(i, psub(g, past), past);
      } else {
        P f = gate<P>(at, F);
        if (self.peephole_ == Peephole::Diagonal)
          f = pmadd(diagonal<P>(self.W_cif_, 1, self.H_, at), past, f);
        f = packet_sigmoid(f);
        c = pmadd(f, past, pmul(i, g));
        set(at, F, f);
      }
      set(at, I, i);
      set(at, G, g);
      set_state(self.c_.value, at, c);
      if (self.peephole_ != Peephole::Full) output(self, at, c);
    });
  }

  template <class P>
  static void forward_output(const Lstm& self, Index panel, Index column, Index count, Index end) {
    each_column(self.gates_, self.H_, panel, column, count, end,
                [&](const Place<S>& at) { output(self, at, state<P>(self.c_.value, at)); });
  }

  template <class P>
  static void output(const Lstm& self, const Place<S>& at, const P& c) {
    using namespace Eigen::internal;
    P o = gate<P>(at, O);
    if (self.peephole_ == Peephole::Diagonal) o = pmadd(diagonal<P>(self.W_co_, 0, self.H_, at), c, o);
    o = packet_sigmoid(o);
    const P tanh_c = packet_tanh(c);
    set(at, O, o);
    if (self.tanh_c_) set_state(self.tanh_c_, at, tanh_c);
    set_state(self.m_.value, at, pmul(o, tanh_c));
  }

  // The mirror, from below; each gate gives way to the gradient of its sum.

  template <class P>
  static void backward_output(const Lstm& self, Index panel, Index column, Index count, Index end) {
    using namespace Eigen::internal;
    const P one = pset1<P>(S(1));
    each_column(self.gates_, self.H_, panel, column, count, end, [&](const Place<S>& at) {
      const P dh = state<P>(self.m_.gradient, at);
      const P tanh_c = state<P>(self.tanh_c_, at);
      const P o = gate<P>(at, O), dh_o = pmul(dh, o);
      const P d_o = pmul(pmul(dh_o, tanh_c), psub(one, o));
      const auto add = [&](const P& dc) {  // zeros to what follows, which somebody may still read
        const P sum = pmadd(dh_o, psub(one, pmul(tanh_c, tanh_c)), dc);
        if (self.peephole_ != Peephole::Diagonal) return sum;
        return pmadd(diagonal<P>(self.W_co_, 0, self.H_, at), d_o, sum);
      };
      const P dc = add(state<P>(self.c_.gradient, at));
      set(at, O, d_o);
      set_state(self.c_.gradient, at, add(whole_state<P>(self.c_.gradient, at)));
      if (self.peephole_ != Peephole::Full) cell(self, at, dc);
    });
  }

  template <class P>
  static void backward_cell(const Lstm& self, Index panel, Index column, Index count, Index end) {
    each_column(self.gates_, self.H_, panel, column, count, end,
                [&](const Place<S>& at) { cell(self, at, state<P>(self.c_.gradient, at)); });
  }

  template <class P>
  static void cell(const Lstm& self, const Place<S>& at, const P& dc) {
    using namespace Eigen::internal;
    const P one = pset1<P>(S(1));
    const P past = state<P>(self.c_past_.value, at);
    const P i = gate<P>(at, I), g = gate<P>(at, G), dc_i = pmul(dc, i);
    const P d_i = pmul(pmul(dc_i, coupled ? psub(g, past) : g), psub(one, i));
    const P f = coupled ? psub(one, i) : gate<P>(at, F), dc_f = pmul(dc, f);
    P d_f;
    set(at, I, d_i);
    if constexpr (!coupled) {
      d_f = pmul(pmul(dc_f, past), psub(one, f));
      set(at, F, d_f);
    }
    set(at, G, pmul(dc_i, psub(one, pmul(g, g))));
    if (!self.c_past_.gradient) return;
    P d_past = padd(whole_state<P>(self.c_past_.gradient, at), dc_f);
    if (self.peephole_ == Peephole::Diagonal) {
      d_past = pmadd(diagonal<P>(self.W_cif_, 0, self.H_, at), d_i, d_past);
      if constexpr (!coupled) d_past = pmadd(diagonal<P>(self.W_cif_, 1, self.H_, at), d_f, d_past);
    }
    set_state(self.c_past_.gradient, at, d_past);
  }

  /// The gradients of diagonal peepholes.
  template <class P>
  static void diagonals(const Lstm& self, Index panel, Index column, Index count, Index end) {
    using namespace Eigen::internal;
    P i = pset1<P>(S(0)), f = i, o = i;
    each_column(self.gates_, self.H_, panel, column, count, end, [&](const Place<S>& at) {
      const P past = state<P>(self.c_past_.value, at);
      i = pmadd(gate<P>(at, I), past, i);
      if constexpr (!coupled) f = pmadd(gate<P>(at, F), past, f);
      o = pmadd(gate<P>(at, O), state<P>(self.c_.value, at), o);
    });
    const Index unit = self.gates_.panels.row(panel), valid = self.gates_.panels.valid(panel, 0);
    const auto add = [&](S* to, const P& sum) {
      store_first(to + unit, padd(load_first<P>(to + unit, valid), sum), valid);
    };
    add(self.W_cif_.gradient, i);
    if constexpr (!coupled) add(self.W_cif_.gradient + self.H_, f);
    add(self.W_co_.gradient, o);
  }

  auto pass(Pass run, const Range& r) const {
    return [this, run, end = free_before(r, batch_)](Index panel, Index column, Index count) {
      run(*this, panel, column, count, end);
    };
  }

  Peephole peephole_;
  Index H_, batch_;
  Tensor<S> x_, c_past_, h_past_;
  Tensor<S> W_x_, W_h_, bias_, W_cif_, W_co_;
  Tensor<S> c_, h_, m_;  // m is scratch if h is its projection
  Tensor<S> W_rm_;
  RecurrentProduct<S> product_;
  Factor<S> peep_;            // W_co, if it is a matrix
  Factor<S> project_, to_m_;  // W_rm and its transpose
  std::vector<Right<S>> peep_pieces_, project_pieces_, to_m_pieces_;
  Panelled<S> gates_;    // scratch: i f g o, then their gradients; of one frame where no more is needed
  S* tanh_c_ = nullptr;  // scratch, for the backward
  Back<S> to_x_, to_h_past_, to_c_past_, to_c_;
  WeightGradients<S> gradients_;
  Pass forward_cell_, forward_output_, backward_output_, backward_cell_, diagonals_;
};

/// What the graph knows of a form.
template <class Form>
OpType lstm_type() {
  using In = LstmInputs<Form>;
  const auto names = [] {
    return Form::coupled ? std::vector{"i", "c", "o"} : std::vector{"i", "f", "c", "o"};
  };
  OpType type;
  type.name = Form::name;
  type.infer = [names](const Call& call) -> std::vector<Signature> {
    const std::string name = std::string(Form::name) + ": ";
    const Peephole peephole = peephole_of(call.attributes);
    require_inputs(call, Form::name, peephole == Peephole::None ? In::W_CI : In::W_CO + 1);
    const Shape x = call.inputs[In::X].shape;
    const Index H = call.inputs[In::C_PAST].shape.features;
    const Index P = Form::projected ? call.inputs[In::H_PAST].shape.features : H;
    require_shape(call, In::C_PAST, {H, x.batch}, name + "c at t-1");
    require_shape(call, In::H_PAST, {P, x.batch}, name + "h at t-1");
    std::size_t k = 0;
    for (const std::string gate : names()) {
      require_shape(call, In::W_X + k, {H, x.features}, name + "W_x" + gate);
      require_shape(call, In::W_H + k, {H, P}, name + "W_h" + gate);
      require_shape(call, In::BIAS + k, {H, 1}, name + "b_" + gate);
      ++k;
    }
    if (Form::projected) require_shape(call, In::W_RM, {P, H}, name + "W_rm");
    k = In::W_CI;
    if (peephole != Peephole::None)
      for (const std::string gate : names())
        if (gate != "c")
          require_shape(call, k++, {H, peephole == Peephole::Full ? H : 1}, name + "W_c" + gate);
    return {call.inputs[In::C_PAST], call.inputs[In::H_PAST]};
  };

  /// Inputs for I features, H units, an output of P features, B lanes.
  const auto example = [](Index I, Index H, Index P, Index B, const std::string& peephole) {
    if (!Form::projected) P = H;
    std::vector<Shape> all = {{I, B}, {H, B}, {P, B}};
    all.insert(all.end(), In::gates, {H, I});
    all.insert(all.end(), In::gates, {H, P});
    all.insert(all.end(), In::gates, {H, 1});
    if (Form::projected) all.push_back({P, H});
    if (peephole != "none") all.insert(all.end(), In::gates - 1, {H, peephole == "full" ? H : 1});
    return Example{all, {{"peephole", peephole}}};
  };
  type.examples = {example(1, 3, 2, 1, "none"),     example(2, 2, 1, 3, "none"),
                   example(1, 1, 1, 1, "full"),     example(3, 2, 3, 2, "full"),
                   example(2, 3, 1, 1, "diagonal"), example(2, 4, 3, 2, "diagonal")};
  type.gates =
      Form::coupled ? std::vector<std::string>{"i", "g", "o"} : std::vector<std::string>{"i", "f", "g", "o"};
  type.first_weight = In::W_X;
  type.loops = {{In::C_PAST, 0}, {In::H_PAST, 1}};
  const auto block = [](std::size_t first, std::size_t count) {
    std::vector<std::size_t> inputs(count);
    std::iota(inputs.begin(), inputs.end(), first);
    return inputs;
  };
  type.stacks = {block(In::W_X, In::gates), block(In::W_H, In::gates), block(In::BIAS, In::gates),
                 block(In::W_CI, In::gates - 2)};
  type.split = by_lanes;
  type.divides = true;
  type.rereads = [](const Attributes& a) { return peephole_of(a) != Peephole::None; };  // c
  type.begins = begins_first;
  return type;
}

}  // namespace bptt
