// Panels: the order in which the kernel keeps the rows of a matrix, so that it reads them as one stream.
//
// A panel is up to 4 packets of rows, with all of its columns one after the other: [panel][column][packet][lane]. Rows
// are taken in order, or, for a cell with 4 gates, so that one panel holds the rows of all gates for a few units.
// Rows are made up to whole packets; the rows in excess hold zero, always.
#pragma once

#include "kernel/tile.h"

namespace bptt {

/// A block of memory seen as a matrix, column-major, its columns `outerStride()` numbers apart.
template <class S>
using Matrix = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic>;
template <class S>
using MatrixMap = Eigen::Map<Matrix<S>, Eigen::Unaligned, Eigen::OuterStride<>>;

/// Some of all panels, packets or columns: from `begin` to `end`.
struct Span {
  Index begin, end;
};

/// All packets of a panel.
inline constexpr Span all_packets{0, Tiles<float>::packets};

class Panels {
 public:
  Panels() = default;

  /// Rows in order.
  template <class S>
  static Panels plain(Index rows) {
    const Index width = packet_width<S>(rows);
    return {width, rows, most_packets * width, width, most_packets};
  }
  /// So many gates of so many units, whose rows lie one gate after the other; one packet of units in a panel.
  template <class S>
  static Panels gates(Index units, Index count) {
    const Index width = packet_width<S>(units);
    return {width, units, width, units, count};
  }

  Index count() const { return count_; }
  Index width() const { return width_; }
  Index packets(Index panel) const { return panel + 1 < count_ ? packets_ : last_; }
  /// How many packets each panel has; 0 where they differ.
  Index packets() const { return count_ == 1 || last_ == packets_ ? last_ : 0; }
  /// Numbers of one column of a panel, padding included.
  Index height(Index panel) const { return packets(panel) * width_; }
  /// Numbers of one column of all panels.
  Index height() const { return ((count_ - 1) * packets_ + last_) * width_; }
  /// The same of some of a panel's packets.
  Index depth(Index panel, Span packets) const {
    return (std::min(packets.end, this->packets(panel)) - packets.begin) * width_;
  }
  /// Where a panel begins, in a block that has so many columns.
  Index place(Index panel, Index columns) const { return panel * packets_ * width_ * columns; }
  /// The first row of a panel, and how far it is from there to the first row of its next packet.
  Index row(Index panel) const { return panel * panel_; }
  Index packet() const { return packet_; }
  /// How many rows of a packet are real.
  Index valid(Index panel) const { return rows_ - panel * panel_; }
  Index fewer() const { return gated() ? 0 : width_; }
  Index valid(Index panel, Index packet) const {
    return std::clamp<Index>(valid(panel) - packet * fewer(), 0, width_);
  }

 private:
  static constexpr Index most_packets = Tiles<float>::packets;

  Panels(Index width, Index rows, Index panel, Index packet, Index packets)
      : width_(width),
        rows_(rows),
        panel_(panel),
        packet_(packet),
        packets_(packets),
        count_((rows + panel - 1) / panel),
        last_(gated() ? packets : (rows - (count_ - 1) * panel + width - 1) / width) {}

  bool gated() const { return panel_ < packets_ * width_; }

  Index width_ = 1, rows_ = 0;
  Index panel_ = 1;    // rows from one panel to the next
  Index packet_ = 1;   // rows from one packet to the next
  Index packets_ = 1;  // of a panel, but the last
  Index count_ = 0;    // of panels: kept, since a small product takes less time than a division
  Index last_ = 1;     // packets of the last panel
};

/// Numbers in panels, in memory that belongs to somebody else.
template <class S>
struct Panelled {
  Panels panels;
  S* data = nullptr;
  Index columns = 0;

  Index size() const { return panels.height() * columns; }
  /// Columns are used again after the last.
  S* at(Index panel, Index column) const {
    column = within(column);
    return data + panels.place(panel, columns) + column * panels.height(panel);
  }
  /// The same where all panels hold so many numbers of a column.
  template <Index height>
  S* at(Index panel, Index column) const {
    column = within(column);
    return data + (panel * columns + column) * height;
  }

 private:
  /// A lane alone may have a single one: then nothing is divided, which takes as long as a packet's activation.
  Index within(Index column) const {
    if (column < columns) return column;
    return columns == 1 ? 0 : column % columns;
  }
};

}  // namespace bptt
