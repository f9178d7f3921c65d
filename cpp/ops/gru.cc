// The gated recurrent unit, fused, in both of the forms that are in use. With r the reset gate, z the update gate, n the
// candidate, h' = h_{t-1}, and s what the weights see of it, which is h' itself unless something stands between the two:
//
//   r_t = sigmoid(W_xr x_t + W_hr s + b_r)
//   z_t = sigmoid(W_xz x_t + W_hz s + b_z)
//   n_t = tanh(W_xn x_t + b_n + r_t (W_hn s + b_hn))     reset after the product
//   n_t = tanh(W_xn x_t + b_n + W_hn (r_t s))            reset before it
//   h_t = (1 - z_t) n_t + z_t h'
//
// Before: Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation", 2014
// (arXiv:1406.1078), equations 5-8. After: what cuDNN made common, since it needs one product a frame instead of two that
// wait for each other.
#include "kernel/activate.h"
#include "ops/gates.h"
#include "ops/recurrent.h"

namespace bptt {
namespace {

enum Input : std::size_t {
  X = 0,
  PAST = 1,
  SEEN = 2,
  W_XR = 3,
  W_XZ = 4,
  W_XN = 5,
  W_HR = 6,
  W_HZ = 7,
  W_HN = 8,
  B_R = 9,
  B_Z = 10,
  B_N = 11,
  B_HN = 12
};

/// h = (1 - z) n + z h', and back: what is left for n and z to multiply with their own slopes, and h''s part.
template <class P>
P mix(const P& z, const P& n, const P& past) {
  using namespace Eigen::internal;
  return pmadd(z, psub(past, n), n);
}
template <class P>
P slope_of_sigmoid(const P& s) {
  using namespace Eigen::internal;
  return pmul(s, psub(pset1<P>(ScalarOf<P>(1)), s));
}
/// The gradients of the sums under n and under z.
template <class P>
std::pair<P, P> unmix(const P& dh, const P& z, const P& n, const P& past) {
  using namespace Eigen::internal;
  const P one = pset1<P>(ScalarOf<P>(1));
  return {pmul(pmul(dh, psub(one, z)), psub(one, pmul(n, n))),
          pmul(pmul(dh, psub(past, n)), slope_of_sigmoid(z))};
}

/// The candidate's two halves stand in gates of their own, n and hn, at the two ends: the input's product meets the first
/// three gates, the state's the last three.
template <class S>
class ResetAfter final : public Operation<S> {
 public:
  explicit ResetAfter(const Binding<S>& b)
      : H_(b.outputs[0].shape.features),
        batch_(b.outputs[0].shape.batch),
        apart_(inputs_before(Panels::gates<S>(H_, 3), batch_, b.at_once)),
        x_(b.inputs[X]),
        past_(b.inputs[PAST]),
        seen_(b.inputs[SEEN]),
        W_x_(stack(b.inputs[W_XN], 3)),
        W_h_(stack(b.inputs[W_HR], 3)),
        bias_(stack(b.inputs[B_N], 3)),
        b_hn_(b.inputs[B_HN]),
        h_(b.outputs[0]),
        input_(Panels::gates<S>(H_, 3), W_x_.version),
        state_(Panels::gates<S>(H_, 3), W_h_.version) {
    static constexpr S one = 1;
    const bool backward = h_.gradient;
    gates_ = {Panels::gates<S>(H_, 4), nullptr, batch_ * (backward || apart_ ? b.frames : 1)};
    gates_.data = b.scratch.take(gates_.size());
    input_.add(W_x_.values(0));
    input_.add(bias_.values(0));
    input_pieces_ = {{x_.value, x_.shape.features, 1, x_.outer}, {&one, 1, 0, 0}};
    const Packed<S> packed{&state_, state_.add(W_h_.values(0))};
    state_pieces_ = {{seen_.value, H_, 1, seen_.outer}};
    b.scratch.take(input_);
    b.scratch.take(state_);
    with_packet<S>(gates_.panels.width(), [&]<class P>(P*) {
      with_size<P>(batch_, H_, [&]<Size size>() {
        forward_ = &ResetAfter::template forward<P, size>;
        backward_ = &ResetAfter::template backward<P, size>;
      });
    });
    if (!backward) return;
    to_x_ = Back<S>(W_x_, x_, gates_, {N, HN}, b.scratch);
    to_seen_ = Back<S>(W_h_, seen_, gates_, {R, HN + 1}, b.scratch, packed);
    gradients_ = {gates_, batch_};
    gradients_.add(W_x_, x_, {N, HN});
    gradients_.add(W_h_, seen_, {R, HN + 1});
    gradients_.add(bias_, {N, HN});
    gradients_.add(b_hn_, {HN, HN + 1});
  }

  void prepare() override {
    input_.pack();
    state_.pack();
    to_x_.pack();
    to_seen_.pack();
  }

  void forward(const Range& r) override { forward_(*this, r); }
  void backward(const Range& r) override { backward_(*this, r); }

  /// By now the gates hold the gradients of their sums.
  void accumulate(const Range& r, Part part) override { gradients_.accumulate(r, part); }

  void read_gate(Index k, Index t, S* to) const override {
    static constexpr Gate order[] = {R, Z, N};
    copy_gate(gates_, order[k], H_, batch_, t, to);
  }

 private:
  enum Gate : Index { N, R, Z, HN };  // the packets of a panel
  using Pass = void (*)(const ResetAfter&, const Range&);

  template <class P, Size size>
  static void forward(const ResetAfter& self, const Range& r) {
    const Index end = free_before(r, self.batch_);
    const auto begin = [&](Index panel, Index column, Index count)
                           BPTT_INLINED { begin_cell<P>(self, panel, column, count, end); };
    const auto cell = [&](Index panel, Index column, Index count)
                          BPTT_INLINED { forward_cell<P>(self, panel, column, count, end); };
    if (self.apart_)
      columns(r, self.batch_, [&](Index first, Index count) {
        self.input_.multiply(self.input_pieces_, self.gates_, false, first, count,
                             r.rows().of(self.gates_.panels), begin);
      });
    each_frame<size>(r, self.batch_, [&](Index first, Index count) BPTT_INLINED {
      if (!self.apart_)
        frame_product<P, 3, size, 4>(self.input_, self.input_pieces_, self.gates_, Begin::Last, first, count,
                                     r.rows(), begin);
      frame_product<P, 3, size, 4>(self.state_, self.state_pieces_, from_gate(self.gates_, R), Begin::Y,
                                   first, count, r.rows(), cell);
    });
  }

  template <class P, Size size>
  static void backward(const ResetAfter& self, const Range& r) {
    const Index end = free_before(r, self.batch_);
    const Span mine = r.rows().of(self.gates_.panels);
    const auto frame = [&](Index first, Index count) BPTT_INLINED {
      each_panel<size>(mine,
                       [&](Index panel) BPTT_INLINED { backward_cell<P>(self, panel, first, count, end); });
    };
    const auto tile = [&](Index plain, Index column, Index count) {
      each_gated(self.gates_, plain, [&](Index panel) { backward_cell<P>(self, panel, column, count, end); });
    };
    through_time<P, 3, size>(r, self.batch_, self.to_seen_, self.to_seen_.leads_to(self.h_), frame, tile);
    self.to_x_.add(r);
    r.meet();
  }

  /// The sum under hn begins with its bias.
  template <class P>
  BPTT_INLINED static void begin_cell(const ResetAfter& self, Index panel, Index column, Index count,
                                      Index end) {
    const auto unit = [&](const Place<S>& at)
                          BPTT_INLINED { set(at, HN, load_first<P>(self.b_hn_.value + at.unit, at.valid)); };
    each_column<P, 4>(self.gates_, self.H_, panel, column, count, end, unit);
  }

  template <class P>
  BPTT_INLINED static void forward_cell(const ResetAfter& self, Index panel, Index column, Index count,
                                        Index end) {
    using namespace Eigen::internal;
    const auto unit = [&](const Place<S>& at) BPTT_INLINED {
      const P past = state<P>(self.past_.value, at);
      const P r = packet_sigmoid(gate<P>(at, R)), z = packet_sigmoid(gate<P>(at, Z));
      const P n = packet_tanh(pmadd(r, gate<P>(at, HN), gate<P>(at, N)));
      set(at, N, n);
      set(at, R, r);
      set(at, Z, z);
      set_state(self.h_.value, at, mix(z, n, past));
    };
    each_column<P, 4>(self.gates_, self.H_, panel, column, count, end, unit);
  }

  /// Each gate gives way to the gradient of its sum.
  template <class P>
  BPTT_INLINED static void backward_cell(const ResetAfter& self, Index panel, Index column, Index count,
                                         Index end) {
    using namespace Eigen::internal;
    const auto unit = [&](const Place<S>& at) BPTT_INLINED {
      const P dh = state<P>(self.h_.gradient, at), past = state<P>(self.past_.value, at);
      const P r = gate<P>(at, R), z = gate<P>(at, Z);
      const auto [dn, dz] = unmix(dh, z, gate<P>(at, N), past);
      set(at, R, pmul(pmul(dn, gate<P>(at, HN)), slope_of_sigmoid(r)));
      set(at, N, dn);
      set(at, Z, dz);
      set(at, HN, pmul(dn, r));
      if (S* const to = self.past_.gradient) set_state(to, at, pmadd(dh, z, whole_state<P>(to, at)));
    };
    each_column<P, 4>(self.gates_, self.H_, panel, column, count, end, unit);
  }

  Index H_, batch_;
  bool apart_;  // the input's part is one product over all frames
  Tensor<S> x_, past_, seen_, W_x_, W_h_, bias_, b_hn_, h_;
  Factor<S> input_, state_;
  std::vector<Right<S>> input_pieces_, state_pieces_;
  Panelled<S> gates_;  // scratch: n r z hn, then their gradients; of one frame where no more is needed
  Back<S> to_x_, to_seen_;
  WeightGradients<S> gradients_;
  Pass forward_, backward_;
};

/// Two products wait for each other: the gates' and, with what the reset gate leaves of the state, the candidate's.
template <class S>
class ResetBefore final : public Operation<S> {
 public:
  explicit ResetBefore(const Binding<S>& b)
      : H_(b.outputs[0].shape.features),
        batch_(b.outputs[0].shape.batch),
        x_(b.inputs[X]),
        past_(b.inputs[PAST]),
        seen_(b.inputs[SEEN]),
        W_x_(stack(b.inputs[W_XR], 2)),
        W_h_(stack(b.inputs[W_HR], 2)),
        bias_(stack(b.inputs[B_R], 2)),
        W_xn_(b.inputs[W_XN]),
        W_hn_(b.inputs[W_HN]),
        b_n_(b.inputs[B_N]),
        h_(b.outputs[0]),
        kept_(seen_),
        gates_product_(Panels::gates<S>(H_, 2), W_x_.version, batch_, b.at_once),
        candidate_product_(Panels::plain<S>(H_), W_xn_.version, batch_, b.at_once) {
    const Index all = batch_ * b.frames;
    const bool backward = h_.gradient;
    gates_ = {Panels::gates<S>(H_, 2), nullptr, backward || gates_product_.apart() ? all : batch_};
    gates_.data = b.scratch.take(gates_.size());
    candidate_ = {Panels::plain<S>(H_), nullptr, backward || candidate_product_.apart() ? all : batch_};
    candidate_.data = b.scratch.take(candidate_.size());
    kept_.value = b.scratch.take(H_ * all);
    kept_.gradient = backward ? b.scratch.take(H_ * all) : nullptr;
    kept_.outer = H_;
    gates_product_.input(W_x_, x_);
    const Packed<S> gates_packed = gates_product_.state(W_h_, seen_);
    gates_product_.bias(bias_);
    gates_product_.place(b.scratch);
    candidate_product_.input(W_xn_, x_);
    const Packed<S> candidate_packed = candidate_product_.state(W_hn_, kept_);
    candidate_product_.bias(b_n_);
    candidate_product_.place(b.scratch);
    with_packet<S>(gates_.panels.width(), [&]<class P>(P*) {
      with_size<P>(batch_, H_, [&]<Size size>() {
        forward_ = &ResetBefore::template forward<P, size>;
        backward_ = &ResetBefore::template backward<P, size>;
      });
    });
    if (!backward) return;
    gates_to_x_ = Back<S>(W_x_, x_, gates_, all_packets, b.scratch);
    Tensor<S> begun = x_;  // by what came through the gates
    begun.fresh = false;
    candidate_to_x_ = Back<S>(W_xn_, begun, candidate_, all_packets, b.scratch);
    to_seen_ = Back<S>(W_h_, seen_, gates_, all_packets, b.scratch, gates_packed);
    to_kept_ = Back<S>(W_hn_, kept_, candidate_, all_packets, b.scratch, candidate_packed, true);
    gates_gradients_ = {gates_, batch_};
    gates_gradients_.add(W_x_, x_);
    gates_gradients_.add(W_h_, seen_);
    gates_gradients_.add(bias_);
    candidate_gradients_ = {candidate_, batch_};
    candidate_gradients_.add(W_xn_, x_);
    candidate_gradients_.add(W_hn_, kept_);
    candidate_gradients_.add(b_n_);
  }

  void prepare() override {
    gates_product_.pack();
    candidate_product_.pack();
    for (Back<S>* back : {&gates_to_x_, &candidate_to_x_, &to_seen_, &to_kept_}) back->pack();
  }

  void forward(const Range& r) override { forward_(*this, r); }
  void backward(const Range& r) override { backward_(*this, r); }

  void accumulate(const Range& r, Part part) override {
    gates_gradients_.accumulate(r, part);
    candidate_gradients_.accumulate(r, part);
  }

  void read_gate(Index k, Index t, S* to) const override {
    if (k == 2) return copy_rows(candidate_, 0, H_, t * batch_, batch_, to);
    copy_gate(gates_, k, H_, batch_, t, to);
  }

 private:
  enum Gate : Index { R, Z };
  using Pass = void (*)(const ResetBefore&, const Range&);

  template <class P, Size size>
  static void forward(const ResetBefore& self, const Range& r) {
    const Index end = free_before(r, self.batch_);
    const auto gates = [&](Index panel, Index column, Index count)
                           BPTT_INLINED { forward_gates<P>(self, panel, column, count, end); };
    const auto candidate = [&](Index plain, Index column, Index count) BPTT_INLINED {
      each_gated(self.gates_, plain,
                 [&](Index panel) BPTT_INLINED { forward_candidate<P>(self, panel, column, count, end); });
    };
    self.gates_product_.before(r, self.gates_);
    self.candidate_product_.before(r, self.candidate_);
    each_frame<size>(r, self.batch_, [&](Index first, Index count) BPTT_INLINED {
      self.gates_product_.template frame<P, 2, size>(first, count, self.gates_, r.rows(), gates);
      r.meet();
      self.candidate_product_.template frame<P, plain_packets<size>, size>(first, count, self.candidate_,
                                                                           r.rows(), candidate);
    });
  }

  template <class P, Size size>
  static void backward(const ResetBefore& self, const Range& r) {
    const Index end = free_before(r, self.batch_);
    const Span mine = r.rows().of(self.gates_.panels);
    const auto gates = [&](Index plain, Index column, Index count) BPTT_INLINED {
      each_gated(self.gates_, plain,
                 [&](Index panel) BPTT_INLINED { backward_gates<P>(self, panel, column, count, end); });
    };
    const auto frame = [&](Index first, Index count) BPTT_INLINED {
      each_panel<size>(
          mine, [&](Index panel) BPTT_INLINED { backward_candidate<P>(self, panel, first, count, end); });
      r.meet();
      if constexpr (size == Size::Lanes) {
        self.to_kept_.add_tiles(r, first, count, gates);
      } else {
        self.to_kept_.template add<P, plain_packets<size>>(r, first, count);
        r.meet();
        each_panel<size>(
            mine, [&](Index panel) BPTT_INLINED { backward_gates<P>(self, panel, first, count, end); });
      }
    };
    through_time<P, 2, size>(r, self.batch_, self.to_seen_, false, frame, nothing);
    self.gates_to_x_.add(r);
    self.candidate_to_x_.add(r);
    r.meet();
  }

  template <class P>
  BPTT_INLINED static void forward_gates(const ResetBefore& self, Index panel, Index column, Index count,
                                         Index end) {
    using namespace Eigen::internal;
    const auto unit = [&](const Place<S>& at) BPTT_INLINED {
      const P r = packet_sigmoid(gate<P>(at, R));
      set(at, R, r);
      set(at, Z, packet_sigmoid(gate<P>(at, Z)));
      set_state(self.kept_.value, at, pmul(r, state<P>(self.seen_.value, at)));
    };
    each_column<P, 2>(self.gates_, self.H_, panel, column, count, end, unit);
  }

  template <class P>
  BPTT_INLINED static void forward_candidate(const ResetBefore& self, Index panel, Index column, Index count,
                                             Index end) {
    self.template each_candidate<P>(
        panel, column, count, end, [&](const Place<S>& at, S* candidate) BPTT_INLINED {
          const P n = packet_tanh(Eigen::internal::ploadu<P>(candidate));
          Eigen::internal::pstoreu(candidate, n);
          set_state(self.h_.value, at, mix(gate<P>(at, Z), n, state<P>(self.past_.value, at)));
        });
  }

  /// From the gradient of h to those of the sums under n and z; then, once that of what was kept is there, to that under r.
  template <class P>
  BPTT_INLINED static void backward_candidate(const ResetBefore& self, Index panel, Index column, Index count,
                                              Index end) {
    using namespace Eigen::internal;
    self.template each_candidate<P>(
        panel, column, count, end, [&](const Place<S>& at, S* candidate) BPTT_INLINED {
          const P dh = state<P>(self.h_.gradient, at), past = state<P>(self.past_.value, at);
          const P z = gate<P>(at, Z);
          const auto [dn, dz] = unmix(dh, z, ploadu<P>(candidate), past);
          pstoreu(candidate, dn);
          set(at, Z, dz);
          set_state(self.kept_.gradient, at, pset1<P>(S(0)));
          if (S* const to = self.past_.gradient) set_state(to, at, pmadd(dh, z, whole_state<P>(to, at)));
        });
  }

  template <class P>
  BPTT_INLINED static void backward_gates(const ResetBefore& self, Index panel, Index column, Index count,
                                          Index end) {
    using namespace Eigen::internal;
    const auto unit = [&](const Place<S>& at) BPTT_INLINED {
      const P d_kept = state<P>(self.kept_.gradient, at), r = gate<P>(at, R);
      set(at, R, pmul(pmul(d_kept, state<P>(self.seen_.value, at)), slope_of_sigmoid(r)));
      if (S* const to = self.seen_.gradient) set_state(to, at, pmadd(d_kept, r, whole_state<P>(to, at)));
    };
    each_column<P, 2>(self.gates_, self.H_, panel, column, count, end, unit);
  }

  /// Calls f(place, candidate) for the columns of one panel of gates.
  template <class P, class F>
  BPTT_INLINED void each_candidate(Index panel, Index column, Index count, Index end, F&& f) const {
    const Index plain = panel / Tiles<S>::packets, packet = panel % Tiles<S>::packets;
    Index c = column;
    each_column<P, 2>(gates_, H_, panel, column, count, end, [&](const Place<S>& at) BPTT_INLINED {
      f(at, candidate_.at(plain, c++) + packet * width_of<P>);
    });
  }

  Index H_, batch_;
  Tensor<S> x_, past_, seen_, W_x_, W_h_, bias_, W_xn_, W_hn_, b_n_, h_;
  Tensor<S> kept_;  // scratch: r s, and its gradient
  RecurrentProduct<S> gates_product_, candidate_product_;
  Panelled<S> gates_, candidate_;  // scratch: r z, and n; then the gradients of their sums
  Back<S> gates_to_x_, candidate_to_x_, to_seen_, to_kept_;
  WeightGradients<S> gates_gradients_, candidate_gradients_;
  Pass forward_, backward_;
};

bool resets_after(const Attributes& attributes) {
  const std::string& name = std::get<std::string>(attributes.at("reset"));
  if (name != "after" && name != "before")
    throw UsageError("gru: reset is \"after\" or \"before\", got \"" + name + "\"");
  return name == "after";
}

template <class S>
struct Gru {
  static std::unique_ptr<Operation<S>> make(const Binding<S>& b) {
    if (resets_after(b.attributes)) return std::make_unique<ResetAfter<S>>(b);
    return std::make_unique<ResetBefore<S>>(b);
  }
};

std::vector<Signature> infer(const Call& call) {
  const bool after = resets_after(call.attributes);
  require_inputs(call, "gru", after ? 13 : 12);
  const Shape x = call.inputs[X].shape;
  const Index H = call.inputs[PAST].shape.features;
  require_shape(call, PAST, {H, x.batch}, "gru: h at t-1");
  require_shape(call, SEEN, {H, x.batch}, "gru: what is seen of h at t-1");
  const char* const gates[] = {"r", "z", "n"};
  for (std::size_t k = 0; k < 3; ++k) {
    require_shape(call, W_XR + k, {H, x.features}, std::string("gru: W_x") + gates[k]);
    require_shape(call, W_HR + k, {H, H}, std::string("gru: W_h") + gates[k]);
    require_shape(call, B_R + k, {H, 1}, std::string("gru: b_") + gates[k]);
  }
  if (after) require_shape(call, B_HN, {H, 1}, "gru: b_hn");
  return {call.inputs[PAST]};
}

Example example(Index I, Index H, Index B, const std::string& reset) {
  std::vector<Shape> all = {{I, B}, {H, B}, {H, B}};
  all.insert(all.end(), 3, {H, I});
  all.insert(all.end(), 3, {H, H});
  all.insert(all.end(), reset == "after" ? 4 : 3, {H, 1});
  return {all, {{"reset", reset}}};
}

const Register<Gru> gru{{
    .name = "gru",
    .infer = infer,
    .examples = {example(1, 3, 1, "after"), example(4, 2, 3, "after"), example(1, 3, 1, "before"),
                 example(4, 2, 3, "before")},
    .first_weight = W_XR,
    .loops = {{PAST, 0}, {SEEN, 0}},
    .stacks = {{W_XN, W_XR, W_XZ}, {W_HR, W_HZ, W_HN}, {B_N, B_R, B_Z}},
    .split = by_lanes,
    .divides = true,
    .rereads = [](const Attributes&) { return false; },
    .begins = begins_first,
    .gates = {"r", "z", "n"},
}};

}  // namespace
}  // namespace bptt
