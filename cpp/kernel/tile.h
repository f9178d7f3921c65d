// The register tile: y (+)= A b for a few columns b, with a block of y in registers. All products but the smallest are
// made of it.
//
// A tile is up to 4 packets of rows by a few columns; each step along the depth multiplies packets of A with single
// numbers of b. The right factor may lie in several pieces, one after the other along the depth: an input and a state.
#pragma once

#include "kernel/packet.h"

namespace bptt {

/// A piece of a right factor: number (k, c) is data[k * step + c * column], k < depth.
template <class S>
struct Right {
  const S* data;
  Index depth;
  Index step, column;
};

/// What a tile is to do. Its packets of y are `packet` apart, its columns `column`.
template <class S>
struct Task {
  const S* left;  // A: packets * width numbers for each step of the depth
  Index next;     // from one step's numbers to the next
  const Right<S>* right;
  Index pieces;
  Index first;  // column of the right factor
  S* y;
  Index packet, column;
  Index valid, fewer;  // of packet v, only the first valid - v * fewer numbers are written
  bool add;            // to y, or overwrite it
  const S* ahead;      // each step of a tile of several columns asks for what lies here, and goes on by
  Index pace;
};

/// The tiles made of one kind of packet.
template <class S>
struct Tiles {
  using Run = void (*)(Task<S>&);
  /// 4 x 6 sums fill 24 of 32 registers, 4 x 3 sums 12 of 16.
  static constexpr Index packets = 4, columns = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32 ? 6 : 3;
  /// In place of a number of columns: one column that never has a neighbour. Several sums along the depth make up for
  /// the time that each addition takes; their order differs from that of a column among others.
  static constexpr Index alone = 0;
  /// The same where A is packed, all its packets: they and the numbers of each piece of b lie side by side.
  static constexpr Index packed = columns + 1;

  Index width;
  Run run[packets][columns + 2];  // [packets - 1][columns]

  void operator()(Index packets, Index columns, Task<S>& task) const { run[packets - 1][columns](task); }

  /// Those of this width, one that `packet_width` gave.
  static const Tiles& of(Index width);
};

extern template struct Tiles<float>;
extern template struct Tiles<double>;

}  // namespace bptt
