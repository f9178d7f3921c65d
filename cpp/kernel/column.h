// Products with a column that is alone, in line: sums stay in registers, and whoever wants them goes on with them there.
#pragma once

#include <bit>
#include <span>

#include "kernel/panels.h"
#include "kernel/unrolled.h"

namespace bptt {

/// Calls f(n) with the constant n that a number of at least 1 and at most `most` is.
template <int most, class F>
BPTT_INLINED inline void constant(Index number, F&& f) {
  unrolled<most>([&](auto n) BPTT_INLINED {
    if (number == n + 1) f(std::integral_constant<int, n + 1>());
  });
}

/// V packets that lie side by side.
template <class P, int V>
BPTT_INLINED inline Eigen::internal::PacketBlock<P, V> load_block(const ScalarOf<P>* from) {
  Eigen::internal::PacketBlock<P, V> block;
  unrolled<V>([&](auto v)
                  BPTT_INLINED { block.packet[v] = Eigen::internal::ploadu<P>(from + v * width_of<P>); });
  return block;
}

/// What sums begin with when there is nothing to begin with.
template <class S>
inline constexpr S zeros[Tiles<S>::packets * width_of<FullPacket<S>>] = {};

/// `sum` + A b, as V packets of rows, for one column of b, whose pieces stand below one another. Of A, V packets for each
/// step of the depth are `next` from those before; `packed`, they lie side by side, and so do the numbers of each piece of
/// b. Several sums along the depth make up for the time that each addition takes.
template <class P, int V, bool packed = false>
BPTT_INLINED inline Eigen::internal::PacketBlock<P, V> column_product(
    const Eigen::internal::PacketBlock<P, V>& sum, const ScalarOf<P>* a, Index next,
    std::span<const Right<ScalarOf<P>>> b, Index column) {
  using namespace Eigen::internal;
  using S = ScalarOf<P>;
  constexpr int U = V >= 3 ? 2 : 4;
  if constexpr (packed) next = V * width_of<P>;
  PacketBlock<P, V> sums[U];
  sums[0] = sum;
  unrolled<U - 1>([&](auto u) { unrolled<V>([&](auto v) { sums[u + 1].packet[v] = pset1<P>(S(0)); }); });
  for (const Right<S>& right : b) {
    const S* const numbers = right.data + column * right.column;
    const Index step = packed ? 1 : right.step, rest = right.depth & (U - 1), whole = right.depth - rest;
    const auto multiply = [&](auto u, const S* rows, const S* from) BPTT_INLINED {
      const P number = pset1<P>(from[u * step]);
      unrolled<V>([&](auto v) BPTT_INLINED {
        sums[u].packet[v] = pmadd(ploadu<P>(rows + u * next + v * width_of<P>), number, sums[u].packet[v]);
      });
    };
    const S* const end = a + whole * next;
    for (const S* from = numbers; a != end; a += U * next, from += U * step)
      unrolled<U>([&](auto u) BPTT_INLINED { multiply(u, a, from); });
    unrolled<U - 1>([&](auto u) BPTT_INLINED {
      if (u < rest) multiply(u, end, numbers + whole * step);
    });
    a = end + rest * next;
  }
  unrolled<std::countr_zero(unsigned{U})>([&](auto level) {
    constexpr int half = U >> (level + 1);
    unrolled<half>([&](auto u) {
      unrolled<V>([&](auto v) { sums[u].packet[v] = padd(sums[u].packet[v], sums[u + half].packet[v]); });
    });
  });
  return sums[0];
}

/// A^T b of so few columns of A at most.
template <class P>
inline constexpr int most_dots = std::min<int>(width_of<P>, 8);

/// The other way: dot products of b with a few columns of A, of which each lane of a packet has a part. So no transpose has
/// to be packed, which for so few would take longer than all products with it. It is always the same number of columns,
/// `most_dots`, which lie in memory that can be read, whatever it holds.
template <class P>
class Dots {
  using S = ScalarOf<P>;
  static constexpr int W = width_of<P>;

 public:
  BPTT_INLINED Dots() {
    unrolled<W>([&](auto k) BPTT_INLINED { parts_.packet[k] = Eigen::internal::pset1<P>(S(0)); });
  }

  /// Adds some rows, V packets, of A's columns, which are `next` apart.
  template <int V>
  BPTT_INLINED void add(const S* a, Index next, const Eigen::internal::PacketBlock<P, V>& b) {
    using namespace Eigen::internal;
    unrolled<most_dots<P>>([&](auto k) BPTT_INLINED {
      unrolled<V>([&](auto v) BPTT_INLINED {
        parts_.packet[k] = pmadd(ploadu<P>(a + k * next + v * W), b.packet[v], parts_.packet[k]);
      });
    });
  }

  /// The first n numbers, and zeros behind them.
  BPTT_INLINED P sums(Index n) {
    using namespace Eigen::internal;
    ptranspose(parts_);
    unrolled<std::countr_zero(unsigned{W})>([&](auto level) BPTT_INLINED {
      constexpr int half = W >> (level + 1);
      unrolled<half>(
          [&](auto k) BPTT_INLINED { parts_.packet[k] = padd(parts_.packet[k], parts_.packet[k + half]); });
    });
    const P number = plset<P>(S(0));
    return pand(pcmp_lt(number, pset1<P>(static_cast<S>(n))), parts_.packet[0]);
  }

 private:
  Eigen::internal::PacketBlock<P, W> parts_;
};

}  // namespace bptt
