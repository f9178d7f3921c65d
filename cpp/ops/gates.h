// How a cell's element-wise equations reach their numbers: gates lie in panels, states in plain columns.
#pragma once

#include "ops/operation.h"

namespace bptt {

/// The row blocks of several gates as one matrix, given the first.
template <class S>
Tensor<S> stack(Tensor<S> first, Index gates) {
  first.shape.features *= gates;
  return first;
}

/// Where the numbers of one packet of units and one column lie, and how many units there are from its first on. So much
/// room is there to write from `state` on.
template <class S>
struct Place {
  S* gates;
  Index unit, state, valid, room;
};

/// Calls f(place) for the columns of one panel, which holds one packet P of units of each of V gates. Columns before `end`
/// are free (recurrent.h).
template <class P, Index V, class S, class F>
BPTT_INLINED inline void each_column(const Panelled<S>& gates, Index units, Index panel, Index column,
                                     Index count, Index end, F&& f) {
  const Index unit = panel * width_of<P>, valid = units - unit;
  for (Index c = column; c < column + count; ++c)
    f(Place<S>{gates.template at<V * width_of<P>>(panel, c), unit, c * units + unit, valid,
               std::max(valid, (end - c) * units - unit)});
}

/// Calls f(panel) for the panels of gates that have the units of one panel of plain rows, which has several packets.
template <class S, class F>
BPTT_INLINED inline void each_gated(const Panelled<S>& gates, Index plain, F&& f) {
  const Index end = std::min((plain + 1) * Tiles<S>::packets, gates.panels.count());
  for (Index panel = plain * Tiles<S>::packets; panel < end; ++panel) f(panel);
}

/// The k-th gate.
template <class P>
P gate(const Place<ScalarOf<P>>& at, Index k) {
  return Eigen::internal::ploadu<P>(at.gates + k * width_of<P>);
}
template <class P>
void set(const Place<ScalarOf<P>>& at, Index k, const P& value) {
  Eigen::internal::pstoreu(at.gates + k * width_of<P>, value);
}

/// The numbers of a state, or of its gradient.
template <class P>
P state(const ScalarOf<P>* of, const Place<ScalarOf<P>>& at) {
  return load_first<P>(of + at.state, at.valid);
}
/// With what follows, so far as there is room: to be written back with nothing but zeros added to that.
template <class P>
P whole_state(const ScalarOf<P>* of, const Place<ScalarOf<P>>& at) {
  return load_first<P>(of + at.state, at.room);
}
template <class P>
void set_state(ScalarOf<P>* of, const Place<ScalarOf<P>>& at, const P& value) {
  store_most(of + at.state, value, at.room);
}

/// Copies so many rows from the `first` on to packed columns; of columns `column` to `column + count`.
template <class S>
void copy_rows(const Panelled<S>& from, Index first, Index rows, Index column, Index count, S* to) {
  const Panels& panels = from.panels;
  for (Index panel = 0; panel < panels.count(); ++panel)
    for (Index packet = 0; packet < panels.packets(panel); ++packet)
      for (Index i = 0; i < panels.valid(panel, packet); ++i) {
        const Index row = panels.row(panel) + packet * panels.packet() + i - first;
        if (row < 0 || row >= rows) continue;
        for (Index c = 0; c < count; ++c)
          to[c * rows + row] = from.at(panel, column + c)[packet * panels.width() + i];
      }
}

/// The k-th of several gates at a frame, for Operation::read_gate.
template <class S>
void copy_gate(const Panelled<S>& gates, Index k, Index units, Index batch, Index frame, S* to) {
  copy_rows(gates, k * units, units, frame * batch, batch, to);
}

/// Panels of several gates, as those from the k-th on.
template <class S>
Panelled<S> from_gate(Panelled<S> gates, Index k) {
  gates.data += k * gates.panels.width();
  return gates;
}

}  // namespace bptt
