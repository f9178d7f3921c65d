#include "kernel/product.h"

#include <limits>

namespace bptt {
namespace {

/// Sums over columns are taken in blocks of so many, for so many columns of y at a time.
constexpr Index depth_block = 512, outer_block = 48;

/// Memory is found by pages of so many bytes: a few at a time.
constexpr Index page = 4096;
/// Columns that begin at most so many bytes apart are read where they lie.
constexpr Index apart = page / 4;

/// Calls f(term, first, end) for the terms that have some of the tiles from `from` on, and which of theirs these are.
template <class S, class F>
void each_term(std::span<const Outer<S>> terms, Index from, Index count, F&& f) {
  for (const Outer<S>& term : terms) {
    const Index first = std::max<Index>(from, 0), end = std::min(from + count, term.strips.count);
    if (first < end) f(term, first, end);
    from -= term.strips.count;
  }
}

/// How many packets of a panel have rows in y.
template <class S>
Index packets_of(const Outer<S>& term, const Panels& panels, Index panel) {
  return std::min(term.packets.end, panels.packets(panel)) - term.packets.begin;
}

/// What one thread does of all panels and tiles: some of the tiles, with all panels; or, where these are few, some of the
/// panels. So b, whose columns are read a few numbers at a time, is read by one thread alone.
struct Share {
  Share(Index panels, Index tiles, Part part) : panels{0, panels}, tiles{0, tiles} {
    constexpr Index few = 8;
    if (part.count == 1) return;
    if (tiles < few * part.count)
      this->panels = part.of(panels);
    else
      this->tiles = part.of(tiles);
  }
  Span panels, tiles;
};

/// A share of y += A b^T for all terms, sums taken over the columns `columns`, with all panels passing over so many tiles
/// at a time; left(task, panel, next, k, count) says where A's panel lies from its column k on, and which comes after it.
/// In `room`, if it is there, those columns of b are gathered that lie far apart, as many as the tiles have.
template <class S, class Left>
void outer_products(std::span<const Outer<S>> terms, const Panels& panels, Span columns, Part part,
                    Index block, S* room, Left&& left) {
  constexpr Index many_steps = 64;  // from which on it pays to ask for y before
  constexpr Index wide = Tiles<S>::columns;
  const Tiles<S>& tiles = Tiles<S>::of(panels.width());
  Right<S> right{};
  Task<S> task{};
  task.right = &right;
  task.pieces = 1;
  task.packet = panels.packet();
  task.fewer = panels.fewer();
  task.add = true;
  Index all = 0;
  for (const Outer<S>& term : terms) all += term.strips.count;
  const Share share(panels.count(), all, part);
  const Span which = share.panels, some = share.tiles;
  const bool gathers = room && which.end - which.begin >= 8;
  const auto gathered = [&](const Outer<S>& term) {
    return gathers && term.outer >= page / 2 / Index{sizeof(S)};
  };
  for (Index k = columns.begin; k < columns.end; k += depth_block) {
    const Index depth = std::min(depth_block, columns.end - k);
    balanced(some.begin, some.end - some.begin, block, [&](Index from, Index count) {
      S* to = room;
      const auto collect = [&](const Outer<S>& term, Index i, Index end) {
        if (!gathered(term)) return;
        for (; i < end; ++i) {
          const auto [column, n] = term.strips[i];
          const S* b = term.b + k * term.outer + column;
          for (Index step = 0; step < depth; ++step, b += term.outer, to += wide)
            n == wide ? std::copy_n(b, wide, to) : std::copy_n(b, n, to);  // the first without a call
        }
      };
      if (gathers) each_term(terms, from, count, collect);
      for (Index panel = which.begin; panel < which.end; ++panel) {
        task.next = panels.height(panel);
        task.valid = panels.valid(panel);
        left(task, panel, panel + 1 < which.end ? panel + 1 : which.begin, k, count);
        const S* const begin = task.left;
        const S* gathering = room;
        each_term(terms, from, count, [&](const Outer<S>& term, Index i, Index end) {
          MatrixMap<S> y = term.y;
          const bool alone = y.cols() == 1, gather = gathered(term);
          const Index rows = packets_of(term, panels, panel);
          right = {term.b + k * term.outer, depth, gather ? wide : term.outer, 1};
          task.left = begin + term.packets.begin * panels.width();
          task.column = y.outerStride();
          for (; i < end; ++i) {
            const auto [column, n] = term.strips[i];
            task.first = column;
            if (gather) {
              right.data = gathering - column;
              gathering += depth * wide;
            }
            task.y = y.data() + panels.row(panel) + column * task.column;
            if (depth >= many_steps)
              for (Index c = 0; c < n; ++c)
                for (Index v = 0; v < rows; ++v)
                  Eigen::internal::prefetch(task.y + v * task.packet + c * task.column);
            tiles(rows, alone ? Tiles<S>::alone : n, task);
          }
        });
      }
    });
  }
}

/// So few steps, and packets of sums, are done in line: that takes less than to set out tiles.
constexpr Index few_steps = 16, few_sums = 64;

template <class S>
bool are_few(std::span<const Outer<S>> terms, const Panels& panels, Span columns) {
  return panels.count() == 1 && columns.end - columns.begin <= few_steps &&
         std::ranges::all_of(terms, [&](const Outer<S>& term) {
           return term.y.cols() * packets_of(term, panels, 0) <= few_sums;
         });
}

/// Then: a panel that is alone, of which left(first, v, k) is the v-th packet of column k, and its real numbers are the
/// `first`. All sums of a term are there before the first is written: where packets reach over into the next column, its load
/// would wait for their stores (as in a tile).
template <class P, class S, class Left>
void add_in_line(std::span<const Outer<S>> terms, const Panels& panels, Span columns, const Left left) {
  using namespace Eigen::internal;
  constexpr Index W = width_of<P>;
  const Index packet = panels.packet(), steps = columns.end - columns.begin;
  S sums[few_sums * W];
  for (const Outer<S>& term : terms)
    constant<Tiles<S>::packets>(packets_of(term, panels, 0), [&](auto V) BPTT_INLINED {
      constexpr int most = V == 1 ? 4 : V == 2 ? 2 : 1;  // columns at a time
      First<P> first[V];
      unrolled<V>([&](auto v) { first[v] = First<P>(panels.valid(0, v)); });
      const Index outer = term.outer, cols = term.y.cols(), next = term.y.outerStride();
      S* const y = const_cast<S*>(term.y.data());
      for (Index c = 0; c < cols; c += most)
        constant<most>(std::min<Index>(most, cols - c), [&](auto C) BPTT_INLINED {
          PacketBlock<P, V> block[C];
          const auto each = [&](auto&& f) BPTT_INLINED {
            unrolled<C>([&](auto i) BPTT_INLINED {
              unrolled<V>([&](auto v) BPTT_INLINED { f(i, v, block[i].packet[v]); });
            });
          };
          each([&](auto i, auto v, P& sum)
                   BPTT_INLINED { sum = first[v].load(y + (c + i) * next + v * packet); });
          const S* b = term.b + columns.begin * outer + c;
          for (Index k = 0; k < steps; ++k, b += outer)
            each([&](auto i, auto v, P& sum) BPTT_INLINED {
              sum = pmadd(left(first[v], term.packets.begin + v, columns.begin + k), pset1<P>(b[i]), sum);
            });
          each([&](auto i, auto v, const P& sum)
                   BPTT_INLINED { pstoreu(sums + ((c + i) * V + v) * W, sum); });
        });
      for (Index c = 0; c < cols; ++c)
        unrolled<V>([&](auto v) BPTT_INLINED {
          first[v].store(y + c * next + v * packet, ploadu<P>(sums + (c * V + v) * W));
        });
    });
}

}  // namespace

template <class S>
void Factor<S>::pack_all() {
  const Panels& panels = packed_.panels;
  with_packet<S>(panels.width(), [&]<class P>(P*) {
    Index before = 0;  // depth of the blocks to the left
    for (const Block& block : blocks_) {
      for (Index panel = 0; panel < panels.count(); ++panel) {
        S* const to = packed_.at(panel, before);
        const Index packets = panels.packets(panel);
        if (block.transposed)
          for (Index v = 0; v < packets; ++v)
            pack_transposed<P>(block, panels.row(panel) + v * panels.packet(), real(block.w.cols(), panel, v),
                               to + v * width_of<P>, panels.height(panel));
        else
          constant<Tiles<S>::packets>(packets,
                                      [&](auto all) { this->template pack_rows<P, all>(block, panel, to); });
      }
      before += block.depth;
    }
  });
}

/// The rows of a panel, in one pass over the depth.
template <class S>
template <class P, int packets>
void Factor<S>::pack_rows(const Block& block, Index panel, S* to) const {
  const Panels& panels = packed_.panels;
  const S* from[packets];
  First<P> real[packets];
  unrolled<packets>([&](auto v) {
    const Index n = this->real(block.w.rows(), panel, v);
    from[v] = block.w.data() + (n > 0 ? panels.row(panel) + v * panels.packet() : 0);
    real[v] = First<P>(n);
  });
  const Index outer = block.w.outerStride();
  for (Index k = 0; k < block.depth; ++k, to += packets * width_of<P>)
    unrolled<packets>(
        [&](auto v) { Eigen::internal::pstoreu(to + v * width_of<P>, real[v].load(from[v] + k * outer)); });
}

/// The same of W^T, square by square.
template <class S>
template <class P>
void Factor<S>::pack_transposed(const Block& block, Index row, Index valid, S* to, Index next) {
  using namespace Eigen::internal;
  constexpr Index W = width_of<P>;
  const Index outer = block.w.outerStride();
  const auto square = [&](Index k, Index real, Index steps) {
    PacketBlock<P, W> numbers;
    const S* from = block.w.data() + k + row * outer;
    const First<P> first(real);
    for (Index lane = 0; lane < W; ++lane, from += outer)
      numbers.packet[lane] = lane < valid ? first.load(from) : pset1<P>(S(0));
    ptranspose(numbers);
    for (Index step = 0; step < steps; ++step, to += next) pstoreu(to, numbers.packet[step]);
  };
  /// So many steps from row k of W on, of which the first are real.
  const auto run = [&](Index k, Index real, Index steps) {
    for (Index i = 0; i < steps; i += W)
      square(k + i, std::clamp<Index>(real - i, 0, W), std::min(W, steps - i));
  };
  const Panels& order = block.order;
  if (block.packets.end == 0) return run(0, block.depth, block.depth);
  for (Index p = 0; p < order.count(); ++p)
    for (Index v = 0; v < order.depth(p, block.packets) / order.width(); ++v)
      run(order.row(p) + v * order.packet(), order.valid(p, block.packets.begin + v), order.width());
}

template <class S>
void add_outer_products(Outers<S> terms, const Panelled<S>& a, Span columns, Part part) {
  if (are_few<S>(terms, a.panels, columns))
    return part.index > 0 ? void() : with_packet<S>(a.panels.width(), [&]<class P>(P*) {
      add_in_line<P, S>(
          terms, a.panels, columns,
          [from = a.data, height = a.panels.height(0)](const First<P>&, Index v, Index k)
              BPTT_INLINED { return Eigen::internal::ploadu<P>(from + k * height + v * width_of<P>); });
    });
  S room[depth_block * outer_block];
  outer_products<S>(terms, a.panels, columns, part, outer_block / Tiles<S>::columns, room,
                    [&](Task<S>& task, Index panel, Index next, Index k, Index tiles) {
                      task.left = task.ahead = a.at(panel, k);
                      if (far<S>(a.size()))
                        fetch(task, a.at(next, k), tiles * Tiles<S>::columns, depth_block);
                    });
}

template <class S>
void add_outer_products(Outers<S> terms, const MatrixMap<S>& a, const Panels& panels, Span columns,
                        Part part) {
  if (are_few<S>(terms, panels, columns))
    return part.index > 0 ? void() : with_packet<S>(panels.width(), [&]<class P>(P*) {
      add_in_line<P, S>(terms, panels, columns,
                        [from = a.data(), outer = a.outerStride()](const First<P>& first, Index v, Index k)
                            BPTT_INLINED { return first.load(from + k * outer + v * width_of<P>); });
    });
  S copy[depth_block * Tiles<S>::packets * width_of<FullPacket<S>>];
  const auto left = [&]<class P>(Task<S>& task, Index panel, Index k) {
    const S* from = a.data() + panels.row(panel) + k * a.outerStride();
    const Index packets = panels.packets(panel), last = panels.valid(panel, packets - 1);
    task.left = task.ahead = from;
    task.next = a.outerStride();
    if (last == width_of<P> && task.next <= apart / Index{sizeof(S)}) return;
    // What is at work is copied to a panel: A's columns may lie far apart, and its last rows be no whole packet.
    S* to = copy;
    const First<P> rest(last);
    for (Index c = 0; c < std::min(depth_block, columns.end - k); ++c, from += a.outerStride()) {
      for (Index v = 0; v + 1 < packets; ++v, to += width_of<P>)
        Eigen::internal::pstoreu(to, Eigen::internal::ploadu<P>(from + v * width_of<P>));
      Eigen::internal::pstoreu(to, rest.load(from + (packets - 1) * width_of<P>));
      to += width_of<P>;
    }
    task.left = task.ahead = copy;
    task.next = packets * width_of<P>;
  };
  constexpr Index all = std::numeric_limits<Index>::max();  // A is copied once
  with_packet<S>(panels.width(), [&]<class P>(P*) {
    outer_products<S>(terms, panels, columns, part, all, nullptr,
                      [&](Task<S>& task, Index panel, Index, Index k, Index) {
                        left.template operator()<P>(task, panel, k);
                      });
  });
}

template class Factor<float>;
template class Factor<double>;
template void add_outer_products(Outers<float>, const Panelled<float>&, Span, Part);
template void add_outer_products(Outers<double>, const Panelled<double>&, Span, Part);
template void add_outer_products(Outers<float>, const MatrixMap<float>&, const Panels&, Span, Part);
template void add_outer_products(Outers<double>, const MatrixMap<double>&, const Panels&, Span, Part);

}  // namespace bptt
