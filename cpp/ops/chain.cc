#include "ops/chain.h"

#include <sstream>

#include "ops/rules.h"

namespace bptt {

Attributes ChainCode::attributes() const {
  std::ostringstream code, of;
  code << loads.size() << ' ' << steps.size() << ' ' << outputs.size();
  for (const Load& load : loads) code << ' ' << load.input << ' ' << load.start;
  for (const Step& step : steps) code << ' ' << step.operation << ' ' << step.a << ' ' << step.b;
  for (const Index output : outputs) {
    code << ' ' << output;
    of << steps[static_cast<std::size_t>(output) - loads.size()].operation << ' ';
  }
  return {{"features", shape.features}, {"batch", shape.batch}, {"code", code.str()}, {"of", of.str()}};
}

ChainCode ChainCode::from(const Attributes& attributes) {
  ChainCode code{{std::get<Index>(attributes.at("features")), std::get<Index>(attributes.at("batch"))}};
  std::istringstream text(std::get<std::string>(attributes.at("code")));
  std::size_t loads = 0, steps = 0, outputs = 0;
  text >> loads >> steps >> outputs;
  code.loads.resize(loads);
  code.steps.resize(steps);
  code.outputs.resize(outputs);
  for (Load& load : code.loads) text >> load.input >> load.start;
  for (Step& step : code.steps) text >> step.operation >> step.a >> step.b;
  for (Index& output : code.outputs) text >> output;
  return code;
}

namespace {

/// A block: some rows of one column, or all rows of several; `first` is the number it begins with.
struct Block {
  Index first, column, columns, row, rows;
  Index size = columns * rows;
};

/// How the numbers of an input lie for a chain over (features, batch).
template <class S>
class Operand {
 public:
  Operand(const Tensor<S>& x, Index start, Shape shape)
      : x_(x),
        start_(start),
        batch_(shape.batch),
        one_row_(x.shape.features == 1 && shape.features > 1),
        single_(x.constant() && x.shape.size() == 1),
        dense_(!x.constant() && x.shape == shape && x.outer == shape.features) {}

  const Tensor<S>& tensor() const { return x_; }
  bool single() const { return single_; }
  bool dense() const { return dense_; }

  /// Where a block lies if it lies in one piece, else null.
  S* direct(S* base, const Block& at) const {
    if (dense_) return base + at.first;
    return at.columns == 1 && !one_row_ ? base + place(at.column) + at.row : nullptr;
  }

  /// Copies a block to a slot. A packet may reach over into the column that comes next, or the slot.
  void load(const Block& at, S* to) const {
    if (single_) return std::fill_n(to, at.size, *x_.value), void();
    each(at, x_.value, [&](S* from, Index n, Index offset) {
      if (one_row_)
        std::fill_n(to + offset, n, *from);
      else
        fill(from, to + offset, n);
    });
  }

  /// Adds what came for a block to the input's gradient.
  void add(const Block& at, const S* from) const {
    using Flat = Eigen::Map<const Eigen::Array<S, Eigen::Dynamic, 1>>;
    if (single_)
      *x_.gradient += Flat(from, at.size).sum();
    else
      each(at, x_.gradient, [&](S* to, Index n, Index offset) {
        if (one_row_)
          *to += Flat(from + offset, n).sum();
        else
          add(from + offset, to, n);
      });
  }

  /// Where there is room for whole packets. A load that follows a part of one would wait for the cache.
  static void fill(const S* from, S* to, Index n) {
    by_packets(n, [&]<class P>(P*, Index i, Index real) {
      Eigen::internal::pstoreu(to + i, load_first<P>(from + i, real));
    });
  }
  static void add(const S* from, S* to, Index n) {
    by_packets(n, [&]<class P>(P*, Index i, Index real) {
      store_first<P>(to + i,
                     Eigen::internal::padd(load_first<P>(to + i, real), load_first<P>(from + i, real)), real);
    });
  }

 private:
  template <class F>
  static void by_packets(Index n, F&& f) {
    using P = FullPacket<S>;
    for (Index i = 0; i < n; i += width_of<P>) f(static_cast<P*>(nullptr), i, std::min(n - i, width_of<P>));
  }

  /// Where the column of the chain's results with this number finds its own numbers.
  Index place(Index column) const {
    if (x_.constant())
      column = x_.shape.batch == 1 ? 0 : column % batch_;
    else if (x_.shape.batch != batch_)
      column /= batch_;  // there is one for all lanes
    return column * x_.outer + start_;
  }

  /// Calls f(first number, how many, offset in the block) for whatever lies side by side.
  template <class F>
  void each(const Block& at, S* base, F&& f) const {
    if (S* const all = direct(base, at)) return f(all, at.size, Index{0});
    for (Index c = 0; c < at.columns; ++c)
      f(base + place(at.column + c) + (one_row_ ? 0 : at.row), at.rows, c * at.rows);
  }

  Tensor<S> x_;
  Index start_, batch_;
  bool one_row_, single_, dense_;
};

template <class S>
class Chain final : public Operation<S> {
 public:
  explicit Chain(const Binding<S>& b) : code_(ChainCode::from(b.attributes)), outputs_(b.outputs) {
    for (const auto& [input, start] : code_.loads)
      loads_.emplace_back(b.inputs[at(input)], start, code_.shape);
    values_ = loads_.size() + code_.steps.size();
    kept_.resize(values_, nullptr);
    output_.resize(values_, -1);
    for (std::size_t k = 0; k < code_.outputs.size(); ++k) {
      kept_[at(code_.outputs[k])] = outputs_[k].value;
      output_[at(code_.outputs[k])] = static_cast<int>(k);
    }
    for (const auto& [operation, a, b_] : code_.steps)
      steps_.push_back({row_rule<S>(operation), at(a), at(b_)});

    constexpr Index width = width_of<FullPacket<S>>;
    const auto slots = static_cast<Index>(2 * values_);
    most_ = std::clamp<Index>(local_size / slots / width * width, width, 256);
    // Rows that fill whole packets are best looked at where they lie.
    const bool flat =
        std::ranges::all_of(loads_, [](const Operand<S>& load) { return load.dense() || load.single(); });
    const Index features = code_.shape.features;
    rows_ = flat ? 1 : features;
    scale_ = flat ? features : 1;
    const bool by_column = !flat && features % width == 0 && features >= 2 * width;
    columns_ = by_column ? 1 : std::max<Index>(most_ / rows_, 1);

    const bool backward = std::ranges::any_of(outputs_, [](const Tensor<S>& y) { return y.gradient; });
    if (!backward) return;
    to_frames_ = Back(*this, false);
    to_constants_ = Back(*this, true);
    std::vector<bool> needed(values_);
    for (std::size_t v = values_; v-- > loads_.size();) {
      if (kept_[v] || !(needed[v] || to_frames_.needs[v] || to_constants_.needs[v])) continue;
      if (step_of(v).rule->costly)
        kept_[v] = b.scratch.take(code_.shape.size() * b.frames);
      else
        needed[step_of(v).a] = needed[step_of(v).b] = true;
    }
    to_frames_.settle(*this);
    to_constants_.settle(*this);
  }

  void forward(const Range& r) override {
    each_block(r, [&](const Block& block, Index n) {
      alignas(64) S local[local_size];
      S* at[most_values];
      std::size_t v = 0;
      for (const std::size_t loads = loads_.size(); v < loads; ++v) at[v] = loaded(v, block, local, n);
      for (const Step& step : steps_) {
        S* const kept = kept_[v] ? kept_[v] + block.first : nullptr;
        const bool there = kept && n == block.size;
        S* const y = at[v] = there ? kept : slot(local, v, n);
        step.rule->forward(y, at[step.a], at[step.b], n);
        if (kept && !there) copy_in_packets(y, kept, block.size);
        ++v;
      }
    });
  }

  void backward(const Range& r) override { add_gradients(r, to_frames_); }
  void accumulate(const Range& r, Part) override { add_gradients(r, to_constants_); }

 private:
  static constexpr Index local_size = 32768 / sizeof(S);
  static constexpr std::size_t most_values = 128;

  struct Step {
    const RowRule<S>* rule;
    std::size_t a, b;
    bool binary() const { return rule->operands == 2; }
  };

  /// The way back to the inputs that differ from frame to frame, or to those that are constant.
  struct Back {
    struct Turn {
      std::size_t value;  // whose gradient is complete
      bool to_a, to_b, add_a, add_b;
      std::size_t a, b, y;  // what the rule looks at; where it does not, number `most_values`
    };
    std::vector<bool> needs = {};         // by value: its numbers are looked at
    std::vector<std::size_t> there = {};  // those of them that are in memory, in order
    std::vector<std::size_t> again = {};  // steps to compute once more, in order
    std::vector<std::size_t> first = {};  // outputs whose gradient comes from outside
    std::vector<Turn> turns = {};         // in order
    std::vector<std::size_t> last = {};   // loads whose gradient is wanted

    Back() = default;
    Back(const Chain& chain, bool constants) : needs(chain.values_, false) {
      const std::size_t loads = chain.loads_.size();
      std::vector<bool> leads(chain.values_, false);  // its gradient is wanted
      for (std::size_t v = 0; v < chain.values_; ++v) {
        if (v < loads) {
          const Tensor<S>& x = chain.loads_[v].tensor();
          leads[v] = x.gradient && x.constant() == constants;
        } else if (const Step& step = chain.step_of(v); step.rule->differentiable) {
          leads[v] = leads[step.a] || leads[step.b];
        }
      }
      std::vector<bool> came(chain.values_, false);  // some of its gradient did already
      for (std::size_t v = 0; v < chain.values_; ++v) {
        came[v] = leads[v] && chain.output_[v] >= 0 && chain.outputs_[at(chain.output_[v])].gradient;
        if (came[v]) first.push_back(v);
      }
      for (std::size_t v = chain.values_; v-- > loads;) {
        if (!came[v]) continue;
        const Step& step = chain.step_of(v);
        Turn turn{v, leads[step.a], step.binary() && leads[step.b], came[step.a], came[step.b], 0, 0, 0};
        if (turn.to_a) came[step.a] = true;
        if (turn.to_a && turn.to_b && step.a == step.b) turn.add_b = true;
        if (turn.to_b) came[step.b] = true;
        const auto look = [&](bool reads, std::size_t value) {
          if (reads) needs[value] = true;
          return reads ? value : most_values;
        };
        turn.y = look(step.rule->reads_y, v);
        turn.a = look(step.rule->reads_a, step.a);
        turn.b = look(step.binary() && step.rule->reads_b, step.b);
        turns.push_back(turn);
      }
      for (std::size_t v = 0; v < loads; ++v)
        if (leads[v] && came[v]) last.push_back(v);
    }

    /// Once it is known what is kept: what has to be computed again, and what that takes.
    void settle(const Chain& chain) {
      const std::size_t loads = chain.loads_.size();
      for (std::size_t v = chain.values_; v-- > loads;) {
        if (!needs[v] || chain.kept_[v]) continue;
        again.push_back(v);
        needs[chain.step_of(v).a] = needs[chain.step_of(v).b] = true;
      }
      std::ranges::reverse(again);
      for (std::size_t v = 0; v < chain.values_; ++v)
        if (needs[v] && (v < loads || chain.kept_[v])) there.push_back(v);
    }
  };

  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }
  const Step& step_of(std::size_t v) const { return steps_[v - loads_.size()]; }
  /// Room for n numbers; slots lie side by side.
  static S* slot(S* local, std::size_t v, Index n) { return local + static_cast<Index>(v) * n; }
  /// Calls f with each block of a range, and its size made up to whole packets.
  template <class F>
  void each_block(const Range& r, F&& f) const {
    constexpr Index width = width_of<FullPacket<S>>;
    columns(r, code_.shape.batch, [&](Index from, Index count) {
      const Index end = (from + count) * scale_;
      for (Index c = from * scale_; c < end; c += columns_)
        for (Index row = 0; row < rows_; row += most_) {
          const Block block{c * rows_ + row, c, std::min(columns_, end - c), row,
                            std::min(most_, rows_ - row)};
          f(block, (block.size + width - 1) & -width);
        }
    });
  }

  /// The numbers of a value in memory, a load or one that is kept: where they lie, or copied to its slot.
  S* loaded(std::size_t v, const Block& block, S* local, Index n) const {
    const bool whole = n == block.size;
    S* const to = slot(local, v, n);
    if (v < loads_.size()) {
      if (S* const direct = whole ? loads_[v].direct(loads_[v].tensor().value, block) : nullptr)
        return direct;
      loads_[v].load(block, to);
      return to;
    }
    if (whole) return kept_[v] + block.first;
    Operand<S>::fill(kept_[v] + block.first, to, block.size);
    return to;
  }

  void add_gradients(const Range& r, const Back& back) {
    if (back.turns.empty()) return;
    each_block(r, [&](const Block& block, Index n) {
      alignas(64) S local[local_size];
      S* at[most_values + 1];
      at[most_values] = local;
      S* const gradients = slot(local, values_, n);
      for (const std::size_t v : back.there) at[v] = loaded(v, block, local, n);
      for (const std::size_t v : back.again) {
        const Step& step = step_of(v);
        at[v] = slot(local, v, n);
        step.rule->forward(at[v], at[step.a], at[step.b], n);
      }
      for (const std::size_t v : back.first)
        Operand<S>::fill(outputs_[this->at(output_[v])].gradient + block.first, slot(gradients, v, n),
                         block.size);
      for (const auto& [v, to_a, to_b, add_a, add_b, a, b, y] : back.turns) {
        const Step& step = step_of(v);
        step.rule->backward({at[a], at[b], at[y], slot(gradients, v, n),
                             to_a ? slot(gradients, step.a, n) : nullptr,
                             to_b ? slot(gradients, step.b, n) : nullptr, add_a, add_b, n});
      }
      for (const std::size_t v : back.last) loads_[v].add(block, slot(gradients, v, n));
    });
  }

  ChainCode code_;
  std::vector<Operand<S>> loads_;
  std::vector<Step> steps_;
  std::vector<Tensor<S>> outputs_;
  std::size_t values_ = 0;
  std::vector<int> output_;  // by value: which output it is, or -1
  std::vector<S*> kept_;     // by value: where it is kept for all frames, or null
  Index most_ = 0;           // numbers of a block
  Index rows_ = 1;           // of a column; 1 where all numbers lie alike, one after the other
  Index scale_ = 1;          // so many of those columns are a lane's
  Index columns_ = 1;        // of a block, at most
  Back to_frames_, to_constants_;
};

template <class S>
std::unique_ptr<Operation<S>> make(const Binding<S>& binding) {
  return std::make_unique<Chain<S>>(binding);
}

}  // namespace

const Registered& chain() {
  static const Registered type = [] {
    Registered made;
    made.name = "chain";
    made.infer = [](const Call& call) {
      const ChainCode code = ChainCode::from(call.attributes);
      return std::vector<Signature>(code.outputs.size(), {code.shape, Extent::Frame});
    };
    made.cost = 16;
    made.split = by_lanes;
    made.make32 = make<float>;
    made.make64 = make<double>;
    return made;
  }();
  return type;
}

}  // namespace bptt
