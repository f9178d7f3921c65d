#include "kernel/dots.h"

#include <bit>

#include "kernel/unrolled.h"

namespace bptt {
namespace {

using namespace Eigen::internal;

/// N dot products: of each, every lane of a packet has a part.
template <class P, int N>
void run(const DotTask<ScalarOf<P>>& task) {
  using S = ScalarOf<P>;
  constexpr Index W = width_of<P>;
  PacketBlock<P, W> parts;
  unrolled<W>([&](auto n) { parts.packet[n] = pset1<P>(S(0)); });
  const Panels& panels = task.left.panels;
  for (Index panel = 0; panel < panels.count(); ++panel) {
    const Right<S>& right = task.right[static_cast<std::size_t>(panel)];
    const S* a = task.left.at(panel, task.first);
    const S* b = right.data + task.column * right.column;
    const Index next = panels.height(panel);
    const auto meet = [&](const P& numbers) BPTT_INLINED {
      unrolled<N>(
          [&](auto n) { parts.packet[n] = pmadd(ploadu<P>(a + n * next), numbers, parts.packet[n]); });
    };
    Index rest = right.depth;
    for (; rest >= W; rest -= W, a += W, b += W) meet(ploadu<P>(b));
    if (rest > 0) meet(First<P>(rest).load(b));
  }
  ptranspose(parts);
  unrolled<std::countr_zero(unsigned{W})>([&](auto level) {
    constexpr int half = W >> (level + 1);
    unrolled<half>([&](auto n) { parts.packet[n] = padd(parts.packet[n], parts.packet[n + half]); });
  });
  const First<P> valid(task.valid);
  valid.store(task.y, task.add ? padd(valid.load(task.y), parts.packet[0]) : parts.packet[0]);
}

template <class P, int... N>
Dots<ScalarOf<P>> make(std::integer_sequence<int, N...>) {
  return {width_of<P>, {run<P, N + 1>...}};
}

}  // namespace

template <class S>
const Dots<S>& Dots<S>::of(Index width) {
  return *with_packet<S>(width, []<class P>(P*) {
    constexpr int most = static_cast<int>(std::min(width_of<P>, Dots::most));
    static const Dots dots = make<P>(std::make_integer_sequence<int, most>());
    return &dots;
  });
}

template struct Dots<float>;
template struct Dots<double>;

}  // namespace bptt
