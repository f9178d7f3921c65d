// Ranks: processes that train one net, each on lanes of its own (frame/across.h says how they go together). After each
// window's backward they add up, in one go, their gradients, losses and metrics, and whether one of them failed; then each
// makes the same update of the same weights.
#pragma once

#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "frame/across.h"
#include "unroll/arena.h"

namespace bptt {

template <class S>
class Ranks {
 public:
  /// Adds numbers up over all ranks, where they lie; all get the same bits. Called as often, for as many, on each rank.
  using AddUp = std::function<void(S*, Index)>;

  /// One rank, which has nobody to meet.
  Ranks() = default;
  /// `lanes` go on in all ranks, `first` of them in those before this one. `kinds` say how window values go together, Mean
  /// or Sum; the first is the loss.
  Ranks(AddUp add_up, Index first, Index lanes, std::vector<Across> kinds)
      : add_up_(std::move(add_up)), first_(first), lanes_(lanes), kinds_(std::move(kinds)) {}

  /// The number of this rank's first lane.
  std::uint64_t first_lane() const { return static_cast<std::uint64_t>(first_); }

  /// How the loss, and what else is watched, go together.
  const std::vector<Across>& kinds() const { return kinds_; }

  /// Does f, a window in which the ranks meet once, for so many gradients. If f fails before, they meet all the same, so
  /// that nobody waits, and the others learn of it.
  template <class F>
  void window(Index gradients, F&& f) {
    met_ = !add_up_;
    try {
      f();
    } catch (...) {
      if (!met_) {
        S* const more = room(gradients);
        std::fill(all_.data(), all_.data() + all_.size(), S(0));
        more[1] = 1;
        add_up_(all_.data(), all_.size());
      }
      throw;
    }
  }

  /// Gradients and values become those of all ranks. Of so many frames `counted` lanes count here; where there is no
  /// gradient it stands for zeros. Returns whether anything counts in any rank. Throws RankError if one of the others failed.
  bool meet(Index counted, Index frames, bool gradient, Block<S>& gradients, std::span<S> values) {
    if (!add_up_) return counted > 0;
    met_ = true;
    const S share = static_cast<S>(counted) / static_cast<S>(frames * lanes_);
    const auto factor = [&](std::size_t i, S mean) { return kinds_[i] == Across::Mean ? mean : S(1); };
    using Flat = Eigen::Map<Eigen::Array<S, Eigen::Dynamic, 1>>;
    S* const more = room(gradients.size());
    Flat mine(gradients.data(), gradients.size()), all(all_.data(), gradients.size());
    if (gradient)
      all = mine * factor(0, share);
    else
      all.setZero();
    more[0] = share;
    more[1] = 0;
    for (std::size_t i = 0; i < values.size(); ++i)
      more[2 + i] = counted == 0 ? S(0) : values[i] * factor(i, share);
    add_up_(all_.data(), all_.size());
    if (more[1] != 0)
      throw RankError("another rank failed in this window; weights, moments and state are those before it");
    if (more[0] == 0) return false;
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = more[2 + i] / factor(i, more[0]);
    mine = all / factor(0, more[0]);
    return true;
  }

 private:
  /// Makes room for so many gradients; returns where there is some for the share of lanes that count, failures, and values.
  S* room(Index gradients) {
    const Index size = gradients + 2 + std::ssize(kinds_);
    if (all_.size() != size) all_ = Block<S>(size);
    return all_.data() + gradients;
  }

  AddUp add_up_;
  Index first_ = 0, lanes_ = 1;
  std::vector<Across> kinds_;
  Block<S> all_ = Block<S>();
  bool met_ = true;
};

}  // namespace bptt
