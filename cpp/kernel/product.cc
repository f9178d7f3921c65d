#include "kernel/product.h"

namespace bptt {
namespace {

/// Sums over columns are taken in blocks that stay in the inner caches while all of y passes over them.
constexpr Index depth_block = 512, column_block = 96;

/// The tiles of y at one panel, over one block of the sum.
template <class S>
void outer_tiles(MatrixMap<S> y, const Panels& panels, Index panel, Span packets, const S* left, Index next,
                 const Right<S>& right, Index from, Index count) {
  const Tiles<S>& tiles = Tiles<S>::of(panels.width());
  const Index skipped = packets.begin * panels.width();
  Task<S> task{};
  task.left = left + skipped;
  task.next = next;
  task.right = &right;
  task.pieces = 1;
  task.packet = panels.packet();
  task.column = y.outerStride();
  task.valid = panels.valid(panel);
  task.fewer = panels.fewer();
  task.add = true;
  balanced(from, count, Tiles<S>::columns, [&](Index column, Index columns) {
    task.first = column;
    task.y = y.data() + panels.row(panel) + column * y.outerStride();
    tiles(std::min(packets.end, panels.packets(panel)) - packets.begin,
          y.cols() == 1 ? Tiles<S>::alone : columns, task);
  });
}

}  // namespace

template <class S>
void Factor<S>::pack() {
  if (!version_ || packed_version_ == *version_) return;
  packed_version_ = *version_;
  const Panels& panels = packed_.panels;
  with_packet<S>(panels.width(), [&]<class P>(P*) {
    Index before = 0;  // depth of the blocks to the left
    for (const Block& block : blocks_) {
      const Index rows = block.transposed ? block.w.cols() : block.w.rows();
      for (Index panel = 0; panel < panels.count(); ++panel)
        for (Index packet = 0; packet < panels.packets(panel); ++packet) {
          const Index row = panels.row(panel) + packet * panels.packet();
          const Index valid = row < rows ? panels.valid(panel, packet) : 0;
          S* const to = packed_.at(panel, before) + packet * panels.width();
          if (block.transposed)
            pack_transposed<P>(block, row, valid, to, panels.height(panel));
          else
            pack_rows<P>(block, row, valid, to, panels.height(panel));
        }
      before += block.depth;
    }
  });
}

/// A packet of rows, of which `valid` are real; the numbers of one step of the depth are `next` from those of the last.
template <class S>
template <class P>
void Factor<S>::pack_rows(const Block& block, Index row, Index valid, S* to, Index next) {
  const S* from = block.w.data() + (valid > 0 ? row : 0);
  for (Index k = 0; k < block.depth; ++k, from += block.w.outerStride(), to += next)
    Eigen::internal::pstoreu(to, load_first<P>(from, valid));
}

/// The same of W^T, square by square.
template <class S>
template <class P>
void Factor<S>::pack_transposed(const Block& block, Index row, Index valid, S* to, Index next) {
  using namespace Eigen::internal;
  constexpr Index W = width_of<P>;
  const auto square = [&](Index k, Index real, Index steps) {
    PacketBlock<P, W> numbers;
    for (Index lane = 0; lane < W; ++lane)
      numbers.packet[lane] =
          lane < valid ? load_first<P>(block.w.data() + k + (row + lane) * block.w.outerStride(), real)
                       : pset1<P>(S(0));
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
void add_outer_product(MatrixMap<S> y, const Panelled<S>& a, Span packets, const S* b, Index outer,
                       Span columns, Span which) {
  for (Index k = columns.begin; k < columns.end; k += depth_block) {
    const Right<S> right{b + k * outer, std::min(depth_block, columns.end - k), outer, 1};
    for (Index from = 0; from < y.cols(); from += column_block)
      for (Index panel = which.begin; panel < which.end; ++panel)
        outer_tiles(y, a.panels, panel, packets, a.at(panel, k), a.panels.height(panel), right, from,
                    std::min(column_block, y.cols() - from));
  }
}

template <class S>
void add_outer_product(MatrixMap<S> y, const MatrixMap<S>& a, const MatrixMap<S>& b, Span which) {
  // A block of A is copied to panels first: its columns may lie far apart, and its last rows be no whole packet.
  constexpr Index block = 256;
  const Panels panels = Panels::plain<S>(y.rows());
  S copy[block * Tiles<S>::packets * width_of<FullPacket<S>>];
  for (Index k = 0; k < a.cols(); k += block) {
    const Right<S> right{b.data() + k * b.outerStride(), std::min(block, a.cols() - k), b.outerStride(), 1};
    for (Index panel = which.begin; panel < which.end; ++panel) {
      const Index height = panels.height(panel), row = panels.row(panel);
      const Index real = std::min(height, y.rows() - row);
      for (Index c = 0; c < right.depth; ++c) {
        std::copy_n(&a(row, k + c), real, copy + c * height);
        std::fill(copy + c * height + real, copy + (c + 1) * height, S(0));
      }
      outer_tiles(y, panels, panel, {0, Tiles<S>::packets}, copy, height, right, 0, y.cols());
    }
  }
}

template class Factor<float>;
template class Factor<double>;
template void add_outer_product(MatrixMap<float>, const Panelled<float>&, Span, const float*, Index, Span,
                                Span);
template void add_outer_product(MatrixMap<double>, const Panelled<double>&, Span, const double*, Index, Span,
                                Span);
template void add_outer_product(MatrixMap<float>, const MatrixMap<float>&, const MatrixMap<float>&, Span);
template void add_outer_product(MatrixMap<double>, const MatrixMap<double>&, const MatrixMap<double>&, Span);

}  // namespace bptt
