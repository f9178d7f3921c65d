// The plain recurrent layer (Elman 1990), fused:
//
//   h_t = tanh(W_aa h_{t-1} + W_ax x_t + b_a)
//
// or with relu(v) = max(v, 0) in place of tanh (Le, Jaitly & Hinton, "A simple way to initialize recurrent networks of
// rectified linear units", 2015, arXiv:1504.00941).
//
// One product for each frame, over input, state and bias together. With few lanes and more than a panel of units, the
// input's and the bias's part is one product over the whole range before. On the way back the product that gives the
// gradient of h_{t-1} goes on, tile by tile, to the gradient under the activation of frame t-1.
#include "kernel/activate.h"
#include "ops/recurrent.h"

namespace bptt {
namespace {

// h = f(z), and from h and dh what comes to z.

struct Tanh {
  template <class P>
  static P value(const P& z) {
    return packet_tanh(z);
  }
  template <class P>
  static P back(const P& h, const P& dh) {
    using namespace Eigen::internal;
    return pmul(dh, psub(pset1<P>(ScalarOf<P>(1)), pmul(h, h)));
  }
};

struct Relu {
  template <class P>
  static P value(const P& z) {
    using namespace Eigen::internal;
    return pmax<Eigen::PropagateNaN>(z, pset1<P>(ScalarOf<P>(0)));
  }
  template <class P>
  static P back(const P& h, const P& dh) {
    using namespace Eigen::internal;
    return pand(pcmp_lt(pset1<P>(ScalarOf<P>(0)), h), dh);
  }
};

bool rectified(const Attributes& attributes) {
  const std::string& name = std::get<std::string>(attributes.at("activation"));
  if (name != "tanh" && name != "relu")
    throw UsageError("rnn: activation is \"tanh\" or \"relu\", got \"" + name + "\"");
  return name == "relu";
}

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
        panels_(Panels::plain<S>(h_.shape.features)),
        product_(panels_, W_ax_.version, x_.shape.batch, b.at_once) {
    sums_ = {panels_, nullptr, x_.shape.batch * (product_.apart() ? b.frames : 1)};
    sums_.data = b.scratch.take(sums_.size());
    product_.input(W_ax_, x_);
    const Packed<S> state = product_.state(W_aa_, past_);
    product_.bias(b_a_);
    product_.place(b.scratch);
    const bool relu = rectified(b.attributes);
    with_packet<S>(panels_.width(), [&]<class P>(P*) {
      with_size<P>(h_.shape.batch, h_.shape.features, [&]<Size size>() {
        forward_ = relu ? &Rnn::template forward<P, Relu, size> : &Rnn::template forward<P, Tanh, size>;
        backward_ = relu ? &Rnn::template backward<P, Relu, size> : &Rnn::template backward<P, Tanh, size>;
      });
    });
    if (!h_.gradient) return;
    dz_ = {panels_, nullptr, x_.shape.batch * b.frames};
    dz_.data = b.scratch.take(dz_.size());
    to_x_ = Back<S>(W_ax_, x_, dz_, all_packets, b.scratch);
    to_past_ = Back<S>(W_aa_, past_, dz_, all_packets, b.scratch, state);
    gradients_ = {dz_, x_.shape.batch};
    gradients_.add(W_ax_, x_);
    gradients_.add(W_aa_, past_);
    gradients_.add(b_a_);
  }

  void prepare() override {
    product_.pack();
    to_x_.pack();
    to_past_.pack();
  }

  void forward(const Range& r) override { forward_(*this, r); }
  void backward(const Range& r) override { backward_(*this, r); }
  void accumulate(const Range& r, Part part) override { gradients_.accumulate(r, part); }

 private:
  template <class P, class Activation, Size size>
  static void forward(const Rnn& self, const Range& r) {
    using namespace Eigen::internal;
    constexpr int V = plain_packets<size>;
    const Panelled<S> sums = self.sums_;
    const Tensor<S> h = self.h_;
    const Index end = free_before(r, h.shape.batch);
    const auto activate = [&](Index panel, Index column, Index count) BPTT_INLINED {
      each_packet<P, V>(sums, h.outer, panel, column, count,
                        [&](Index place, Index valid, S* z) BPTT_INLINED {
                          const Index room = std::max(valid, end * h.outer - place);
                          store_most(h.value + place, Activation::value(ploadu<P>(z)), room);
                        });
    };
    self.product_.before(r, self.sums_);
    each_frame<size>(r, h.shape.batch, [&](Index first, Index count) BPTT_INLINED {
      self.product_.template frame<P, V, size>(first, count, sums, r.rows(), activate);
    });
  }

  /// From the gradient of h to that under the activation.
  template <class P, class Activation, Size size>
  static void backward(const Rnn& self, const Range& r) {
    using namespace Eigen::internal;
    constexpr int V = plain_packets<size>;
    const Panelled<S> all = self.dz_;
    const Tensor<S> h = self.h_;
    const auto tile = [&](Index panel, Index column, Index count) BPTT_INLINED {
      each_packet<P, V>(
          all, h.outer, panel, column, count, [&](Index place, Index valid, S* dz) BPTT_INLINED {
            const First<P> real(valid);
            pstoreu(dz, Activation::back(real.load(h.value + place), real.load(h.gradient + place)));
          });
    };
    const Span mine = r.rows().of(self.panels_);
    const auto frame = [&](Index first, Index count) BPTT_INLINED {
      each_panel<size>(mine, [&](Index panel) BPTT_INLINED { tile(panel, first, count); });
    };
    through_time<P, V, size>(r, h.shape.batch, self.to_past_, self.to_past_.leads_to(h), frame, tile);
    self.to_x_.add(r);
    r.meet();
  }

  /// Calls f(place, valid, numbers): where the packet's rows lie in h, how many there are from there on, and where they lie
  /// in panels, each of V packets, or, if V is 0, of any number.
  template <class P, int V, class F>
  BPTT_INLINED static void each_packet(const Panelled<S>& all, Index rows, Index panel, Index column,
                                       Index count, F&& f) {
    const Index row = panel * Tiles<S>::packets * width_of<P>;
    const Index height = V > 0 ? V * width_of<P> : all.panels.height(panel);
    for (Index c = column; c < column + count; ++c) {
      S* const numbers = V > 0 ? all.template at<V * width_of<P>>(panel, c) : all.at(panel, c);
      for (Index i = 0; i < height; i += width_of<P>) f(c * rows + row + i, rows - row - i, numbers + i);
    }
  }

  using Pass = void (*)(const Rnn&, const Range&);

  Tensor<S> x_, past_, W_ax_, W_aa_, b_a_, h_;
  Panels panels_;
  RecurrentProduct<S> product_;
  Panelled<S> sums_;  // scratch: under the activation; of one frame where no more is needed
  Panelled<S> dz_;    // scratch: the gradient of the sum under the activation
  Back<S> to_x_, to_past_;
  WeightGradients<S> gradients_;
  Pass forward_, backward_;
};

const Register<Rnn> rnn{{
    .name = "rnn",
    .infer = [](const Call& call) -> std::vector<Signature> {
      require_inputs(call, "rnn", 5);
      rectified(call.attributes);
      const Shape x = call.inputs[0].shape, past = call.inputs[1].shape;
      const Index H = past.features;
      require_shape(call, 1, {H, x.batch}, "rnn: h at t-1");
      require_shape(call, 2, {H, x.features}, "rnn: W_ax");
      require_shape(call, 3, {H, H}, "rnn: W_aa");
      require_shape(call, 4, {H, 1}, "rnn: b_a");
      return {call.inputs[1]};
    },
    .examples = {{{{1, 1}, {3, 1}, {3, 1}, {3, 3}, {3, 1}}, {{"activation", std::string("tanh")}}},
                 {{{4, 2}, {2, 2}, {2, 4}, {2, 2}, {2, 1}}, {{"activation", std::string("tanh")}}},
                 {{{2, 3}, {5, 3}, {5, 2}, {5, 5}, {5, 1}}, {{"activation", std::string("relu")}}}},
    .first_weight = 2,
    .loops = {{1, 0}},
    .split = by_lanes,
    .divides = true,
    .rereads = [](const Attributes&) { return false; },
    .begins = begins_first,
}};

}  // namespace
}  // namespace bptt
