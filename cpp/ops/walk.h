// Broadcasting: several operands walked in step over (features, batch, time), as few and as long rows as
// possible.
#pragma once

#include <array>

#include "ops/operation.h"

namespace bptt {

/// The walk of N operands over the shape of the first, which is written; the others have its size or 1 along
/// each axis, and those that are constant in time stand still along it. Axes that all operands step through
/// evenly are merged.
template <class S, std::size_t N>
class Walk {
 public:
  explicit Walk(const std::array<Tensor<S>, N>& operands) {
    const Tensor<S>& out = operands[0];
    Axis features{out.shape.features, {}}, batch{out.shape.batch, {}}, time{1, {}};
    for (std::size_t i = 0; i < N; ++i) {
      const Tensor<S>& x = operands[i];
      features.stride[i] = x.shape.features == 1 ? 0 : 1;
      batch.stride[i] = x.shape.batch == 1 ? 0 : x.outer;
      time.stride[i] = frame_[i] = x.extent == Extent::Frame ? x.shape.size() : 0;
    }
    const bool timed = out.extent == Extent::Frame;
    if (features.extent > 1) push(features);
    if (batch.extent > 1) {
      push(batch);
      batch_ = depth_ - 1;
      lane_ = batch.stride;
      lanes_ = batch.extent;
    }
    if (timed || depth_ == 0) push(time);
    time_ = timed ? depth_ - 1 : -1;
  }

  /// From one number to the next within a row, for operand i.
  Index stride(std::size_t i) const { return axes_[0].stride[i]; }

  /// Calls row(n, offsets) for every row of the range: operand i goes from offsets[i] on, `stride(i)` at a
  /// time.
  template <class F>
  void rows(const Range& range, F&& row) const {
    std::array<Index, 3> extent{1, 1, 1};
    for (int a = 0; a < depth_; ++a) extent[at(a)] = axes_[at(a)].extent;
    std::array<Index, N> start{};
    if (batch_ >= 0 && range.lanes != Range::all) {
      extent[at(batch_)] = extent[at(batch_)] / lanes_ * range.lanes;
      for (std::size_t i = 0; i < N; ++i) start[i] = range.lane * lane_[i];
    }
    if (time_ >= 0) {
      extent[at(time_)] *= range.size();
      for (std::size_t i = 0; i < N; ++i) start[i] += range.begin * frame_[i];
    }
    for (Index outer = 0; outer < extent[2]; ++outer)
      for (Index middle = 0; middle < extent[1]; ++middle) {
        std::array<Index, N> offsets = start;
        for (std::size_t i = 0; i < N; ++i)
          offsets[i] += middle * axes_[1].stride[i] + outer * axes_[2].stride[i];
        row(extent[0], offsets);
      }
  }

 private:
  struct Axis {
    Index extent = 1;
    std::array<Index, N> stride{};
  };

  static std::size_t at(int axis) { return static_cast<std::size_t>(axis); }

  void push(const Axis& axis) {
    if (depth_ > 0) {
      Axis& inner = axes_[at(depth_ - 1)];
      bool even = true;
      for (std::size_t i = 0; i < N; ++i) even &= axis.stride[i] == inner.extent * inner.stride[i];
      if (even) {
        inner.extent *= axis.extent;
        return;
      }
    }
    axes_[at(depth_++)] = axis;
  }

  std::array<Axis, 3> axes_{};
  std::array<Index, N> frame_{};  // from one frame to the next
  std::array<Index, N> lane_{};   // from one lane to the next
  Index lanes_ = 1;
  int batch_ = -1;  // the axis that grows with the number of lanes; -1: there is one lane
  int depth_ = 0;
  int time_ = -1;  // the axis that grows with the number of frames, always the last; -1: there is no time
};

template <class S>
using Row = Eigen::Map<Eigen::Array<S, Eigen::Dynamic, 1>>;

// How an operand's numbers lie along a row: `read` gives them as an array expression, `add` adds an expression to their
// gradients.

struct Dense {  // one after the other
  template <class S>
  static auto read(S* data, Index n, Index) {
    return Row<S>(data, n);
  }
  template <class S, class E>
  static void add(S* data, Index n, Index, const E& expression) {
    Row<S>(data, n) += expression;
  }
};

struct Repeated {  // one number for the whole row; it gets the sum
  template <class S>
  static auto read(S* data, Index n, Index) {
    return Eigen::Array<S, Eigen::Dynamic, 1>::Constant(n, *data);
  }
  template <class S, class E>
  static void add(S* data, Index, Index, const E& expression) {
    *data += expression.sum();
  }
};

struct Spaced {  // `stride` apart, 0 and 1 included; slow, and rare: rows of stacked weights
  template <class S>
  using Map = Eigen::Map<Eigen::Array<S, Eigen::Dynamic, 1>, Eigen::Unaligned, Eigen::InnerStride<>>;
  template <class S>
  static auto read(S* data, Index n, Index stride) {
    return Map<S>(data, n, Eigen::InnerStride<>(stride));
  }
  template <class S, class E>
  static void add(S* data, Index n, Index stride, const E& expression) {
    for (Index i = 0; i < n; ++i) data[i * stride] += expression.coeff(i);
  }
};

/// Calls f with how an operand with this stride lies.
template <class F>
void lying(Index stride, F&& f) {
  if (stride == 1)
    f(Dense{});
  else if (stride == 0)
    f(Repeated{});
  else
    f(Spaced{});
}

}  // namespace bptt
