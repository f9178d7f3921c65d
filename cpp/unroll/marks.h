// Where in a window lanes begin anew, where they stand still, and which frames count.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/operation.h"

namespace bptt {

/// One lane of one frame of a window.
struct Event {
  Index frame, lane;
};

/// Events in the order of frames, then lanes.
class Events {
 public:
  explicit Events(Index frames) : first_(static_cast<std::size_t>(frames) + 1, 0) {}

  void clear() { events_.clear(); }
  /// In order.
  void add(Event event) { events_.push_back(event); }
  /// After the last one.
  void index();

  Index size() const { return static_cast<Index>(events_.size()); }
  bool empty() const { return events_.empty(); }
  /// Whether there is one at this frame.
  bool any_at(Index frame) const { return from(frame) != from(frame + 1); }

  /// Calls f(number, event) for those in a range.
  template <class F>
  void each(const Range& r, F&& f) const {
    for (Index k = from(r.begin); k < from(r.end); ++k) visit(r, k, f);
  }
  /// From the last to the first.
  template <class F>
  void each_back(const Range& r, F&& f) const {
    for (Index k = from(r.end) - 1; k >= from(r.begin); --k) visit(r, k, f);
  }

 private:
  Index from(Index frame) const { return first_[static_cast<std::size_t>(frame)]; }
  template <class F>
  void visit(const Range& r, Index k, F&& f) const {
    const Event& event = events_[static_cast<std::size_t>(k)];
    if (r.lanes == Range::all || (event.lane >= r.lane && event.lane < r.lane + r.lanes)) f(k, event);
  }

  std::vector<Event> events_;
  std::vector<Index> first_;  // by frame, the number of the first event there or later
};

/// The marks of a window, or of a part of it. A value with one column in a net of several lanes is common to all: it begins anew or stands
/// still where all lanes do.
class Marks {
 public:
  /// At most so many frames.
  Marks(Index frames, Index lanes);

  /// Rows of frames x lanes, lane fastest; null: no resets, no masks. A mask says which are valid; of those, frames
  /// count from `from` on.
  void set(const bool* resets, const bool* valid, Index from, Index frames);

  /// Whether the lanes' events have to be looked at.
  bool events() const { return !resets_[0].empty() || !holds_[0].empty(); }
  /// Where a lane's past is its starting value; for values with so many lanes.
  const Events& resets(Index batch) const { return resets_[batch != lanes_]; }
  /// Where a lane stands still.
  const Events& holds(Index batch) const { return holds_[batch != lanes_]; }
  /// Whether a sweep over some frames has to be cut before this one: a lane begins anew there, or, if it goes `through`
  /// time, stood still just before.
  bool cut(Index frame, bool through) const {
    return resets_[0].any_at(frame) || (through && holds_[0].any_at(frame - 1));
  }

  /// So many lanes of all frames count.
  Index counted() const { return counted_; }
  Index frames() const { return frames_; }
  Index lanes() const { return lanes_; }
  const Mask& mask() const { return mask_; }

 private:
  /// Yes or no for all lanes and frames, as operations see them.
  struct Table {
    std::vector<std::uint8_t> each, any;
    /// Null rows if yes(frame, lane) holds everywhere.
    template <class F>
    Rows fill(Index frames, Index lanes, F&& yes);
  };

  Index frames_, lanes_, counted_;
  std::vector<Events> resets_, holds_;  // of each lane, and of what is common to all
  Table valid_, counts_;
  Mask mask_;
};

}  // namespace bptt
