#include "kernel/tile.h"

#include <bit>

#include "kernel/unrolled.h"

namespace bptt {
namespace {

using namespace Eigen::internal;

/// V packets by C columns, with U sums for each number of y.
template <class P, int V, int C, int U>
void run(Task<ScalarOf<P>>& task) {
  using S = ScalarOf<P>;
  constexpr Index W = width_of<P>;
  P sums[U][V][C];
  unrolled<U>([&](auto u) {
    unrolled<V>([&](auto v) { unrolled<C>([&](auto c) { sums[u][v][c] = pset1<P>(S(0)); }); });
  });

  const S* a = task.left;
  [[maybe_unused]] const S* ahead = task.ahead;
  const Index next = task.next;
  const auto step = [&](auto u, const S* b, Index column) BPTT_INLINED {
    P numbers[C];
    unrolled<C>([&](auto c) { numbers[c] = pset1<P>(b[c * column]); });
    unrolled<V>([&](auto v) {
      const P rows = ploadu<P>(a + u * next + v * W);
      unrolled<C>([&](auto c) { sums[u][v][c] = pmadd(rows, numbers[c], sums[u][v][c]); });
    });
    if constexpr (C > 1) {
      prefetch(ahead);
      ahead += task.pace;
    }
  };
  for (Index i = 0; i < task.pieces; ++i) {
    const Right<S> right = task.right[i];
    const S* b = right.data + task.first * right.column;
    Index rest = right.depth;
    for (; rest >= U; rest -= U, a += U * next, b += U * right.step)
      unrolled<U>([&](auto u) { step(u, b + u * right.step, right.column); });
    unrolled<U - 1>([&](auto u) {
      if (u < rest) step(u, b + u * right.step, right.column);
    });
    if constexpr (U > 1) a += rest * next;
  }
  if constexpr (C > 1) task.ahead = ahead;
  unrolled<std::countr_zero(unsigned{U})>([&](auto level) {
    constexpr int half = U >> (level + 1);
    unrolled<half>([&](auto u) {
      unrolled<V>([&](auto v) {
        unrolled<C>([&](auto c) { sums[u][v][c] = padd(sums[u][v][c], sums[u + half][v][c]); });
      });
    });
  });

  // All loads come before the first store: a load that overlaps a packet of which a part was just stored waits until that
  // has reached the cache.
  const bool whole = task.valid - (V - 1) * task.fewer >= W;
  const auto each = [&](auto&& f) BPTT_INLINED {
    unrolled<V>([&](auto v) {
      unrolled<C>([&](auto c) { f(task.y + v * task.packet + c * task.column, v, sums[0][v][c]); });
    });
  };
  if (whole) {
    if (task.add) each([&](S* y, auto, P& sum) { sum = padd(ploadu<P>(y), sum); });
    each([&](S* y, auto, const P& sum) { pstoreu(y, sum); });
    return;
  }
  First<P> first[V];
  unrolled<V>([&](auto v) { first[v] = First<P>(std::max<Index>(task.valid - v * task.fewer, 0)); });
  if (task.add) each([&](S* y, auto v, P& sum) { sum = padd(first[v].load(y), sum); });
  each([&](S* y, auto v, const P& sum) { first[v].store(y, sum); });
}

template <class P, int V, int... C>
void fill(typename Tiles<ScalarOf<P>>::Run* row, std::integer_sequence<int, C...>) {
  row[0] = run < P, V, 1, V >= 3 ? 2 : 4 > ;
  ((row[C + 1] = run<P, V, C + 1, 1>), ...);
}

template <class P>
Tiles<ScalarOf<P>> make() {
  using T = Tiles<ScalarOf<P>>;
  constexpr std::make_integer_sequence<int, static_cast<int>(T::columns)> columns;
  T tiles{width_of<P>, {}};
  fill<P, 1>(tiles.run[0], columns);
  fill<P, 2>(tiles.run[1], columns);
  fill<P, 3>(tiles.run[2], columns);
  fill<P, 4>(tiles.run[3], columns);
  return tiles;
}

}  // namespace

template <class S>
const Tiles<S>& Tiles<S>::of(Index width) {
  return *with_packet<S>(width, []<class P>(P*) {
    static const Tiles tiles = make<P>();
    return &tiles;
  });
}

template struct Tiles<float>;
template struct Tiles<double>;

}  // namespace bptt
