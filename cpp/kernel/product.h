// Matrix products made of tiles. Nothing here allocates.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "kernel/column.h"
#include "kernel/part.h"

namespace bptt {

/// Calls f(first, count) for blocks of at most `most` out of so many, all but equal: 32 in blocks of 6 are 6 6 5 5 5 5.
template <class F>
void balanced(Index from, Index size, Index most, F&& f) {
  if (size <= most) return size > 0 ? f(from, size) : void();
  const Index blocks = (size + most - 1) / most;
  for (Index i = 0; i < blocks; ++i) {
    const Index count = size / blocks + (i < size % blocks ? 1 : 0);
    f(from, count);
    from += count;
  }
}

/// A long product goes through so many columns at a time, which stay in the inner caches while all panels pass over them.
inline constexpr Index column_block = 96;

/// Whether so many numbers do not stay in the second cache. Panels among them come from further away each time.
template <class S>
bool far(Index numbers) {
  return numbers > (Index{1} << 20) / Index{sizeof(S)};
}

/// So deep panels, or parts of them, leave room there for the next one and for what they meet.
template <class S>
Index nearest(const Panels& panels) {
  return (Index{1} << 20) / Index{sizeof(S)} / (3 * panels.height(0));
}

/// Then the tiles of one panel, over so many columns and steps, ask for the panel that comes next, each for a part; unless
/// one would drive out the other.
template <class S>
void fetch(Task<S>& task, const S* panel, Index columns, Index depth) {
  if (far<S>(3 * depth * task.next)) return;
  const Index blocks = (columns + Tiles<S>::columns - 1) / Tiles<S>::columns;
  task.ahead = panel;
  task.pace = (task.next + blocks - 1) / blocks;
}

/// Panels as the piece of a right factor that stands below the one before, each; of each panel only some packets.
template <class S>
std::vector<Right<S>> pieces(const Panelled<S>& b, Span packets) {
  std::vector<Right<S>> all;
  for (Index p = 0; p < b.panels.count(); ++p)
    all.push_back(
        {b.at(p, 0) + packets.begin * b.panels.width(), b.panels.depth(p, packets), 1, b.panels.height(p)});
  return all;
}

/// What to do after a tile, when there is nothing to do.
inline constexpr auto nothing = [](Index, Index, Index) {};

/// What the sums of a product begin with: zero; what is in y; or the last column of A, whose number in b is 1.
enum class Begin { Zero, Y, Last };

/// A left factor, packed: one or several matrices side by side, each as it is or transposed.
template <class S>
class Factor {
 public:
  Factor() = default;

  /// The factor's rows lie in `panels`. `version` changes whenever the matrices do.
  Factor(const Panels& panels, const std::uint64_t* version)
      : tiles_(&Tiles<S>::of(panels.width())), version_(version) {
    packed_.panels = panels;
  }

  /// Appends W, and says which its first column is. Rows that it lacks are zero.
  Index add(const MatrixMap<S>& w) {
    const Index first = packed_.columns;
    if (follows(w)) {
      blocks_.back().depth += w.cols();
      packed_.columns += w.cols();
    } else {
      add(Block{w, false, {}, {0, 0}, w.cols()});
    }
    return first;
  }
  /// Appends W^T.
  void add_transposed(const MatrixMap<S>& w) { add(Block{w, true, {}, {0, 0}, w.rows()}); }
  /// Appends W^T, its columns taken in the order in which the `pieces` of something in `panels` give their numbers; the
  /// first of `packets` stands for the first rows of W.
  void add_transposed(const MatrixMap<S>& w, const Panels& panels, Span packets) {
    Index depth = 0;
    for (Index p = 0; p < panels.count(); ++p) depth += panels.depth(p, packets);
    add(Block{w, true, panels, packets, depth});
  }

  const Panels& panels() const { return packed_.panels; }
  /// Where a column of a panel lies.
  const S* at(Index panel, Index column) const { return packed_.at(panel, column); }

  /// Where the last column of a panel of V packets P lies.
  template <class P, int V>
  BPTT_INLINED const S* last(Index panel) const {
    return packed_.template at<V * width_of<P>>(panel, packed_.columns - 1);
  }

  /// How much memory it needs, once all matrices are there: behind the last column some more may be read (Dots).
  Index size() const { return packed_.size() + most_dots<FullPacket<S>> * panels().height(0); }
  void place(S* memory) { packed_.data = memory; }

  /// Packs what has changed. To be called before a product.
  void pack() {
    if (!version_ || packed_version_ == *version_) return;
    packed_version_ = *version_;
    pack_all();
  }

  /// y (+)= A b, for columns `first` to `first + count` of both, which are several. y is a MatrixMap, or Panelled as the
  /// factor's rows. b's pieces stand below one another. After each tile calls after(panel, column, columns). Of the rows only
  /// those in the panels `which`.
  template <class Y, class After>
  void multiply(const std::vector<Right<S>>& b, const Y& y, bool add, Index first, Index count, Span which,
                After&& after) const {
    tiles(b, first, count, which, after,
          [&](Task<S>& task, Index panel, Index column) { aim(task, y, add, panel, column); });
  }
  /// The same with nothing after. `alone`: the product never has a second column; then zeros may be added to what follows
  /// in y.
  void multiply(const std::vector<Right<S>>& b, const MatrixMap<S>& y, bool add, Index first, Index count,
                bool alone, Span which) const {
    if (!alone) return multiply(b, y, add, first, count, which, nothing);
    for (Index panel = which.begin; panel < which.end; ++panel) {
      Task<S> task{};
      aim(task, y, add, panel, first);
      if (add) task.valid = std::max(task.valid, (y.cols() - first) * y.outerStride() - panels().row(panel));
      this->alone(task, b, panel, first);
    }
  }

  /// A column alone, in line, where all panels are of V packets P: calls f(panel, sums) for each, with sums that begin as
  /// begin(panel). If there is a `single` panel, that is all.
  template <class P, int V, bool single, class From, class F>
  BPTT_INLINED void column(std::span<const Right<S>> b, Index column, Span which, From&& begin, F&& f) const {
    constexpr Index height = V * width_of<P>;
    if (single && which.begin == which.end) return;
    if constexpr (single) which = {0, 1};
    for (Index panel = which.begin; panel < which.end; ++panel)
      f(panel,
        column_product<P, V, true>(begin(panel), packed_.template at<height>(panel, 0), height, b, column));
  }
  /// The same for y in panels of `of` packets, and after(panel, column, 1). Where panels differ, V is 0.
  template <class P, int V, bool single = false, int of = V, class After>
  BPTT_INLINED void column(const std::vector<Right<S>>& b, const Panelled<S>& y, Begin begin, Index column,
                           Span which, After&& after) const {
    using namespace Eigen::internal;
    // Of narrow packets a panel takes so many instructions that its product hardly overlaps what is made of the one before.
    constexpr bool split = !single && sizeof(P) < 64;
    if constexpr (V > 0) {
      const auto from = [&](Index panel) BPTT_INLINED {
        return load_block<P, V>(begin == Begin::Y      ? y.template at<of * width_of<P>>(panel, column)
                                : begin == Begin::Last ? last<P, V>(panel)
                                                       : zeros<S>);
      };
      this->template column<P, V, single>(
          std::span(b).first(b.size() - (begin == Begin::Last ? 1 : 0)), column, which, from,
          [&](Index panel, const PacketBlock<P, V>& sums) BPTT_INLINED {
            S* const to = y.template at<of * width_of<P>>(panel, column);
            unrolled<V>([&](auto v) BPTT_INLINED { pstoreu(to + v * width_of<P>, sums.packet[v]); });
            if constexpr (!split) after(panel, column, Index{1});
          });
      if constexpr (split)
        for (Index panel = which.begin; panel < which.end; ++panel) after(panel, column, Index{1});
    } else {
      for (Index panel = which.begin; panel < which.end; ++panel) {
        Task<S> task{};
        aim(task, y, begin == Begin::Y, panel, column);
        alone(task, b, panel, column);
        after(panel, column, Index{1});
      }
    }
  }

 private:
  struct Block {
    MatrixMap<S> w;
    bool transposed;
    Panels order;  // of the depth, if there are packets in it
    Span packets;  // of each panel of `order`
    Index depth;   // its columns, and those of matrices that follow it in memory
  };

  void add(const Block& block) {
    blocks_.push_back(block);
    packed_.columns += block.depth;
  }

  /// Whether W's columns lie in memory behind those that came before.
  bool follows(const MatrixMap<S>& w) const {
    if (blocks_.empty()) return false;
    const Block& before = blocks_.back();
    return !before.transposed && before.w.data() && before.w.rows() == w.rows() &&
           before.w.outerStride() == w.outerStride() &&
           before.w.data() + before.depth * w.outerStride() == w.data();
  }

  /// To the numbers of y that a panel makes.
  void aim(Task<S>& task, const MatrixMap<S>& y, bool add, Index panel, Index column) const {
    const Panels& panels = packed_.panels;
    task.y = const_cast<S*>(y.data()) + panels.row(panel) + column * y.outerStride();
    task.packet = panels.packet();
    task.column = y.outerStride();
    task.valid = panels.valid(panel);
    task.fewer = panels.fewer();
    task.add = add;
  }

  void aim(Task<S>& task, const Panelled<S>& y, bool add, Index panel, Index column) const {
    task.y = y.at(panel, column);
    task.packet = y.panels.width();
    task.column = y.panels.height(panel);
    task.valid = task.packet;
    task.fewer = 0;
    task.add = add;
  }

  /// A panel with a column that is alone.
  void alone(Task<S>& task, const std::vector<Right<S>>& b, Index panel, Index column) const {
    task.right = b.data();
    task.pieces = std::ssize(b);
    task.first = column;
    task.left = packed_.at(panel, 0);
    task.next = packed_.panels.height(panel);
    (*tiles_)(packed_.panels.packets(panel), Tiles<S>::packed, task);
  }

  template <class After, class Aim>
  void tiles(const std::vector<Right<S>>& b, Index first, Index count, Span which, After&& after,
             Aim&& aim) const {
    const Panels& panels = packed_.panels;
    // From further away a panel comes in parts of its depth, which leave room for the part that comes next.
    const bool distant = far<S>(packed_.size());
    const Index parts = distant ? (packed_.columns + nearest<S>(panels) - 1) / nearest<S>(panels) : 1;
    const Index end = first + count;
    for (; first < end; first += column_block) {
      const Index block = std::min(column_block, end - first);
      Index from = 0, before = 0;  // pieces, and their depth
      for (Index part = 1; part <= parts; ++part) {
        Task<S> task{};
        task.right = b.data() + from;
        Index to = std::ssize(b), depth = packed_.columns - before;
        if (part < parts)
          for (to = from, depth = 0; (before + depth) * parts < part * packed_.columns; ++to)
            depth += b[static_cast<std::size_t>(to)].depth;
        task.pieces = to - from;
        for (Index panel = which.begin; panel < which.end; ++panel) {
          task.left = packed_.at(panel, before);
          task.next = panels.height(panel);
          task.ahead = task.left;
          if (distant)
            fetch(task, packed_.at(panel + 1 < which.end ? panel + 1 : which.begin, before), block, depth);
          balanced(first, block, Tiles<S>::columns, [&](Index column, Index columns) {
            task.first = column;
            aim(task, panel, column);
            task.add |= from > 0;
            (*tiles_)(panels.packets(panel), columns, task);
            if (part == parts) after(panel, column, columns);
          });
        }
        from = to;
        before += depth;
      }
    }
  }

  void pack_all();
  /// How many rows of a packet are among the first `rows`: all that are valid, or none.
  Index real(Index rows, Index panel, Index packet) const {
    const Panels& panels = packed_.panels;
    return panels.row(panel) + packet * panels.packet() < rows ? panels.valid(panel, packet) : 0;
  }
  template <class P, int packets>
  void pack_rows(const Block& block, Index panel, S* to) const;
  template <class P>
  static void pack_transposed(const Block& block, Index row, Index valid, S* to, Index next);

  const Tiles<S>* tiles_ = nullptr;
  Panelled<S> packed_;
  std::vector<Block> blocks_;
  const std::uint64_t* version_ = nullptr;
  std::uint64_t packed_version_ = ~std::uint64_t{0};
};

/// So many columns in tiles, all but equal.
template <class S>
struct Strips {
  explicit Strips(Index columns)
      : count((columns + Tiles<S>::columns - 1) / Tiles<S>::columns),
        each(count > 1 ? columns / count : columns),
        wider(columns - each * count) {}

  /// The first column of a tile, and how many it has.
  struct Strip {
    Index first, columns;
  };
  Strip operator[](Index i) const { return {i * each + std::min(i, wider), each + (i < wider ? 1 : 0)}; }

  Index count, each, wider;
};

/// What a left factor A meets in a sum of outer products, y += A b^T: as in the gradient of a weight.
template <class S>
struct Outer {
  MatrixMap<S> y;
  Span packets;  // of each panel of A: those that have rows in y
  const S* b;
  Index outer;  // from one column of b to the next
  Strips<S> strips{y.cols()};
};

template <class S>
using Outers = std::type_identity_t<std::span<const Outer<S>>>;

/// Adds up all terms over the columns `columns` of A and their b: a share of all sums. A is read once for several terms.
template <class S>
void add_outer_products(Outers<S> terms, const Panelled<S>& a, Span columns, Part part);

/// The same for a plain A, whose rows would lie in these panels: Panels::plain(rows).
template <class S>
void add_outer_products(Outers<S> terms, const MatrixMap<S>& a, const Panels& panels, Span columns,
                        Part part);

extern template class Factor<float>;
extern template class Factor<double>;

}  // namespace bptt
