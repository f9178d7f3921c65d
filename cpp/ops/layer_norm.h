// Layer normalisation of columns that lie in panels: Ba, Kiros & Hinton, "Layer normalization", 2016 (arXiv:1607.06450),
// section 3. Of a column v,
//
//   n = (v - mean(v)) / s,    s = sqrt(mean((v - mean(v))^2) + epsilon)
//
// and on the way back, with e the gradient of n,
//
//   dv = (e - mean(e) - n mean(e n)) / s
//
// Who uses n multiplies it with a gain g: from the gradient d of g n, e = g d, and dg is the sum of d n over all columns.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "ops/recurrent.h"

namespace bptt {

/// Numbers give way to n, and n to the gradient dv. A column needs no other, so that lanes can be shared out.
template <class S>
class LayerNorm {
 public:
  LayerNorm() = default;

  /// Columns of so many gates, each with the same units: their rows in one, as the gain's.
  LayerNorm(const Panelled<S>& numbers, Index gates, const Tensor<S>& gain, Index batch, double epsilon,
            bool backward, Scratch<S>& scratch)
      : numbers_(numbers),
        gain_(gain),
        gates_(gates),
        units_(gain.shape.features / gates),
        batch_(batch),
        epsilon_(static_cast<S>(epsilon)) {
    inverse_ = scratch.take(numbers.columns);
    sums_ = scratch.take(2 * batch * numbers.panels.width());
    means_ = scratch.take(2 * batch);
    if (!backward) return;
    gain_gradient_ = {numbers.panels, nullptr, batch};
    gain_gradient_.data = scratch.take(gain_gradient_.size());
    to_gain_ = {gain_gradient_, batch};
    to_gain_.add(gain, {0, gates});
  }

  /// n of some lanes of one frame, given their columns. The variance is that of the differences: as one of squares it
  /// would drown in the rounding of a large mean.
  template <class P>
  void forward(Index first, Index count) const {
    using namespace Eigen::internal;
    const Index lane = first % batch_;
    S* const inverse = inverse_ + first % numbers_.columns;
    each<P>(first, count, [&](const Rows<P>& rows, Index c, S* v) {
      P sum = pset1<P>(S(0));
      for (Index k = 0; k < gates_; ++k) sum = padd(sum, ploadu<P>(v + k * width_of<P>));
      add(0, rows, lane + c, sum);
    });
    average<P>(0, lane, count);
    each<P>(first, count, [&](const Rows<P>& rows, Index c, S* v) {
      const P mean = pset1<P>(*means(0, lane + c));
      P sum = pset1<P>(S(0));
      for (Index k = 0; k < gates_; ++k) {
        const P difference = pmul(psub(ploadu<P>(v + k * width_of<P>), mean), rows.real);
        sum = pmadd(difference, difference, sum);
      }
      add(1, rows, lane + c, sum);
    });
    average<P>(1, lane, count);
    for (Index c = 0; c < count; ++c) inverse[c] = S(1) / std::sqrt(*means(1, lane + c) + epsilon_);
    each<P>(first, count, [&](const Rows<P>& rows, Index c, S* v) {
      const P mean = pset1<P>(*means(0, lane + c)), scale = pmul(pset1<P>(inverse[c]), rows.real);
      for (Index k = 0; k < gates_; ++k) {
        S* const n = v + k * width_of<P>;
        pstoreu(n, pmul(psub(ploadu<P>(n), mean), scale));
      }
    });
  }

  /// The same columns' gradients, from those of g n, which lie in panels of the same columns.
  template <class P>
  void backward(const Panelled<S>& from, Index first, Index count) const {
    using namespace Eigen::internal;
    const Index lane = first % batch_;
    const S* const inverse = inverse_ + first % numbers_.columns;
    each<P>(first, count, [&](const Rows<P>& rows, Index c, S* v) {
      const S* const d = from.data + (v - numbers_.data);
      S* const dg = gain_gradient_.at(rows.panel, lane + c);
      P sum = pset1<P>(S(0)), product = sum;
      for (Index k = 0; k < gates_; ++k) {
        const Index at = k * width_of<P>;
        const P n = ploadu<P>(v + at), dn = ploadu<P>(d + at), e = pmul(dn, rows.gain[k]);
        sum = padd(sum, e);
        product = pmadd(e, n, product);
        pstoreu(dg + at, pmadd(dn, n, ploadu<P>(dg + at)));
      }
      add(0, rows, lane + c, sum);
      add(1, rows, lane + c, product);
    });
    average<P>(0, lane, count);
    average<P>(1, lane, count);
    each<P>(first, count, [&](const Rows<P>& rows, Index c, S* v) {
      const S* const d = from.data + (v - numbers_.data);
      const P mean = pset1<P>(*means(0, lane + c)), back = pset1<P>(-*means(1, lane + c));
      const P scale = pmul(pset1<P>(inverse[c]), rows.real);
      for (Index k = 0; k < gates_; ++k) {
        const Index at = k * width_of<P>;
        const P e = pmul(ploadu<P>(d + at), rows.gain[k]);
        pstoreu(v + at, pmul(scale, pmadd(ploadu<P>(v + at), back, psub(e, mean))));
      }
    });
  }

  void prepare() const { clear(); }

  /// Adds the gain's gradient, which was summed over frames in the sweep: work as for one frame, so it is not divided.
  void accumulate() const {
    to_gain_.accumulate({0, 1}, {});
    clear();
  }

 private:
  static constexpr std::size_t most_gates = 4;

  /// The rows of one panel: their gains, and 1 where there is a row.
  template <class P>
  struct Rows {
    Index panel;
    P real;
    P gain[most_gates];
  };

  /// Calls f(rows, c, numbers) for all panels of each column first + c.
  template <class P, class F>
  void each(Index first, Index count, F&& f) const {
    static constexpr auto ones = [] {
      std::array<S, width_of<FullPacket<S>>> all{};
      all.fill(S(1));
      return all;
    }();
    for (Index panel = 0; panel < numbers_.panels.count(); ++panel) {
      const Index unit = numbers_.panels.row(panel), valid = numbers_.panels.valid(panel, 0);
      Rows<P> rows{panel, load_first<P>(ones.data(), valid), {}};
      for (Index k = 0; k < gates_; ++k) rows.gain[k] = load_first<P>(gain_.value + k * units_ + unit, valid);
      S* const numbers = numbers_.at(panel, first);
      for (Index c = 0; c < count; ++c) f(rows, c, numbers + c * gates_ * width_of<P>);
    }
  }

  void clear() const {
    if (gain_gradient_.data) std::fill_n(gain_gradient_.data, gain_gradient_.size(), S(0));
  }

  S* means(Index which, Index lane) const { return means_ + 2 * lane + which; }

  /// Adds to one of a lane's two sums over the rows, which are whole packets until they are averaged.
  template <class P>
  void add(Index which, const Rows<P>& rows, Index lane, const P& some) const {
    using namespace Eigen::internal;
    S* const sum = sums_ + (2 * lane + which) * width_of<P>;
    pstoreu(sum, rows.panel == 0 ? some : padd(ploadu<P>(sum), some));
  }

  template <class P>
  void average(Index which, Index lane, Index count) const {
    using namespace Eigen::internal;
    const S rows = static_cast<S>(gain_.shape.features);
    for (Index c = lane; c < lane + count; ++c)
      *means(which, c) = predux(ploadu<P>(sums_ + (2 * c + which) * width_of<P>)) / rows;
  }

  Panelled<S> numbers_;
  Tensor<S> gain_;
  Index gates_ = 1, units_ = 0, batch_ = 1;
  S epsilon_ = 0;
  S* inverse_ = nullptr;  // scratch: 1/s of every column
  S *sums_ = nullptr, *means_ = nullptr;
  Panelled<S> gain_gradient_;  // scratch: of every lane, summed over the frames of a sweep
  WeightGradients<S> to_gain_;
};

}  // namespace bptt
