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

/// How small a cell's frames are: of several lanes; of one; of one with no more units than a packet holds. What is known
/// when a loop is compiled takes no instructions; of small nets those are what takes the time.
enum class Size { Lanes, Lane, Packet };

/// How many packets all panels of plain rows have then; 0 where they differ.
template <Size size>
inline constexpr int plain_packets = size == Size::Packet ? 1 : 0;

/// f<size>() for a cell of so many units, in packets P.
template <class P, class F>
void with_size(Index batch, Index units, F&& f) {
  if (batch > 1) return f.template operator()<Size::Lanes>();
  if (units > width_of<P>) return f.template operator()<Size::Lane>();
  f.template operator()<Size::Packet>();
}

/// f<P, V>() for a product that is always of one column, with a left factor in these panels, each of V packets P. False,
/// and no call, where they differ.
template <class S, class F>
bool with_panels(const Panels& panels, F&& f) {
  if (panels.packets() == 0) return false;
  with_packet<S>(panels.width(), [&]<class P>(P*) {
    constant<Tiles<S>::packets>(panels.packets(), [&](auto V) { f.template operator()<P, V>(); });
  });
  return true;
}

/// Calls f(t, first, count) for the columns of each frame of a range in turn, or back through time.
template <Size size, class F>
BPTT_INLINED inline void each_frame(const Range& r, Index batch, bool back, F&& f) {
  const Index lanes = r.lanes == Range::all ? batch : r.lanes;
  for (Index i = 0; i < r.size(); ++i) {
    const Index t = back ? r.end - 1 - i : r.begin + i;
    if constexpr (size == Size::Lanes)
      f(t, t * batch + r.lane, lanes);
    else
      f(t, t, Index{1});
  }
}
/// Calls f(first, count) for those of each frame in turn; then its rows are all there.
template <Size size, class F>
BPTT_INLINED inline void each_frame(const Range& r, Index batch, F&& f) {
  each_frame<size>(r, batch, false, [&](Index, Index first, Index count) BPTT_INLINED {
    f(first, count);
    r.meet();
  });
}

/// Calls f(panel) for those of a cell's gates.
template <Size size, class F>
BPTT_INLINED inline void each_panel(Span which, F&& f) {
  if constexpr (size == Size::Packet) {
    if (which.begin < which.end) f(Index{0});
  } else {
    for (Index panel = which.begin; panel < which.end; ++panel) f(panel);
  }
}

/// A frame's product, given its columns: y = A b and what it begins with, in the panels of A. P, V and `of` as
/// Factor::column wants them.
template <class P, int V, Size size, int of = V, class S, class After>
BPTT_INLINED inline void frame_product(const Factor<S>& a, const std::vector<Right<S>>& b,
                                       const Panelled<S>& y, Begin begin, Index first, Index count, Part rows,
                                       After&& after) {
  const Span mine = rows.of(a.panels());
  if constexpr (size == Size::Lanes)
    a.multiply(b, y, begin == Begin::Y, first, count, mine, after);
  else
    a.template column<P, V, size == Size::Packet, of>(b, y, begin, first, mine, after);
}

/// Whether what a cell's inputs give is made for all frames at once. Where that is done frame by frame, the touch of the sums
/// is saved; with few lanes a product over all frames has better tiles, unless a frame is a single panel.
inline bool inputs_before(const Panels& panels, Index batch, Index at_once) {
  return batch < few_lanes && at_once > 1 && panels.count() > 1;
}

/// Where a weight lies in a left factor: from this column on.
template <class S>
struct Packed {
  const Factor<S>* factor = nullptr;
  Index first = 0;
};

/// The sums under a cell's activations at every frame: W_x x_t + b + W_h h_{t-1} + ...
///
/// Inputs are known for the whole range: their part is one product over all of it, or done in the same tile as the state's.
template <class S>
class RecurrentProduct {
 public:
  RecurrentProduct(const Panels& panels, const std::uint64_t* version, Index batch, Index at_once)
      : batch_(batch),
        apart_(inputs_before(panels, batch, at_once)),
        before_(panels, version),
        each_(panels, version) {}

  /// Adds the product of a weight with an input, with a state of the frame before, or with 1: the bias comes last.
  void input(const Tensor<S>& w, const Tensor<S>& x) {
    append(apart_ ? before_ : each_, apart_ ? before_pieces_ : each_pieces_, w,
           {x.value, x.shape.features, 1, x.outer});
  }
  Packed<S> state(const Tensor<S>& w, const Tensor<S>& past) {
    return append(each_, each_pieces_, w, {past.value, past.shape.features, 1, past.outer});
  }
  void bias(const Tensor<S>& b) {
    static constexpr S one = 1;
    append(apart_ ? before_ : each_, apart_ ? before_pieces_ : each_pieces_, b, {&one, 1, 0, 0});
  }

  /// Whether the inputs' part is done before, for all frames, and so waits in y.
  bool apart() const { return apart_; }

  void place(Scratch<S>& scratch) {
    scratch.take(before_);
    scratch.take(each_);
  }

  void pack() {
    if (apart_) before_.pack();
    each_.pack();
  }

  /// Begins the sums of a range in y: what can be done for all frames at once.
  void before(const Range& r, const Panelled<S>& y) const {
    if (!apart_) return;
    columns(r, batch_, [&](Index first, Index count) {
      before_.multiply(before_pieces_, y, false, first, count, r.rows().of(before_.panels()), nothing);
    });
  }

  /// Completes those of a frame, given its columns; `after(panel, column, count)` makes the state of each tile. P and V as
  /// Factor::column wants them.
  template <class P, int V, Size size, class After>
  BPTT_INLINED void frame(Index first, Index count, const Panelled<S>& y, Part rows, After&& after) const {
    const bool apart = size != Size::Packet && apart_;  // never for a single panel
    frame_product<P, V, size>(each_, each_pieces_, y, apart ? Begin::Y : Begin::Last, first, count, rows,
                              after);
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
    if (packed_) meet(packed, pieces(dz, packets));
    if (packed_) return;
    pieces_ = pieces(dz, packets);
    transposed_.add_transposed(w.values(0), dz.panels, packets);
    scratch.take(transposed_);
  }

  /// The same for a dz in plain columns. `packed`, all panels of its factor have as many packets.
  Back(const Tensor<S>& w, const Tensor<S>& x, const Tensor<S>& dz, Scratch<S>& scratch,
       const Packed<S>& packed)
      : Back(w, x, packed) {
    if (!x.gradient) return;
    if (packed_) {
      const Panels& panels = packed_->panels();
      std::vector<Right<S>> of_panels;
      for (Index p = 0; p < panels.count(); ++p)
        of_panels.push_back(
            {dz.gradient + panels.row(p), std::min(panels.valid(p), panels.height(p)), 1, dz.outer});
      meet(packed, of_panels);
      return;
    }
    pieces_ = {{dz.gradient, dz.shape.features, 1, dz.outer}};
    transposed_.add_transposed(w.values(0));
    scratch.take(transposed_);
  }

  void pack() { transposed_.pack(); }

  void add(const Range& r) const {
    columns(r, x_.shape.batch, [&](Index first, Index count) { add(r, first, count); });
  }
  /// The same for some columns of the range; not where W is packed already.
  void add(const Range& r, Index first, Index count) const {
    if (!x_.gradient) return;
    const bool alone = x_.shape.batch == 1 && count == 1;
    transposed_.multiply(pieces_, x_.gradients({0, free_before(r, x_.shape.batch)}), !x_.fresh, first, count,
                         alone, r.rows().of(transposed_.panels()));
  }
  /// Where it may be. P are the packets of dz, and V how many of each of its panels W has to do with; 0 where panels differ,
  /// whose x has more numbers than a packet has. A dz in plain columns is not `whole` packets.
  template <class P, int V, bool whole = true>
  BPTT_INLINED void add(const Range& r, Index first, Index count) const {
    if constexpr (V > 0)
      if (packed_) {
        if (x_.gradient && r.leads()) dots<P, V, whole>(r, first);
        return;
      }
    add(r, first, count);
  }
  /// And for several lanes, with after(panel, column, count) for each tile.
  template <class After>
  void add_tiles(const Range& r, Index first, Index count, After&& after) const {
    if (x_.gradient)
      transposed_.multiply(pieces_, x_.gradients(0), !x_.fresh, first, count,
                           r.rows().of(transposed_.panels()), after);
  }

  /// Whether x is the past of y, so that what is added at frame t goes to y at t - 1.
  bool leads_to(const Tensor<S>& y) const {
    return x_.gradient && x_.gradient + x_.shape.size() == y.gradient;
  }

 private:
  Back(const Tensor<S>& w, const Tensor<S>& x, const Packed<S>& packed) : x_(x) {
    const auto few = [&]<class P>(P*) { return x.shape.features <= most_dots<P>; };
    if (packed.factor && x.shape.batch == 1 && with_packet<S>(packed.factor->panels().width(), few))
      packed_ = packed.factor;
    else
      transposed_ = Factor<S>(Panels::plain<S>(x.shape.features), w.version);
  }

  /// What meets each panel of W.
  void meet(const Packed<S>& packed, const std::vector<Right<S>>& dz) {
    for (Index panel = 0; panel < std::ssize(dz); ++panel)
      met_.push_back({packed_->at(panel, packed.first), packed_->panels().height(panel),
                      dz[static_cast<std::size_t>(panel)]});
  }

  /// By dots, where V packets meet a panel. Not all numbers of the last are there, unless it is `whole`.
  template <class P, int V, bool whole>
  BPTT_INLINED void dots(const Range& r, Index column) const {
    using namespace Eigen::internal;
    constexpr Index W = width_of<P>, last = (V - 1) * W;
    Dots<P> dots;
    for (const Met& met : met_) {
      const S* const dz = met.dz.data + column * met.dz.column;
      PacketBlock<P, V> b;
      unrolled<V>([&](auto v) BPTT_INLINED {
        b.packet[v] =
            whole || v + 1 < V ? ploadu<P>(dz + v * W) : load_first<P>(dz + last, met.dz.depth - last);
      });
      dots.add(met.w, met.next, b);
    }
    const P sums = dots.sums(x_.shape.features);
    S* const to = x_.gradient + column * x_.outer;
    if (x_.fresh) return store_first(to, sums, x_.shape.features);
    const Index room = std::max(x_.shape.features, (free_before(r, 1) - column) * x_.outer);
    store_most(to, padd(load_first<P>(to, room), sums), room);
  }

  /// A panel of W, from one of its columns to the next, and what it meets.
  struct Met {
    const S* w;
    Index next;
    Right<S> dz;
  };

  Tensor<S> x_;
  const Factor<S>* packed_ = nullptr;  // W among others, or
  std::vector<Met> met_;
  Factor<S> transposed_;  // W^T
  std::vector<Right<S>> pieces_;
};

/// The sweep back through a range of frames: at each, dz is made from the gradients of the outputs, by `frame(first,
/// count)` for this thread's rows of these columns; then `back` takes dz to the frame before. If `tilewise`, with several
/// lanes, the next frame's dz is made of each tile as soon as it is there, by tile(panel, column, count). P and V as `back`
/// wants them.
template <class P, int V, Size size, class S, class Frame, class Tile>
BPTT_INLINED inline void through_time(const Range& r, Index batch, const Back<S>& back, bool tilewise,
                                      Frame&& frame, Tile&& tile) {
  each_frame<size>(r, batch, true, [&](Index t, Index first, Index count) BPTT_INLINED {
    if constexpr (size == Size::Lanes)
      if (tilewise) {
        if (t == r.end - 1) frame(first, count);
        r.meet();
        return back.add_tiles(r, first, count, [&](Index panel, Index column, Index n) {
          if (t > r.begin) tile(panel, column - batch, n);
        });
      }
    frame(first, count);
    r.meet();
    back.template add<P, V>(r, first, count);
    r.meet();
  });
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
