// The register-tiled product: y (+)= A b for a few columns b, with a block of y in registers.
//
// A tile is `vectors` packets of rows by `columns` columns; each step along the depth multiplies packets of A
// with single numbers of b. Written once against Eigen's packets, so the same source serves every instruction
// set Eigen knows.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cstddef>

namespace bptt {

template <class S>
struct Tile {
  using Packet = typename Eigen::internal::packet_traits<S>::type;
  static constexpr std::ptrdiff_t width = Eigen::internal::unpacket_traits<Packet>::size;
  /// 4 x 6 sums fill 24 of AVX-512's 32 registers, 4 x 3 sums 12 of 16.
  static constexpr std::ptrdiff_t vectors = 4;
  static constexpr std::ptrdiff_t columns = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32 ? 6 : 3;
  static constexpr std::ptrdiff_t rows = vectors * width;

  /// A's columns are `next` apart, their rows contiguous. Element (k, c) of b is b[k * b_depth + c *
  /// b_column].
  struct Operands {
    std::ptrdiff_t depth;
    const S* a;
    std::ptrdiff_t next;
    const S* b;
    std::ptrdiff_t b_depth, b_column;
    S* y;
    std::ptrdiff_t y_column;
    std::ptrdiff_t rows;  // of y; A has as many packets of rows as cover them
    bool add;             // to y, or overwrite it
  };

  template <int V, int C>
  static void run(const Operands& o) {
    using namespace Eigen::internal;
    Packet sums[V][C];
    for (int v = 0; v < V; ++v)
      for (int c = 0; c < C; ++c) sums[v][c] = pset1<Packet>(S(0));
    const S* a = o.a;
    const S* b = o.b;
    for (std::ptrdiff_t k = 0; k < o.depth; ++k, a += o.next, b += o.b_depth) {
      Packet numbers[C];
      for (int c = 0; c < C; ++c) numbers[c] = pset1<Packet>(b[c * o.b_column]);
      for (int v = 0; v < V; ++v) {
        const Packet rows = ploadu<Packet>(a + v * width);
        for (int c = 0; c < C; ++c) sums[v][c] = pmadd(rows, numbers[c], sums[v][c]);
      }
    }
    for (int c = 0; c < C; ++c) {
      S* y = o.y + c * o.y_column;
      if (o.rows == V * width) {
        for (int v = 0; v < V; ++v)
          pstoreu(y + v * width, o.add ? padd(ploadu<Packet>(y + v * width), sums[v][c]) : sums[v][c]);
        continue;
      }
      S column[V * width];
      for (int v = 0; v < V; ++v) pstoreu(column + v * width, sums[v][c]);
      for (std::ptrdiff_t r = 0; r < o.rows; ++r) y[r] = o.add ? y[r] + column[r] : column[r];
    }
  }

  using Run = void (*)(const Operands&);

  /// The tile of so many packets by so many columns.
  static Run pick(std::ptrdiff_t v, std::ptrdiff_t c) {
    static constexpr Run all[4][6] = {
        {run<1, 1>, run<1, 2>, run<1, 3>, run<1, 4>, run<1, 5>, run<1, 6>},
        {run<2, 1>, run<2, 2>, run<2, 3>, run<2, 4>, run<2, 5>, run<2, 6>},
        {run<3, 1>, run<3, 2>, run<3, 3>, run<3, 4>, run<3, 5>, run<3, 6>},
        {run<4, 1>, run<4, 2>, run<4, 3>, run<4, 4>, run<4, 5>, run<4, 6>},
    };
    return all[v - 1][c - 1];
  }

  /// Packets that cover so many rows.
  static std::ptrdiff_t packets(std::ptrdiff_t rows) { return (rows + width - 1) / width; }
};

}  // namespace bptt
