// The plain recurrent layer (Elman 1990), fused:
//
//   h_t = tanh(W_aa h_{t-1} + W_ax x_t + b_a)
//
// or with relu(v) = max(v, 0) in place of tanh (Le, Jaitly & Hinton, "A simple way to initialize recurrent networks of
// rectified linear units", 2015, arXiv:1504.00941).
//
// One product for each frame, over input, state and bias together. With few lanes the input's and the bias's part is
// one product over the whole range before. On the way back the product that gives the gradient of h_{t-1} goes on, tile
// by tile, to the gradient under the activation of frame t-1.
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
    product_.input(b_a_);
    const Packed<S> state = product_.state(W_aa_, past_);
    product_.place(b.scratch);
    with_packet<S>(panels_.width(), [&]<class P>(P*) {
      const bool relu = rectified(b.attributes);
      activate_ = relu ? &Rnn::template activate<P, Relu> : &Rnn::template activate<P, Tanh>;
      backward_ = relu ? &Rnn::template backward<P, Relu> : &Rnn::template backward<P, Tanh>;
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

  void forward(const Range& r) override {
    const Index end = free_before(r, x_.shape.batch);
    const auto activate = [&](Index panel, Index column, Index count) {
      activate_(*this, panel, column, count, end);
    };
    product_.before(r, sums_);
    each_frame(r, x_.shape.batch,
               [&](Index first, Index count) { product_.frame(first, count, sums_, r.rows(), activate); });
  }

  void backward(const Range& r) override {
    const auto tile = [&](Index panel, Index column, Index count) {
      backward_(*this, panel, column, count, 0);
    };
    const Span mine = r.rows().of(panels_);
    const auto frame = [&](Index first, Index count) {
      for (Index panel = mine.begin; panel < mine.end; ++panel) tile(panel, first, count);
    };
    through_time(r, x_.shape.batch, to_past_, to_past_.leads_to(h_), frame, tile);
    to_x_.add(r);
    r.meet();
  }

  void accumulate(const Range& r, Part part) override { gradients_.accumulate(r, part); }

 private:
  template <class P, class Activation>
  static void activate(const Rnn& self, Index panel, Index column, Index count, Index end) {
    using namespace Eigen::internal;
    self.template each_packet<P>(self.sums_, panel, column, count, [&](Index place, Index valid, S* z) {
      const Index room = std::max(valid, end * self.h_.outer - place);
      store_first(self.h_.value + place, Activation::value(ploadu<P>(z)), room);
    });
  }

  /// From the gradient of h to that under the activation.
  template <class P, class Activation>
  static void backward(const Rnn& self, Index panel, Index column, Index count, Index) {
    using namespace Eigen::internal;
    self.template each_packet<P>(self.dz_, panel, column, count, [&](Index place, Index valid, S* dz) {
      const P h = load_first<P>(self.h_.value + place, valid);
      const P dh = load_first<P>(self.h_.gradient + place, valid);
      pstoreu(dz, Activation::back(h, dh));
    });
  }

  /// Calls f(place, valid, numbers): where the packet's rows lie in h, how many there are from there on, and where they lie
  /// in panels.
  template <class P, class F>
  void each_packet(const Panelled<S>& all, Index panel, Index column, Index count, F&& f) const {
    const Index row = panels_.row(panel), height = panels_.height(panel), valid = panels_.valid(panel);
    for (Index c = column; c < column + count; ++c) {
      S* const numbers = all.at(panel, c);
      for (Index i = 0; i < height; i += width_of<P>) f(c * h_.outer + row + i, valid - i, numbers + i);
    }
  }

  using Pass = void (*)(const Rnn&, Index panel, Index column, Index count, Index end);

  Tensor<S> x_, past_, W_ax_, W_aa_, b_a_, h_;
  Panels panels_;
  RecurrentProduct<S> product_;
  Panelled<S> sums_;  // scratch: under the activation; of one frame where no more is needed
  Panelled<S> dz_;    // scratch: the gradient of the sum under the activation
  Back<S> to_x_, to_past_;
  WeightGradients<S> gradients_;
  Pass activate_ = nullptr, backward_ = nullptr;
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
