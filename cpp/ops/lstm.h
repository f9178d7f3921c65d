// Long short-term memory, once for all its forms. A form says which gates there are and whether the output is a
// projection; equations stand in the files of the forms. In all of them, with f = 1 - i where the gates are coupled,
//
//   c_t = f_t c_{t-1} + i_t g_t
//   m_t = o_t tanh(c_t)
//   h_t = m_t,  or  W_rm m_t  if it is projected
//
// The peephole weights W_ci, W_cf, W_co are full matrices, diagonal (held as one column), or absent. The weights of the
// gates are row blocks of one matrix, in the order i f g o, so that all gates come from one product (RecurrentProduct).
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
      : cell_{.peephole = peephole_of(b.attributes),
              .H = b.outputs[0].shape.features,
              .batch = b.outputs[0].shape.batch,
              .c_past = b.inputs[In::C_PAST],
              .c = b.outputs[0],
              .m = b.outputs[Form::projected ? 0 : 1]},
        x_(b.inputs[In::X]),
        h_past_(b.inputs[In::H_PAST]),
        W_x_(stack(b.inputs[In::W_X], gate_count)),
        W_h_(stack(b.inputs[In::W_H], gate_count)),
        bias_(stack(b.inputs[In::BIAS], gate_count)),
        h_(b.outputs[1]),
        product_(Panels::gates<S>(cell_.H, gate_count), W_x_.version, cell_.batch, b.at_once) {
    const bool backward = h_.gradient;
    cell_.gates = {Panels::gates<S>(cell_.H, gate_count), nullptr,
                   cell_.batch * (backward || product_.apart() ? b.frames : 1)};
    cell_.gates.data = b.scratch.take(cell_.gates.size());
    const Index all = cell_.H * cell_.batch * b.frames;
    if (backward) cell_.tanh_c = b.scratch.take(all);
    if constexpr (Form::projected) {
      cell_.m.value = b.scratch.take(all);
      cell_.m.gradient = backward ? b.scratch.take(all) : nullptr;
      W_rm_ = b.inputs[In::W_RM];
      project_ = Factor<S>(Panels::plain<S>(h_.shape.features), W_rm_.version);
      project_.add(W_rm_.values(0));
      b.scratch.take(project_);
      project_pieces_ = {{cell_.m.value, cell_.H, 1, cell_.m.outer}};
    }
    product_.input(W_x_, x_);
    const Packed<S> h_packed = product_.state(W_h_, h_past_);
    Packed<S> cif_packed, co_packed;
    if (cell_.peephole != Peephole::None) {
      cell_.W_cif = stack(b.inputs[In::W_CI], gate_count - 2);
      cell_.W_co = b.inputs[In::W_CO];
    }
    if (cell_.peephole == Peephole::Full) {
      cif_packed = product_.state(cell_.W_cif, cell_.c_past);
      peep_ = Factor<S>(Panels::gates<S>(cell_.H, 1), cell_.W_co.version);
      co_packed = {&peep_, peep_.add(cell_.W_co.values(0))};
      peep_pieces_ = {{cell_.c.value, cell_.H, 1, cell_.c.outer}};
      b.scratch.take(peep_);
    }
    product_.bias(bias_);
    product_.place(b.scratch);
    with_packet<S>(cell_.gates.panels.width(), [&]<class P>(P*) {
      with_size<P>(cell_.batch, cell_.H, [&]<Size size>() {
        forward_ = &Lstm::template forward<P, size>;
        backward_ = &Lstm::template backward<P, size>;
      });
      diagonals_ = &Lstm::template diagonals<P>;
    });
    if (!backward) return;
    if constexpr (Form::projected) {
      to_m_ = Factor<S>(Panels::plain<S>(cell_.H), W_rm_.version);
      to_m_.add_transposed(W_rm_.values(0));
      b.scratch.take(to_m_);
      to_m_pieces_ = {{h_.gradient, h_.shape.features, 1, h_.outer}};
    }
    to_x_ = Back<S>(W_x_, x_, cell_.gates, all_packets, b.scratch);
    to_h_past_ = Back<S>(W_h_, h_past_, cell_.gates, all_packets, b.scratch, h_packed);
    gradients_ = {cell_.gates, cell_.batch};
    gradients_.add(W_x_, x_);
    gradients_.add(W_h_, h_past_);
    gradients_.add(bias_);
    if (cell_.peephole != Peephole::Full) return;
    gradients_.add(cell_.W_cif, cell_.c_past, {I, G});
    gradients_.add(cell_.W_co, cell_.c, {O, O + 1});
    to_c_past_ = Back<S>(cell_.W_cif, cell_.c_past, cell_.gates, {I, G}, b.scratch, cif_packed);
    to_c_ = Back<S>(cell_.W_co, cell_.c, cell_.gates, {O, O + 1}, b.scratch, co_packed);
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

  void forward(const Range& r) override { forward_(*this, r); }
  void backward(const Range& r) override { backward_(*this, r); }

  /// By now the gates hold the gradients of the sums under their sigmoids and tanh.
  void accumulate(const Range& r, Part part) override {
    const Span mine = part.of(cell_.gates.panels);
    gradients_.accumulate(r, part);
    if constexpr (Form::projected)
      if (W_rm_.gradient) {
        const Outer<S> term[] = {{W_rm_.gradients(0), all_packets, cell_.m.values(r).data(), cell_.m.outer}};
        add_outer_products<S>(term, h_.gradients(r), project_.panels(), {0, h_.gradients(r).cols()}, part);
      }
    if (cell_.peephole == Peephole::Diagonal && cell_.W_cif.gradient)
      for (Index panel = mine.begin; panel < mine.end; ++panel)
        diagonals_(cell_, panel, r.begin * cell_.batch, r.size() * cell_.batch);
  }

  void read_gate(Index k, Index t, S* to) const override {
    copy_gate(cell_.gates, k, cell_.H, cell_.batch, t, to);
  }

 private:
  static constexpr bool coupled = Form::coupled;
  static constexpr Index gate_count = coupled ? 3 : 4;
  enum Gate : Index { I, F, G = gate_count - 2, O };  // the packets of a panel; F only if it is no 1 - i

  /// What the equations see of it. A copy that nobody else has stays in registers.
  struct Cell {
    Peephole peephole;
    Index H, batch;
    Tensor<S> c_past, c, m;  // m is h, or scratch if h is its projection
    Tensor<S> W_cif = {}, W_co = {};
    Panelled<S> gates = {};  // scratch: i f g o, then their gradients; of one frame where no more is needed
    S* tanh_c = nullptr;     // scratch, for the backward
  };

  template <class P, Size size>
  static void forward(const Lstm& self, const Range& r) {
    const Cell cell = self.cell_;
    const Index end = free_before(r, cell.batch);
    const auto state = [&](Index panel, Index column, Index count)
                           BPTT_INLINED { forward_cell<P>(cell, panel, column, count, end); };
    const auto output = [&](Index panel, Index column, Index count)
                            BPTT_INLINED { forward_output<P>(cell, panel, column, count, end); };
    self.product_.before(r, self.cell_.gates);
    each_frame<size>(r, cell.batch, [&](Index first, Index count) BPTT_INLINED {
      self.product_.template frame<P, gate_count, size>(first, count, cell.gates, r.rows(), state);
      if (cell.peephole == Peephole::Full) {
        r.meet();
        frame_product<P, 1, size, gate_count>(self.peep_, self.peep_pieces_, from_gate(cell.gates, O),
                                              Begin::Y, first, count, r.rows(), output);
      }
      if constexpr (Form::projected) {
        r.meet();
        self.project_.multiply(self.project_pieces_, self.h_.values(0), false, first, count,
                               size != Size::Lanes, r.rows().of(self.project_.panels()));
      }
    });
  }

  template <class P, Size size>
  static void backward(const Lstm& self, const Range& r) {
    const Cell cell = self.cell_;
    const Index end = free_before(r, cell.batch);
    const Span mine = r.rows().of(cell.gates.panels);
    const auto frame = [&](Index first, Index count) BPTT_INLINED {
      if constexpr (Form::projected) {
        self.to_m_.multiply(self.to_m_pieces_, cell.m.gradients(0), false, first, count, size != Size::Lanes,
                            r.rows().of(self.to_m_.panels()));
        r.meet();
      }
      each_panel<size>(mine,
                       [&](Index panel) BPTT_INLINED { backward_output<P>(cell, panel, first, count, end); });
      if (cell.peephole != Peephole::Full) return;
      r.meet();
      self.to_c_.template add<P, 1>(r, first, count);
      r.meet();
      each_panel<size>(mine,
                       [&](Index panel) BPTT_INLINED { backward_cell<P>(cell, panel, first, count, end); });
      r.meet();
      self.to_c_past_.template add<P, gate_count - 2>(r, first, count);
    };
    const auto tile = [&](Index plain, Index column, Index count) {
      each_gated(cell.gates, plain,
                 [&](Index panel) { backward_output<P>(cell, panel, column, count, end); });
    };
    const bool tilewise =
        !Form::projected && cell.peephole != Peephole::Full && self.to_h_past_.leads_to(self.h_);
    through_time<P, gate_count, size>(r, cell.batch, self.to_h_past_, tilewise, frame, tile);
    self.to_x_.add(r);
    r.meet();
  }

  /// A diagonal peephole's weights: of W_cif the k-th gate's, or of W_co.
  template <class P>
  static P diagonal(const Tensor<S>& w, Index gate, Index units, const Place<S>& place) {
    return load_first<P>(w.value + gate * units + place.unit, place.valid);
  }

  /// From the sums to the cell, and where no product with it is needed, on to the output.
  template <class P>
  BPTT_INLINED static void forward_cell(const Cell& cell, Index panel, Index column, Index count, Index end) {
    using namespace Eigen::internal;
    const auto unit = [&](const Place<S>& at) BPTT_INLINED {
      const P past = state<P>(cell.c_past.value, at);
      P i = gate<P>(at, I);
      if (cell.peephole == Peephole::Diagonal) i = pmadd(diagonal<P>(cell.W_cif, 0, cell.H, at), past, i);
      i = packet_sigmoid(i);
      const P g = packet_tanh(gate<P>(at, G));
      P c;
      if constexpr (coupled) {
        c = pmadd(i, psub(g, past), past);
      } else {
        P f = gate<P>(at, F);
        if (cell.peephole == Peephole::Diagonal) f = pmadd(diagonal<P>(cell.W_cif, 1, cell.H, at), past, f);
        f = packet_sigmoid(f);
        c = pmadd(f, past, pmul(i, g));
        set(at, F, f);
      }
      set(at, I, i);
      set(at, G, g);
      set_state(cell.c.value, at, c);
      if (cell.peephole != Peephole::Full) output(cell, at, c);
    };
    each_column<P, gate_count>(cell.gates, cell.H, panel, column, count, end, unit);
  }

  template <class P>
  BPTT_INLINED static void forward_output(const Cell& cell, Index panel, Index column, Index count,
                                          Index end) {
    const auto unit = [&](const Place<S>& at) BPTT_INLINED { output(cell, at, state<P>(cell.c.value, at)); };
    each_column<P, gate_count>(cell.gates, cell.H, panel, column, count, end, unit);
  }

  template <class P>
  BPTT_INLINED static void output(const Cell& cell, const Place<S>& at, const P& c) {
    using namespace Eigen::internal;
    P o = gate<P>(at, O);
    if (cell.peephole == Peephole::Diagonal) o = pmadd(diagonal<P>(cell.W_co, 0, cell.H, at), c, o);
    o = packet_sigmoid(o);
    const P tanh_c = packet_tanh(c);
    set(at, O, o);
    if (cell.tanh_c) set_state(cell.tanh_c, at, tanh_c);
    set_state(cell.m.value, at, pmul(o, tanh_c));
  }

  // The mirror, from below; each gate gives way to the gradient of its sum.

  template <class P>
  BPTT_INLINED static void backward_output(const Cell& cell, Index panel, Index column, Index count,
                                           Index end) {
    using namespace Eigen::internal;
    const P one = pset1<P>(S(1));
    const auto unit = [&](const Place<S>& at) BPTT_INLINED {
      const P dh = state<P>(cell.m.gradient, at);
      const P tanh_c = state<P>(cell.tanh_c, at);
      const P o = gate<P>(at, O), dh_o = pmul(dh, o);
      const P d_o = pmul(pmul(dh_o, tanh_c), psub(one, o));
      // To what follows, which somebody may still read, zeros.
      const auto add = [&](const P& dc) BPTT_INLINED {
        const P sum = pmadd(dh_o, psub(one, pmul(tanh_c, tanh_c)), dc);
        if (cell.peephole != Peephole::Diagonal) return sum;
        return pmadd(diagonal<P>(cell.W_co, 0, cell.H, at), d_o, sum);
      };
      const P dc = add(state<P>(cell.c.gradient, at));
      set(at, O, d_o);
      set_state(cell.c.gradient, at, add(whole_state<P>(cell.c.gradient, at)));
      if (cell.peephole != Peephole::Full) into_gates(cell, at, dc);
    };
    each_column<P, gate_count>(cell.gates, cell.H, panel, column, count, end, unit);
  }

  template <class P>
  BPTT_INLINED static void backward_cell(const Cell& cell, Index panel, Index column, Index count,
                                         Index end) {
    const auto unit = [&](const Place<S>& at)
                          BPTT_INLINED { into_gates(cell, at, state<P>(cell.c.gradient, at)); };
    each_column<P, gate_count>(cell.gates, cell.H, panel, column, count, end, unit);
  }

  template <class P>
  BPTT_INLINED static void into_gates(const Cell& cell, const Place<S>& at, const P& dc) {
    using namespace Eigen::internal;
    const P one = pset1<P>(S(1));
    const P past = state<P>(cell.c_past.value, at);
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
    if (!cell.c_past.gradient) return;
    P d_past = padd(whole_state<P>(cell.c_past.gradient, at), dc_f);
    if (cell.peephole == Peephole::Diagonal) {
      d_past = pmadd(diagonal<P>(cell.W_cif, 0, cell.H, at), d_i, d_past);
      if constexpr (!coupled) d_past = pmadd(diagonal<P>(cell.W_cif, 1, cell.H, at), d_f, d_past);
    }
    set_state(cell.c_past.gradient, at, d_past);
  }

  /// The gradients of diagonal peepholes.
  template <class P>
  static void diagonals(const Cell& cell, Index panel, Index column, Index count) {
    using namespace Eigen::internal;
    P i = pset1<P>(S(0)), f = i, o = i;
    const auto sum = [&](const Place<S>& at) BPTT_INLINED {
      const P past = state<P>(cell.c_past.value, at);
      i = pmadd(gate<P>(at, I), past, i);
      if constexpr (!coupled) f = pmadd(gate<P>(at, F), past, f);
      o = pmadd(gate<P>(at, O), state<P>(cell.c.value, at), o);
    };
    each_column<P, gate_count>(cell.gates, cell.H, panel, column, count, 0, sum);
    const Index unit = cell.gates.panels.row(panel), valid = cell.gates.panels.valid(panel, 0);
    const auto add = [&](S* to, const P& sum) {
      store_first(to + unit, padd(load_first<P>(to + unit, valid), sum), valid);
    };
    add(cell.W_cif.gradient, i);
    if constexpr (!coupled) add(cell.W_cif.gradient + cell.H, f);
    add(cell.W_co.gradient, o);
  }

  Cell cell_;
  Tensor<S> x_, h_past_, W_x_, W_h_, bias_, W_rm_, h_;
  RecurrentProduct<S> product_;
  Factor<S> peep_;            // W_co, if it is a matrix
  Factor<S> project_, to_m_;  // W_rm and its transpose
  std::vector<Right<S>> peep_pieces_, project_pieces_, to_m_pieces_;
  Back<S> to_x_, to_h_past_, to_c_past_, to_c_;
  WeightGradients<S> gradients_;
  void (*forward_)(const Lstm&, const Range&);
  void (*backward_)(const Lstm&, const Range&);
  void (*diagonals_)(const Cell&, Index panel, Index column, Index count);
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
