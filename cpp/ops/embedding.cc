// Embedding look-up: for each symbol k its column of a table, y = W[:, k]. As the product of W with a one-hot vector, but
// only the column that is read is touched, forward and backward.
#include "ops/symbols.h"

namespace bptt {
namespace {

template <class S>
class Embedding final : public Operation<S> {
 public:
  explicit Embedding(const Binding<S>& b) : symbols_(b.inputs[0]), table_(b.inputs[1]), y_(b.outputs[0]) {}

  void forward(const Range& r) override {
    each_frame_of(y_, r, [&](Index t, Index lane, Index end) {
      const auto table = table_.values(t);
      auto y = y_.values(t);
      for (; lane < end; ++lane) y.col(lane) = table.col(symbol(t, lane));
    });
  }

  void backward(const Range& r) override {
    if (!table_.constant()) add_gradient(r, {});
  }

  void accumulate(const Range& r, Part part) override {
    if (table_.constant()) add_gradient(r, part);
  }

 private:
  /// A share of the rows, in whole cache lines.
  void add_gradient(const Range& r, Part part) {
    if (!table_.gradient) return;
    constexpr Index line = 64 / sizeof(S);
    const Index rows = y_.shape.features, lines = (rows + line - 1) / line;
    const Index from = part.begin(lines) * line, size = std::min(part.end(lines) * line, rows) - from;
    if (size <= 0) return;
    each_frame_of(y_, r, [&](Index t, Index lane, Index end) {
      const auto dy = y_.gradients(t);
      auto dtable = table_.gradients(t);
      for (; lane < end; ++lane)
        dtable.col(symbol(t, lane)).segment(from, size) += dy.col(lane).segment(from, size);
    });
  }

  Index symbol(Index t, Index lane) const {
    return symbol_at(symbols_, t, lane, table_.shape.batch, "embedding");
  }

  Tensor<S> symbols_, table_, y_;
};

const Register<Embedding> embedding{{
    .name = "embedding",
    .infer = [](const Call& call) -> std::vector<Signature> {
      require_inputs(call, "embedding", 2);
      const Shape symbols = call.inputs[0].shape, table = call.inputs[1].shape;
      require_shape(call, 0, {1, symbols.batch}, "embedding: symbols");
      return {{{table.features, symbols.batch}, call.extent()}};
    },
    .examples = {{{{1, 3}, {4, 6}}}, {{{1, 1}, {1, 1}}}, {{{1, 5}, {37, 2}}}},
    .cost = 1,
    // A table that differs from frame to frame has symbols for lanes.
    .split =
        [](const Call& call) {
          return call.inputs[1].extent == Extent::Constant ? Split::Lanes : Split::Frames;
        },
    .divides = true,
}};

}  // namespace
}  // namespace bptt
