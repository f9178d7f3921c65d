#include "kernel/tile.h"

#include <utility>

namespace bptt {
namespace {

using namespace Eigen::internal;

/// V packets by C columns, with U sums for each number of y.
template <class P, int V, int C, int U>
void run(Task<ScalarOf<P>>& task) {
  using S = ScalarOf<P>;
  constexpr Index W = width_of<P>;
  P sums[U][V][C];
  for (int u = 0; u < U; ++u)
    for (int v = 0; v < V; ++v)
      for (int c = 0; c < C; ++c) sums[u][v][c] = pset1<P>(S(0));

  const S* a = task.left;
  [[maybe_unused]] const S* ahead = task.ahead;
  const auto step = [&](int u, const S* b, Index column) {
    P numbers[C];
    for (int c = 0; c < C; ++c) numbers[c] = pset1<P>(b[c * column]);
    for (int v = 0; v < V; ++v) {
      const P rows = ploadu<P>(a + v * W);
      for (int c = 0; c < C; ++c) sums[u][v][c] = pmadd(rows, numbers[c], sums[u][v][c]);
    }
    a += task.next;
    if constexpr (C > 1) {
      prefetch(ahead);
      ahead += task.pace;
    }
  };
  for (Index i = 0; i < task.pieces; ++i) {
    const Right<S> right = task.right[i];
    const S* b = right.data + task.first * right.column;
    Index k = 0;
    for (; k + U <= right.depth; k += U)
      for (int u = 0; u < U; ++u, b += right.step) step(u, b, right.column);
    if constexpr (U > 1)
      for (; k < right.depth; ++k, b += right.step) step(0, b, right.column);
  }
  if constexpr (C > 1) task.ahead = ahead;
  for (int n = U; n > 1; n /= 2)
    for (int u = 0; u < n / 2; ++u)
      for (int v = 0; v < V; ++v)
        for (int c = 0; c < C; ++c) sums[u][v][c] = padd(sums[u][v][c], sums[u + n / 2][v][c]);

  // All loads come before the first store: a load that overlaps a packet of which a part was just stored waits until that
  // has reached the cache.
  const bool whole = task.valid - (V - 1) * task.fewer >= W;
  const auto at = [&](int v, int c) { return task.y + v * task.packet + c * task.column; };
  const auto valid = [&](int v) { return std::max<Index>(task.valid - v * task.fewer, 0); };
  if (task.add)
    for (int c = 0; c < C; ++c)
      for (int v = 0; v < V; ++v)
        sums[0][v][c] = padd(whole ? ploadu<P>(at(v, c)) : load_first<P>(at(v, c), valid(v)), sums[0][v][c]);
  for (int c = 0; c < C; ++c)
    for (int v = 0; v < V; ++v)
      if (whole)
        pstoreu(at(v, c), sums[0][v][c]);
      else
        store_first<P>(at(v, c), sums[0][v][c], valid(v));
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
