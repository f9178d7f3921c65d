// Matrix products, each in the way that suits its size. Nothing here allocates.
//
// Many columns: the register-tiled kernel, over a left factor packed in panels, [panel][depth][rows of the
// panel], so that it is read as one stream. One column: Eigen's matrix-vector product. Next to nothing: plain
// loops.
#pragma once

#include <cstdint>

#include "kernel/tile.h"

namespace bptt {

using Index = std::ptrdiff_t;

template <class S>
using Matrix = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic>;
/// A block of memory seen as a matrix, column-major, its columns `outerStride()` numbers apart.
template <class S>
using MatrixMap = Eigen::Map<Matrix<S>, Eigen::Unaligned, Eigen::OuterStride<>>;

/// Products of fewer multiplications than this are not worth a tile.
inline constexpr Index few_multiplications = 1024;

namespace detail {

/// Columns and depth are taken in blocks that stay in the inner caches while all rows pass over them.
inline constexpr Index depth_block = 512, column_block = 96;

/// y (+)= A b. `panel(row, packets, k)` says where A's panel of so many packets from `row` on has its column
/// k, and how far it is to the next column. Element (k, c) of b is b[k * b_depth + c * b_column].
template <class S, class Panel>
void tiled(MatrixMap<S> y, Index depth, Panel&& panel, const S* b, Index b_depth, Index b_column, bool add) {
  using T = Tile<S>;
  for (Index k = 0; k < depth; k += depth_block)
    for (Index from = 0; from < y.cols(); from += column_block) {
      const Index columns = std::min(column_block, y.cols() - from);
      const Index blocks = (columns + T::columns - 1) / T::columns;
      for (Index row = 0; row < y.rows(); row += T::rows) {
        const Index rows = std::min(T::rows, y.rows() - row), packets = T::packets(rows);
        const auto [a, next] = panel(row, packets, k);
        Index column = from;
        for (Index i = 0; i < blocks; ++i) {  // balanced: 32 columns are 6 6 5 5 5 5, not 6 6 6 6 6 2
          const Index count = columns / blocks + (i < columns % blocks ? 1 : 0);
          T::pick(packets,
                  count)({std::min(depth_block, depth - k), a, next, b + k * b_depth + column * b_column,
                          b_depth, b_column, &y(row, column), y.outerStride(), rows, add || k > 0});
          column += count;
        }
      }
    }
}

}  // namespace detail

/// y += a b^T: the sum over all columns of a and b, as in the gradient of a weight.
template <class S>
void add_outer_product(MatrixMap<S> y, const MatrixMap<S>& a, const MatrixMap<S>& b) {
  if (y.size() * a.cols() < few_multiplications || y.rows() < Tile<S>::width) {
    y += a.lazyProduct(b.transpose());
  } else {
    // Whole packets of rows are read from `a` where it lies; the last few rows are done apart, since beyond
    // them is not ours.
    const Index whole = y.rows() / Tile<S>::width * Tile<S>::width;
    const auto panel = [&](Index row, Index, Index k) {
      return std::pair(a.data() + row + k * a.outerStride(), a.outerStride());
    };
    detail::tiled<S>({y.data(), whole, y.cols(), Eigen::OuterStride<>(y.outerStride())}, a.cols(), panel,
                     b.data(), b.outerStride(), 1, true);
    const Index rest = y.rows() - whole;
    if (rest > 0) y.bottomRows(rest) += a.bottomRows(rest).lazyProduct(b.transpose());
  }
}

/// A left factor W, or W^T, that many columns are multiplied with before it changes.
template <class S>
class Factor {
 public:
  Factor() = default;

  /// `memory` holds packed_size() numbers, or is null if every product will have one column. `version`
  /// changes whenever W does; without it W is packed anew each time.
  Factor(MatrixMap<S> w, bool transposed, S* memory, const std::uint64_t* version)
      : w_(w.data()),
        rows_(w.rows()),
        columns_(w.cols()),
        outer_(w.outerStride()),
        transposed_(transposed),
        packed_(memory),
        version_(version) {}

  static Index packed_size(Index rows, Index depth) {
    return Tile<S>::packets(rows) * Tile<S>::width * depth;
  }

  /// The same for another W of the same shape, which differs from call to call.
  Factor& at(MatrixMap<S> w) {
    w_ = w.data();
    outer_ = w.outerStride();
    packed_version_ = unpacked;
    return *this;
  }

  /// y = W x or y = W^T x.
  void set(MatrixMap<S> y, const MatrixMap<S>& x) { apply(y, x, false); }
  /// y += W x or y += W^T x.
  void add(MatrixMap<S> y, const MatrixMap<S>& x) { apply(y, x, true); }

 private:
  void apply(MatrixMap<S>& y, const MatrixMap<S>& x, bool add) {
    const MatrixMap<S> w(w_, rows_, columns_, Eigen::OuterStride<>(outer_));
    if (y.cols() == 1) {
      if (!add) y.setZero();
      if (transposed_)
        y.col(0).noalias() += w.transpose() * x.col(0);
      else
        y.col(0).noalias() += w * x.col(0);
    } else if (y.size() * x.rows() < few_multiplications || !packed_) {
      if (!add) y.setZero();
      if (transposed_)
        y += w.transpose().lazyProduct(x);
      else
        y += w.lazyProduct(x);
    } else {
      pack(w);
      const Index depth = x.rows();
      const auto panel = [&](Index row, Index packets, Index k) {
        const Index next = packets * Tile<S>::width;
        return std::pair(packed_ + row * depth + k * next, next);
      };
      detail::tiled<S>(y, depth, panel, x.data(), 1, x.outerStride(), add);
    }
  }

  void pack(const MatrixMap<S>& w) {
    const std::uint64_t now = version_ ? *version_ : unpacked;
    if (packed_version_ == now && now != unpacked) return;
    packed_version_ = now;
    const Index rows = transposed_ ? columns_ : rows_, depth = transposed_ ? rows_ : columns_;
    S* to = packed_;
    for (Index row = 0; row < rows; row += Tile<S>::rows) {
      const Index count = std::min(Tile<S>::rows, rows - row),
                  padded = Tile<S>::packets(count) * Tile<S>::width;
      for (Index k = 0; k < depth; ++k, to += padded) {
        for (Index r = 0; r < count; ++r) to[r] = transposed_ ? w(k, row + r) : w(row + r, k);
        std::fill(to + count, to + padded, S(0));
      }
    }
  }

  S* w_ = nullptr;
  Index rows_ = 0, columns_ = 0, outer_ = 1;
  bool transposed_ = false;
  S* packed_ = nullptr;
  const std::uint64_t* version_ = nullptr;
  static constexpr std::uint64_t unpacked = ~std::uint64_t{0};
  std::uint64_t packed_version_ = unpacked;
};

}  // namespace bptt
