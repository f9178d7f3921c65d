#include "kernel/tile.h"

#include "kernel/column.h"

namespace bptt {
namespace {

using namespace Eigen::internal;

/// Writes the sums of V packets by C columns, or adds them.
template <class P, int V, int C>
BPTT_INLINED inline void write(const Task<ScalarOf<P>>& task, PacketBlock<P, V> (&sums)[C]) {
  using S = ScalarOf<P>;
  // All loads come before the first store: a load that overlaps a packet of which a part was just stored waits until that
  // has reached the cache.
  const bool whole = task.valid - (V - 1) * task.fewer >= width_of<P>;
  const auto each = [&](auto&& f) BPTT_INLINED {
    unrolled<V>([&](auto v) {
      unrolled<C>([&](auto c) { f(task.y + v * task.packet + c * task.column, v, sums[c].packet[v]); });
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

template <class P, int V, int C>
void run(Task<ScalarOf<P>>& task) {
  using S = ScalarOf<P>;
  PacketBlock<P, V> sums[C];
  unrolled<C>([&](auto c) { unrolled<V>([&](auto v) { sums[c].packet[v] = pset1<P>(S(0)); }); });
  const S *a = task.left, *ahead = task.ahead;
  const Index next = task.next;
  for (Index i = 0; i < task.pieces; ++i) {
    const Right<S> right = task.right[i];
    const S* b = right.data + task.first * right.column;
    for (Index rest = right.depth; rest > 0; --rest, a += next, b += right.step) {
      P numbers[C];
      unrolled<C>([&](auto c) { numbers[c] = pset1<P>(b[c * right.column]); });
      unrolled<V>([&](auto v) {
        const P rows = ploadu<P>(a + v * width_of<P>);
        unrolled<C>([&](auto c) { sums[c].packet[v] = pmadd(rows, numbers[c], sums[c].packet[v]); });
      });
      if constexpr (C > 1) {
        prefetch(ahead);
        ahead += task.pace;
      }
    }
  }
  if constexpr (C > 1) task.ahead = ahead;
  write<P, V, C>(task, sums);
}

template <class P, int V, bool packed>
void run_alone(Task<ScalarOf<P>>& task) {
  PacketBlock<P, V> sums[1] = {
      column_product<P, V, packed>(load_block<P, V>(zeros<ScalarOf<P>>), task.left, task.next,
                                   {task.right, static_cast<std::size_t>(task.pieces)}, task.first)};
  write<P, V, 1>(task, sums);
}

template <class P, int V, int... C>
void fill(typename Tiles<ScalarOf<P>>::Run* row, std::integer_sequence<int, C...>) {
  row[Tiles<ScalarOf<P>>::alone] = run_alone<P, V, false>;
  row[Tiles<ScalarOf<P>>::packed] = run_alone<P, V, true>;
  ((row[C + 1] = run<P, V, C + 1>), ...);
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
