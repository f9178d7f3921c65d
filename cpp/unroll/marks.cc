#include "unroll/marks.h"

#include <algorithm>

namespace bptt {
namespace {

std::size_t at(Index index) {
  return static_cast<std::size_t>(index);
}

/// events[0]: where happens(frame, lane); events[1]: where it does in all lanes.
template <class F>
void fill(std::vector<Events>& events, Index frames, Index lanes, F&& happens) {
  for (Events& each : events) each.clear();
  for (Index t = 0; t < frames; ++t) {
    Index count = 0;
    for (Index lane = 0; lane < lanes; ++lane)
      if (happens(t, lane)) {
        events[0].add({t, lane});
        ++count;
      }
    if (count == lanes) events[1].add({t, 0});
  }
  for (Events& each : events) each.index();
}

}  // namespace

void Events::index() {
  std::ranges::fill(first_, 0);
  for (const Event& event : events_) ++first_[at(event.frame) + 1];
  for (std::size_t t = 1; t < first_.size(); ++t) first_[t] += first_[t - 1];
}

Marks::Marks(Index frames, Index lanes)
    : frames_(frames),
      lanes_(lanes),
      counted_(frames * lanes),
      resets_(2, Events(frames)),
      holds_(2, Events(frames)) {}

void Marks::set(const bool* resets, const bool* valid, Index from, Index frames) {
  const bool nothing = !resets && !valid && from == 0 && frames == frames_;
  if (nothing && !events() && !mask_.counted) return;
  frames_ = frames;
  const auto is_valid = [&](Index t, Index lane) { return !valid || valid[t * lanes_ + lane]; };
  fill(resets_, frames_, lanes_, [&](Index t, Index lane) { return resets && resets[t * lanes_ + lane]; });
  fill(holds_, frames_, lanes_, [&](Index t, Index lane) { return !is_valid(t, lane); });
  mask_.valid = valid_.fill(frames_, lanes_, is_valid);
  mask_.counted =
      counts_.fill(frames_, lanes_, [&](Index t, Index lane) { return t >= from && is_valid(t, lane); });
  counted_ = mask_.counted ? std::count(counts_.each.begin(), counts_.each.end(), 1) : frames_ * lanes_;
}

template <class F>
Rows Marks::Table::fill(Index frames, Index lanes, F&& yes) {
  each.resize(at(frames * lanes));
  any.resize(at(frames));
  Rows rows{lanes, each.data(), any.data()};
  bool all = true;
  for (Index t = 0; t < frames; ++t) {
    Index count = 0;
    for (Index lane = 0; lane < lanes; ++lane) count += each[at(t * lanes + lane)] = yes(t, lane);
    any[at(t)] = count > 0;
    all = all && count == lanes;
    rows.alike = rows.alike && (count == 0 || count == lanes);
  }
  if (all) rows.each = nullptr;
  return rows;
}

}  // namespace bptt
