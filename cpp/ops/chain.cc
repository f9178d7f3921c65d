#include "ops/chain.h"

#include <sstream>
#include <utility>

#include "kernel/unrolled.h"
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

std::size_t at(Index i) {
  return static_cast<std::size_t>(i);
}

/// How many of a chain's results are looked at together: some rows of one column, or all rows of several that are
/// neighbours; and how they are made up to whole packets.
template <class S>
struct Cut {
  using P = FullPacket<S>;
  static constexpr Index width = width_of<P>;

  Index columns, rows;
  Index size = columns * rows;
  Index room = (size + width - 1) & -width;
  First<P> rest = First<P>(size - room + width);

  bool whole() const { return size == room; }
  /// Calls f(i, first) for its packets, each from number i on, where the `first` are real.
  template <class F>
  void packets(F&& f) const {
    const Index last = room - width;
    for (Index i = 0; i < last; i += width) f(i, Whole<P>());
    f(last, rest);
  }
};

/// Those, and where they begin. Rows may go on beyond the last of a kind where all operands do so evenly.
template <class S, bool whole_frame = false>
struct Block : Cut<S> {
  Index frame, lane, row;
};
/// All of a frame.
template <class S>
struct Block<S, true> : Cut<S> {
  Index frame;
  static constexpr Index lane = 0, row = 0;
};

template <class S>
void copy(const Cut<S>& cut, const S* from, S* to) {
  cut.packets([&](Index i, auto first) { Eigen::internal::pstoreu(to + i, first.load(from + i)); });
}
/// Back from a slot, where packets are whole.
template <class S>
void write(const Cut<S>& cut, const S* from, S* to) {
  cut.packets([&](Index i, auto first) {
    first.store(to + i, Eigen::internal::ploadu<typename Cut<S>::P>(from + i));
  });
}
template <class S>
void add(const Cut<S>& cut, const S* from, S* to) {
  cut.packets([&](Index i, auto first) {
    first.store(to + i, Eigen::internal::padd(first.load(to + i), first.load(from + i)));
  });
}

/// What connects numbers in memory, spread over a chain's (features, batch, frames), with the slot of a block of them.
template <class S>
class Port {
 public:
  /// Of x's values or gradients, the rows from `start` on.
  Port(S* data, const Tensor<S>& x, Index start, Shape shape, std::size_t slot)
      : slot(slot), first_(data + start) {
    frame_ = x.extent == Extent::Frame ? x.shape.size() : 0;
    lane_ = shape.batch == 1 ? frame_ : x.shape.batch == 1 ? 0 : x.outer;
    row_ = shape.features == 1 ? lane_ != 0 : x.shape.features != 1;
    plain_ = row_ == 1 && (shape.batch == 1 || even_lanes(shape));
  }

  std::size_t slot;

  /// Whether lanes go on as rows do, so that they can be taken for rows; and frames as lanes do.
  bool even_lanes(Shape shape) const { return lane_ == row_ * shape.features; }
  bool even_frames(Shape shape) const { return frame_ == lane_ * shape.batch; }

  template <bool frame>
  S* at(const Block<S, frame>& block) const {
    return first_ + block.frame * frame_ + block.lane * lane_ + block.row * row_;
  }

  /// A block's numbers: where they lie, if there they are whole packets, else in `room`. A packet may reach over into the
  /// slot that comes next.
  template <bool frame>
  S* read(const Block<S, frame>& block, S* room) const {
    if (!plain(block)) return gather(block, at(block), room);
    if (block.whole()) return at(block);
    copy(block, room);
    return room;
  }
  template <bool frame>
  void copy(const Block<S, frame>& block, S* room) const {
    bptt::copy<S>(block, at(block), room);
  }

  /// The other way: writes what came for a block, where no number stands for many.
  template <bool frame>
  void write(const Block<S, frame>& block, const S* from) const {
    plain(block) ? bptt::write<S>(block, from, at(block)) : spread(block, at(block), from);
  }
  /// Or adds it.
  template <bool frame>
  void add(const Block<S, frame>& block, const S* from) const {
    plain(block) ? bptt::add<S>(block, from, at(block)) : scatter(block, at(block), from);
  }

 private:
  bool even(const Cut<S>& cut) const { return cut.columns == 1 || lane_ == row_ * cut.rows; }
  bool plain(const Block<S>& block) const { return row_ == 1 && even(block); }
  bool plain(const Block<S, true>&) const { return plain_; }

  /// By columns, or from one number to many.
  BPTT_APART S* gather(const Cut<S>& cut, S* place, S* room) const {
    each(cut, place, [&](const Cut<S>& piece, const S* from, Index offset) {
      row_ == 0 ? void(std::fill_n(room + offset, piece.size, *from))
                : bptt::copy<S>(piece, from, room + offset);
    });
    return room;
  }
  BPTT_APART void spread(const Cut<S>& cut, S* place, const S* from) const {
    each(cut, place,
         [&](const Cut<S>& piece, S* to, Index offset) { bptt::write<S>(piece, from + offset, to); });
  }
  BPTT_APART void scatter(const Cut<S>& cut, S* place, const S* from) const {
    each(cut, place, [&](const Cut<S>& piece, S* to, Index offset) {
      if (row_ == 0)
        *to += Eigen::Map<const Eigen::Array<S, Eigen::Dynamic, 1>>(from + offset, piece.size).sum();
      else
        bptt::add<S>(piece, from + offset, to);
    });
  }

  /// Calls f(piece, where it lies, offset in the block) for numbers that lie side by side, or are all one.
  template <class F>
  void each(const Cut<S>& cut, S* place, F&& f) const {
    if (even(cut)) return f(cut, place, Index{0});
    const Cut<S> column{1, cut.rows};
    for (Index c = 0; c < cut.columns; ++c) f(column, place + c * lane_, c * cut.rows);
  }

  S* first_;
  Index row_, lane_, frame_;  // from one to the next; 0: there is one for all
  bool plain_;                // a frame's numbers lie side by side
};

template <class S>
class Chain final : public Operation<S> {
 public:
  Chain(const Binding<S>& b, const ChainCode& code) : y_(b.outputs[0]) {
    std::vector<Tensor<S>> tensors;  // by value: a load or an output, else nothing
    for (const auto& [input, start] : code.loads) {
      const Tensor<S>& x = tensors.emplace_back(b.inputs[at(input)]);
      loads_.emplace_back(x.value, x, start, y_.shape, loads_.size());
    }
    values_ = loads_.size() + code.steps.size();
    tensors.resize(values_);
    for (const auto& [operation, a, b_] : code.steps)
      steps_.push_back({row_rule<S>(operation), loads_.size() + steps_.size(), at(a), at(b_)});
    std::vector<bool> kept(values_);
    const auto keep = [&](std::size_t v, S* where) {
      kept[v] = true;
      steps_[v - loads_.size()].kept = where;
    };
    for (std::size_t k = 0; k < code.outputs.size(); ++k) {
      tensors[at(code.outputs[k])] = b.outputs[k];
      keep(at(code.outputs[k]), b.outputs[k].value);
    }

    const auto all = [&](auto&& even) { return std::ranges::all_of(loads_, even); };
    flat_ = all([&](const Port<S>& load) { return load.even_lanes(y_.shape); });
    even_ = all([&](const Port<S>& load) { return load.even_frames(y_.shape); });
    const Index rows = y_.shape.features, slots = 2 * static_cast<Index>(values_);
    most_ = std::clamp<Index>(local_size / slots / width * width, width, 256);
    // Rows that fill whole packets are best looked at where they lie.
    const bool by_column = rows % width == 0 && rows >= 2 * width;
    columns_ = flat_ || by_column ? 1 : std::max<Index>(most_ / rows, 1);
    cut_ = flat_ ? Cut<S>{1, rows * y_.shape.batch} : Cut<S>{y_.shape.batch, rows};
    together_ = cut_.columns <= columns_ && cut_.rows <= most_;

    to_frames_ = Back(*this, code, tensors, false);
    to_constants_ = Back(*this, code, tensors, true);
    std::vector<bool> needed(values_);
    for (std::size_t v = values_; v-- > loads_.size();) {
      if (kept[v] || !(needed[v] || to_frames_.needs[v] || to_constants_.needs[v])) continue;
      if (step_of(v).rule->costly)
        keep(v, b.scratch.take(y_.shape.size() * b.frames));
      else
        needed[step_of(v).a] = needed[step_of(v).b] = true;
    }
    to_frames_.settle(*this, kept);
    to_constants_.settle(*this, kept);
  }

  void forward(const Range& r) override {
    each_block(r, [&](const auto& block) {
      alignas(64) S local[local_size];
      S* at[most_values];
      const Index first = place(block), n = block.room;
      for (const Port<S>& load : loads_) at[load.slot] = load.read(block, slot(local, load.slot, n));
      for (const Step& step : steps_) {
        S* const y = step.kept && block.whole() ? step.kept + first : slot(local, step.y, n);
        step.rule->forward(at[step.y] = y, at[step.a], at[step.b], n);
      }
      if (block.whole()) return;
      for (const Step& step : steps_)
        if (step.kept) write<S>(block, at[step.y], step.kept + first);
    });
  }

  void backward(const Range& r) override { add_gradients(r, to_frames_); }
  void accumulate(const Range& r, Part) override { add_gradients(r, to_constants_); }

 private:
  static constexpr Index local_size = 32768 / sizeof(S), width = Cut<S>::width;
  static constexpr std::size_t most_values = 128;

  /// By number: what it makes, and of what.
  struct Step {
    const RowRule<S>* rule;
    std::size_t y, a, b;
    S* kept = nullptr;  // where y is in memory, for all frames: outputs, and what is costly
    bool binary() const { return rule->operands == 2; }
  };

  /// The way back to the inputs that differ from frame to frame, or to those that are constant.
  struct Back {
    struct Turn {
      const RowRule<S>* rule;
      RowBack row;
    };
    std::vector<bool> needs = {};        // by value: its numbers are looked at
    std::vector<Port<S>> there = {};     // those of them that are in memory, in order
    std::vector<Step> again = {};        // those to compute once more, in order
    std::vector<Port<S>> first = {};     // gradients of outputs that come from outside
    std::vector<Turn> turns = {};        // in order
    std::vector<Port<S>> last = {};      // gradients of loads
    std::vector<Port<S>> fresh = {};     // and those that are written
    std::vector<std::size_t> none = {};  // of the latter, what nothing came for

    Back() = default;
    Back(const Chain& chain, const ChainCode& code, const std::vector<Tensor<S>>& tensors, bool constants)
        : needs(chain.values_, false) {
      const std::size_t loads = chain.loads_.size(), all = chain.values_;
      std::vector<bool> leads(all, false);  // its gradient is wanted
      for (std::size_t v = 0; v < all; ++v) {
        if (v < loads) {
          leads[v] = tensors[v].gradient && tensors[v].constant() == constants;
        } else if (const Step& step = chain.step_of(v); step.rule->differentiable) {
          leads[v] = leads[step.a] || leads[step.b];
        }
      }
      std::vector<bool> came(all, false);  // some of its gradient did already
      for (std::size_t v = loads; v < all; ++v) {
        came[v] = leads[v] && tensors[v].gradient;
        if (came[v]) first.emplace_back(tensors[v].gradient, tensors[v], 0, chain.y_.shape, v);
      }
      for (std::size_t v = all; v-- > loads;) {
        if (!came[v]) continue;
        const Step& step = chain.step_of(v);
        RowBack row{step.y, step.a, step.b};
        row.to_a = leads[step.a];
        row.to_b = step.binary() && leads[step.b];
        row.add_a = came[step.a];
        row.add_b = came[step.b] || (row.to_a && step.a == step.b);
        if (row.to_a) came[step.a] = true;
        if (row.to_b) came[step.b] = true;
        if (step.rule->reads_y) needs[v] = true;
        if (step.rule->reads_a) needs[step.a] = true;
        if (step.binary() && step.rule->reads_b) needs[step.b] = true;
        turns.push_back({step.rule, row});
      }
      for (std::size_t v = 0; v < loads; ++v) {
        if (!leads[v]) continue;
        const bool begun = tensors[v].fresh;
        if (begun && !came[v]) none.push_back(v);
        if (begun || came[v])
          (begun ? fresh : last)
              .emplace_back(tensors[v].gradient, tensors[v], code.loads[v].start, chain.y_.shape, v);
      }
    }

    /// Once it is known what is kept: what has to be computed again, and what that takes.
    void settle(const Chain& chain, const std::vector<bool>& kept) {
      for (std::size_t v = chain.values_; v-- > chain.loads_.size();) {
        if (!needs[v] || kept[v]) continue;
        const Step& step = again.emplace_back(chain.step_of(v));
        needs[step.a] = needs[step.b] = true;
      }
      std::ranges::reverse(again);
      for (const Port<S>& load : chain.loads_)
        if (needs[load.slot]) there.push_back(load);
      for (const Step& step : chain.steps_)
        if (needs[step.y] && kept[step.y]) there.emplace_back(step.kept, chain.y_, 0, chain.y_.shape, step.y);
    }
  };

  const Step& step_of(std::size_t v) const { return steps_[v - loads_.size()]; }
  /// Where a block begins in a value of the results' shape.
  template <bool frame>
  Index place(const Block<S, frame>& block) const {
    return (block.frame * y_.shape.batch + block.lane) * y_.shape.features + block.row;
  }
  /// Room for n numbers; slots lie side by side.
  static S* slot(S* local, std::size_t v, Index n) { return local + static_cast<Index>(v) * n; }

  /// Calls f with each block of a range.
  template <class F>
  void each_block(const Range& window, F&& f) const {
    const Range r = y_.frames(window);
    const bool everywhere = r.lanes == Range::all;
    if (together_ && everywhere && r.size() == 1) return f(Block<S, true>{cut_, r.begin});
    Index frames = r.size(), lanes = everywhere ? y_.shape.batch : r.lanes, rows = y_.shape.features;
    if (even_ && everywhere) lanes *= std::exchange(frames, 1);
    if (flat_) rows *= std::exchange(lanes, 1);
    for (Index t = 0; t < frames; ++t)
      for (Index lane = 0; lane < lanes; lane += columns_)
        for (Index row = 0; row < rows; row += most_) {
          const Cut<S> cut{std::min(columns_, lanes - lane), std::min(most_, rows - row)};
          f(Block<S>{cut, r.begin + t, r.lane + lane, row});
        }
  }

  void add_gradients(const Range& r, const Back& back) {
    if (back.last.empty() && back.fresh.empty()) return;
    each_block(r, [&](const auto& block) {
      alignas(64) S local[local_size];
      S* at[most_values];
      const Index n = block.room;
      S* const gradients = slot(local, values_, n);
      for (const Port<S>& x : back.there) at[x.slot] = x.read(block, slot(local, x.slot, n));
      for (const Step& step : back.again) {
        S* const y = at[step.y] = slot(local, step.y, n);
        step.rule->forward(y, at[step.a], at[step.b], n);
      }
      for (const Port<S>& dy : back.first) dy.copy(block, slot(gradients, dy.slot, n));
      for (const auto& [rule, row] : back.turns) rule->backward(row, at, gradients, n);
      for (const std::size_t v : back.none) std::fill_n(slot(gradients, v, n), n, S(0));
      for (const Port<S>& dx : back.fresh) dx.write(block, slot(gradients, dx.slot, n));
      for (const Port<S>& dx : back.last) dx.add(block, slot(gradients, dx.slot, n));
    });
  }

  Tensor<S> y_;  // one of the outputs, which are alike
  std::vector<Port<S>> loads_;
  std::vector<Step> steps_;
  std::size_t values_ = 0;  // loads and steps
  bool flat_ = false;       // lanes can be taken for rows
  bool even_ = false;       // frames can be taken for lanes
  Index most_ = 0;          // rows of a block, at most
  Index columns_ = 1;       // and columns
  Cut<S> cut_{1, 1};        // all of a frame
  bool together_ = false;   // and that is one block
  Back to_frames_, to_constants_;
};

template <class S>
std::unique_ptr<Operation<S>> make(const Binding<S>& b) {
  return make_chain(b, ChainCode::from(b.attributes));
}

}  // namespace

template <class S>
std::unique_ptr<Operation<S>> make_chain(const Binding<S>& b, const ChainCode& code) {
  return std::make_unique<Chain<S>>(b, code);
}
template std::unique_ptr<Operation<float>> make_chain(const Binding<float>&, const ChainCode&);
template std::unique_ptr<Operation<double>> make_chain(const Binding<double>&, const ChainCode&);

const Registered& chain() {
  static const Registered type = [] {
    Registered made;
    made.name = "chain";
    made.infer = [](const Call& call) {
      const ChainCode code = ChainCode::from(call.attributes);
      return std::vector<Signature>(code.outputs.size(), {code.shape, Extent::Frame});
    };
    made.cost = 16;
    // All rows of the input are loaded, once each.
    made.begins = [](const Call& call, std::size_t input) {
      const ChainCode code = ChainCode::from(call.attributes);
      const Shape x = call.inputs[input].shape;
      std::vector<bool> loaded(at(x.features));
      Index rows = 0;
      for (const auto& [from, start] : code.loads) {
        if (at(from) != input) continue;
        if (x.batch != code.shape.batch || start + code.shape.features > x.features) return false;
        rows += code.shape.features;
        std::fill_n(loaded.begin() + start, code.shape.features, true);
      }
      return rows == x.features && std::ranges::find(loaded, false) == loaded.end();
    };
    made.split = by_lanes;
    made.make32 = make<float>;
    made.make64 = make<double>;
    return made;
  }();
  return type;
}

}  // namespace bptt
