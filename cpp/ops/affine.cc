#include "ops/affine.h"

#include <set>
#include <sstream>

#include "ops/recurrent.h"

namespace bptt {
namespace {

std::vector<std::string> row_blocks(const Attributes& attributes) {
  std::istringstream text(std::get<std::string>(attributes.at("weights")));
  std::vector<std::string> all;
  for (std::string block; text >> block;) all.push_back(block);
  return all;
}

/// y += x for n numbers.
template <class S>
BPTT_INLINED inline void add_in_packets(const S* x, S* y, Index n) {
  each_packet<FullPacket<S>>(n, [&](Index i, auto first) BPTT_INLINED {
    first.store(y + i, Eigen::internal::padd(first.load(y + i), first.load(x + i)));
  });
}

/// The weights that meet one input, or the biases: the row blocks of one matrix.
template <class S>
struct Column {
  struct Block {
    Index row;
    Tensor<S> weight;
    Panels panels = Panels::plain<S>(weight.shape.features);
  };
  std::vector<Block> blocks = {};
  Tensor<S> whole = {};  // of all blocks, where they lie or copied
  bool copied = false;

  /// Rows in all, and how many columns.
  void settle(Index rows, Scratch<S>& scratch) {
    Index next = 0;
    for (const auto& [row, weight, panels] : blocks) {
      const Tensor<S>& first = blocks.front().weight;
      copied |= row != next || weight.value != first.value + row || weight.outer != first.outer;
      copied |= !weight.gradient != !first.gradient;
      next = row + weight.shape.features;
    }
    copied |= next != rows;
    whole = blocks.front().weight;
    whole.shape.features = rows;
    if (!copied) return;
    whole.outer = rows;
    whole.value = scratch.take(whole.shape.size());
    if (whole.value) whole.values(0).setZero();  // and where a weight is absent, it stays so
  }

  void copy() {
    if (!copied) return;
    for (const auto& [row, weight, panels] : blocks)
      for (Index c = 0; c < weight.shape.batch; ++c)
        copy_in_packets(weight.value + c * weight.outer, whole.value + row + c * whole.outer,
                        weight.shape.features);
  }

  /// dW += dy x^T for each weight by itself.
  void add_gradients(const MatrixMap<S>& dy, const Right<S>& x, Span columns, Part part) const {
    for (const auto& [row, weight, panels] : blocks) {
      if (!weight.gradient) continue;
      const Index rows = weight.shape.features;
      const MatrixMap<S> of(const_cast<S*>(dy.data()) + row, rows, dy.cols(),
                            Eigen::OuterStride<>(dy.outerStride()));
      const Outer<S> term[] = {{weight.gradients(0), all_packets, x.data, x.column}};
      add_outer_products<S>(term, of, panels, columns, part);
    }
  }
};

template <class S>
class Affine final : public Operation<S> {
 public:
  explicit Affine(const Binding<S>& b) : y_(b.outputs[0]) {
    const auto terms = static_cast<std::size_t>(std::get<Index>(b.attributes.at("terms")));
    auto next = b.inputs.begin();
    for (std::size_t k = 0; k < terms; ++k) x_.push_back(*next++);
    if (std::get<Index>(b.attributes.at("base")) != 0) base_ = *next++;
    columns_.resize(terms + 1);
    Index row = 0;
    for (const std::string& block : row_blocks(b.attributes)) {
      Index rows = 0;
      for (std::size_t k = 0; k <= terms; ++k)
        if (block[k] == '1') {
          rows = next->shape.features;
          columns_[k].blocks.push_back({row, *next++});
        }
      row += rows;
    }
    if (columns_.back().blocks.empty()) columns_.pop_back();

    version_ = columns_.front().blocks.front().weight.version;
    left_ = Factor<S>(Panels::plain<S>(row), version_);
    const bool in_line =
        y_.shape.batch * b.at_once == 1 && with_panels<S>(left_.panels(), [&]<class P, int V>() {
          forward_ = &Affine::template forward<P, V>;
          backward_ = &Affine::template backward<P, V>;
        });
    std::vector<Packed<S>> packed;  // read on the way back, too
    for (Column<S>& column : columns_) {
      column.settle(row, b.scratch);
      packed.push_back({in_line ? &left_ : nullptr, left_.add(column.whole.values(0))});
    }
    b.scratch.take(left_);
    for (const Tensor<S>& x : x_) right_.push_back({x.value, x.shape.features, 1, x.outer});
    if (columns_.size() > terms) right_.push_back({&one, 1, 0, 0});
    std::set<const S*> summed;
    for (const Column<S>& column : columns_)
      for (const auto& [row, weight, panels] : column.blocks)
        if (weight.gradient) repeated_ |= !summed.insert(weight.gradient).second;
    for (std::size_t k = 0; k < columns_.size(); ++k)
      if (const Tensor<S>& w = columns_[k].whole; !columns_[k].copied && w.gradient)
        together_.push_back({w.gradients(0), all_packets, right_[k].data, right_[k].column});

    for (std::size_t k = 0; k < terms; ++k)
      back_.emplace_back(columns_[k].whole, x_[k], y_, b.scratch, packed[k]);
  }

  void prepare() override {
    if (copied_version_ != *version_)
      for (Column<S>& column : columns_) column.copy();
    copied_version_ = *version_;
    left_.pack();
    for (Back<S>& back : back_) back.pack();
  }

  void forward(const Range& r) override { forward_(*this, r); }
  void backward(const Range& r) override { backward_(*this, r); }

  void accumulate(const Range& r, Part part) override {
    if (repeated_) {
      if (part.index > 0) return;
      part = {};
    }
    const Span columns{r.begin * y_.shape.batch, r.end * y_.shape.batch};
    const MatrixMap<S> dy = y_.gradients(Range{0, r.end});
    add_outer_products<S>(together_, dy, left_.panels(), columns, part);
    for (std::size_t k = 0; k < columns_.size(); ++k)
      if (columns_[k].copied) columns_[k].add_gradients(dy, right_[k], columns, part);
  }

 private:
  using Pass = void (*)(const Affine&, const Range&);
  static constexpr S one = 1;

  /// Of one column, in panels of V packets P. Any number of columns: V is 0.
  template <class P, int V>
  static void forward(const Affine& self, const Range& r) {
    using namespace Eigen::internal;
    const Tensor<S>&y = self.y_, &base = self.base_;
    const Index rows = y.shape.features;
    if constexpr (V > 0) {
      const Index from = r.begin * rows;
      const auto packets = [&](Index panel, auto&& f) BPTT_INLINED {  // f(v, place, first)
        constexpr Index W = width_of<P>;
        const Index row = panel * V * W, last = row + (V - 1) * W;
        unrolled<V - 1>([&](auto v) BPTT_INLINED { f(v, from + row + v * W, Whole<P>()); });
        f(std::integral_constant<int, V - 1>(), from + last, First<P>(rows - last));
      };
      const bool biased = std::ssize(self.right_) > std::ssize(self.x_);
      self.left_.template column<P, V, false>(
          std::span(self.right_).first(self.x_.size()), r.begin, {0, self.left_.panels().count()},
          [&](Index panel) BPTT_INLINED {
            auto sums = load_block<P, V>(biased ? self.left_.template last<P, V>(panel) : zeros<S>);
            if (base.value)
              packets(panel, [&](auto v, Index i, auto first) BPTT_INLINED {
                sums.packet[v] = padd(first.load(base.value + i), sums.packet[v]);
              });
            return sums;
          },
          [&](Index panel, const PacketBlock<P, V>& sums) BPTT_INLINED {
            packets(panel, [&](auto v, Index i, auto first)
                               BPTT_INLINED { first.store(y.value + i, sums.packet[v]); });
          });
    } else {
      columns(r, y.shape.batch, [&](Index first, Index count) {
        const Index from = first * rows, n = count * rows;
        if (base.value) copy_in_packets(base.value + from, y.value + from, n);
        const bool alone = count == 1 && y.shape.batch == 1;
        self.left_.multiply(self.right_, y.values(0), base.value != nullptr, first, count, alone,
                            Part{}.of(self.left_.panels()));
      });
    }
  }

  template <class P, int V>
  static void backward(const Affine& self, const Range& r) {
    const Tensor<S>&y = self.y_, &base = self.base_;
    columns(r, y.shape.batch, [&](Index first, Index count) {
      const Index from = first * y.shape.features, n = count * y.shape.features;
      if (base.gradient) add_in_packets(y.gradient + from, base.gradient + from, n);
      for (const Back<S>& back : self.back_)
        back.template add<P, V, false>(r, first, count);  // dx_k += W_k^T dy
    });
  }

  std::vector<Tensor<S>> x_;
  Tensor<S> base_, y_;
  std::vector<Column<S>> columns_;  // for each x_k, and for the bias
  const std::uint64_t* version_;
  std::uint64_t copied_version_ = ~std::uint64_t{0};
  Factor<S> left_;
  std::vector<Back<S>> back_;
  std::vector<Outer<S>> together_;  // whose gradients are summed in one pass over y's
  std::vector<Right<S>> right_;
  bool repeated_ = false;  // a weight meets several inputs: all sums of its gradient are one thread's
  Pass forward_ = &Affine::template forward<FullPacket<S>, 0>,
       backward_ = &Affine::template backward<FullPacket<S>, 0>;
};

template <class S>
std::unique_ptr<Operation<S>> make(const Binding<S>& binding) {
  return std::make_unique<Affine<S>>(binding);
}

std::vector<Signature> infer(const Call& call) {
  const Index terms = call.integer("terms");
  auto next = static_cast<std::size_t>(terms + call.integer("base"));
  Shape y{0, call.inputs[0].shape.batch};
  for (const std::string& block : row_blocks(call.attributes)) {
    Index rows = 0;
    for (const char present : block)
      if (present == '1') rows = call.inputs.at(next++).shape.features;
    y.features += rows;
  }
  return {{y, Extent::Frame}};
}

}  // namespace

const Registered& affine() {
  static const Registered type = [] {
    Registered made;
    made.name = "affine";
    made.infer = infer;
    made.split = by_lanes;
    made.divides = true;
    made.rereads = [](const Attributes&) { return false; };
    made.begins = [](const Call& call, std::size_t input) {
      return static_cast<Index>(input) < call.integer("terms");
    };
    made.make32 = make<float>;
    made.make64 = make<double>;
    return made;
  }();
  return type;
}

}  // namespace bptt
