// What the fused cells have in common: the products through time, forward and back, and the weight gradients.
#pragma once

#include "ops/operation.h"

namespace bptt {

/// With fewer lanes than these, and several frames, what a cell's inputs give is made for all frames at once.
inline constexpr Index few_lanes = 4;

/// The columns before this one are free: behind those at work, they hold what is still to be written, or, on the way back,
/// gradients that were used. Packets may reach over into them. A part of a packet, stored, takes time to reach the cache,
/// and a load that follows at once would wait for it.
inline Index free_before(const Range& r, Index batch) {
  return batch == 1 && !r.member ? r.end : 0;
}

/// Calls f(first, count) for the columns of each frame of a range in turn; then its rows are all there.
template <class F>
void each_frame(const Range& r, Index batch, F&& f) {
  for (Index t = r.begin; t < r.end; ++t) {
    columns({t, t + 1, r.lane, r.lanes}, batch, f);
    r.meet();
  }
}

/// Where a weight lies in a left factor: from this column on.
template <class S>
struct Packed {
  const Factor<S>* factor = nullptr;
  Index first = 0;
};

/// The sums under a cell's activations at every frame: W_x x_t + b + W_h h_{t-1} + ...
///
/// Inputs are known for the whole range. With few lanes their part is one product over all of it, which makes better
/// tiles; with more it is done in the same tile as the state's, frame by frame, which touches the sums once.
template <class S>
class RecurrentProduct {
 public:
  RecurrentProduct(const Panels& panels, const std::uint64_t* version, Index batch, Index at_once)
      : batch_(batch),
        apart_(batch < few_lanes && at_once > 1),
        before_(panels, version),
        each_(panels, version) {}

  /// Adds the product of a weight with an input, with 1 (a bias), or with a state of the frame before.
  void input(const Tensor<S>& w, const Tensor<S>& x) {
    append(apart_ ? before_ : each_, apart_ ? before_pieces_ : each_pieces_, w,
           {x.value, x.shape.features, 1, x.outer});
  }
  void input(const Tensor<S>& bias) {
    static constexpr S one = 1;
    append(apart_ ? before_ : each_, apart_ ? before_pieces_ : each_pieces_, bias, {&one, 1, 0, 0});
  }
  Packed<S> state(const Tensor<S>& w, const Tensor<S>& past) {
    return append(each_, each_pieces_, w, {past.value, past.shape.features, 1, past.outer});
  }

  /// Whether the inputs' part is done before, for all frames, and so waits in y.
  bool apart() const { return apart_; }

  void place(Scratch<S>& scratch) {
    scratch.take(before_);
    scratch.take(each_);
  }

  void pack() {
    before_.pack();
    each_.pack();
  }

  /// Begins the sums of a range in y, a MatrixMap or Panelled: what can be done for all frames at once.
  template <class Y>
  void before(const Range& r, const Y& y) const {
    if (!apart_) return;
    columns(r, batch_, [&](Index first, Index count) {
      before_.multiply(before_pieces_, y, false, first, count, false, r.rows().of(before_.panels()), nothing);
    });
  }

  /// Completes those of a frame, given its columns; `after(panel, column, count)` makes the state of each tile.
  template <class Y, class After>
  void frame(Index first, Index count, const Y& y, Part rows, After&& after) const {
    each_.multiply(each_pieces_, y, apart_, first, count, batch_ == 1, rows.of(each_.panels()), after);
  }

 private:
  static Packed<S> append(Factor<S>& factor, std::vector<Right<S>>& pieces, const Tensor<S>& w,
                          const Right<S>& piece) {
    pieces.push_back(piece);
    return {&factor, factor.add(w.values(0))};
  }

  Index batch_;
  bool apart_;
  Factor<S> before_, each_;
  std::vector<Right<S>> before_pieces_, each_pieces_;
};

/// From the gradients of the sums, dz, to that of what a weight met: dx += W^T dz, or = if x is fresh.
template <class S>
class Back {
 public:
  Back() = default;

  /// Of each panel of dz, `packets` belong to the rows of W. Does nothing if no gradient is wanted. To be called frame by
  /// frame if W is given as it is `packed` for the way there, its first rows in the first packets of each panel: for a lane
  /// alone, and small, that will do.
  Back(const Tensor<S>& w, const Tensor<S>& x, const Panelled<S>& dz, Span packets, Scratch<S>& scratch,
       const Packed<S>& packed = {})
      : Back(w, x, dz, packets, scratch, packed, x.gradient) {}
  /// The same for an x in scratch memory, which has no place while memory is counted.
  Back(const Tensor<S>& w, const Tensor<S>& x, const Panelled<S>& dz, Span packets, Scratch<S>& scratch,
       const Packed<S>& packed, bool wanted)
      : Back(w, x, packed) {
    if (!wanted) return;
    pieces_ = pieces(dz, packets);
    if (packed_.factor) return;
    transposed_.add_transposed(w.values(0), dz.panels, packets);
    scratch.take(transposed_);
  }

  /// The same for a dz in plain columns.
  Back(const Tensor<S>& w, const Tensor<S>& x, const Tensor<S>& dz, Scratch<S>& scratch,
       const Packed<S>& packed)
      : Back(w, x, packed) {
    if (!x.gradient) return;
    if (packed_.factor) {
      const Panels& panels = packed_.factor->panels();
      for (Index p = 0; p < panels.count(); ++p)
        pieces_.push_back(
            {dz.gradient + panels.row(p), std::min(panels.valid(p), panels.height(p)), 1, dz.outer});
      return;
    }
    pieces_ = {{dz.gradient, dz.shape.features, 1, dz.outer}};
    transposed_.add_transposed(w.values(0));
    scratch.take(transposed_);
  }

  void pack() { transposed_.pack(); }

  void add(const Range& r) const {
    columns(r, x_.shape.batch, [&](Index first, Index count) { add(r, first, count, nothing); });
  }
  /// The same for some columns of the range; then after(panel, column, count) for each tile.
  template <class After>
  void add(const Range& r, Index first, Index count, After&& after) const {
    if (!x_.gradient) return;
    const MatrixMap<S> y = x_.gradients({0, free_before(r, x_.shape.batch)});
    if (packed_.factor) {
      if (!r.leads()) return;
      packed_.factor->dots(pieces_, packed_.first, y, !x_.fresh, first);
      after(0, first, 1);
    } else {
      const bool alone = x_.shape.batch == 1 && count == 1;
      transposed_.multiply(pieces_, y, !x_.fresh, first, count, alone, r.rows().of(transposed_.panels()),
                           after);
    }
  }

  /// Whether x is the past of y, so that what is added at frame t goes to y at t - 1.
  bool leads_to(const Tensor<S>& y) const {
    return x_.gradient && x_.gradient + x_.shape.size() == y.gradient;
  }

 private:
  Back(const Tensor<S>& w, const Tensor<S>& x, const Packed<S>& packed) : x_(x) {
    if (packed.factor && x.shape.batch == 1 && packed.factor->makes_dots(x.shape.features))
      packed_ = packed;
    else
      transposed_ = Factor<S>(Panels::plain<S>(x.shape.features), w.version);
  }

  Tensor<S> x_;
  Packed<S> packed_;      // W among others, or
  Factor<S> transposed_;  // W^T
  std::vector<Right<S>> pieces_;
};

/// The sweep back through a range of frames: at each, dz is made from the gradients of the outputs, by `frame(first,
/// count)` for this thread's rows of these columns; then `back` takes dz to the frame before. If `tilewise`, the next
/// frame's dz is made of each tile as soon as it is there, by tile(panel, column, count).
template <class S, class Frame, class Tile>
void through_time(const Range& r, Index batch, const Back<S>& back, bool tilewise, Frame&& frame,
                  Tile&& tile) {
  for (Index t = r.end - 1; t >= r.begin; --t) {
    columns({t, t + 1, r.lane, r.lanes}, batch, [&](Index first, Index count) {
      if (t == r.end - 1 || !tilewise) frame(first, count);
      r.meet();
      if (t > r.begin && tilewise)
        back.add(r, first, count,
                 [&](Index panel, Index column, Index n) { tile(panel, column - batch, n); });
      else
        back.add(r, first, count, nothing);
      if (!tilewise) r.meet();
    });
  }
}

/// From the gradients of the sums, dz, to those of the weights: dW += the sum over frames of dz x^T.
template <class S>
class WeightGradients {
 public:
  WeightGradients() = default;
  WeightGradients(const Panelled<S>& dz, Index batch) : dz_(dz), batch_(batch) {}

  /// A weight that met x, whose rows are those of some packets; a bias met ones. None is added that needs no gradient.
  void add(const Tensor<S>& w, const Tensor<S>& x, Span packets = all_packets) {
    if (w.gradient) terms_.push_back({w.gradients(0), packets, x.value, x.outer});
  }
  void add(const Tensor<S>& bias, Span packets = all_packets) {
    static constexpr S one = 1;
    if (bias.gradient) terms_.push_back({bias.gradients(0), packets, &one, 0});
  }

  void accumulate(const Range& r, Part part) const {
    add_outer_products<S>(terms_, dz_, {r.begin * batch_, r.end * batch_}, part);
  }

 private:
  Panelled<S> dz_;
  Index batch_ = 1;
  std::vector<Outer<S>> terms_;
};

}  // namespace bptt
