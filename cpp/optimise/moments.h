// What an optimiser keeps beside the weights, and the pieces of the flat buffers that it goes over.
#pragma once

#include <map>
#include <set>
#include <utility>

#include "optimise/optimiser.h"
#include "unroll/weights.h"

namespace bptt {

/// Weights, by name, that are not treated like all others.
struct Groups {
  std::map<std::string, double> decay = {};  // weight decay; 0 for those not named
  std::set<std::string> frozen = {};         // not updated, moments included
};

template <class S>
class Moments {
 public:
  Moments(Rule<S> rule, Groups groups) : rule_(std::move(rule)), groups_(std::move(groups)) {
    for (std::string& name : rule_->moments()) buffers_.emplace_back(std::move(name), Block<S>());
  }

  std::vector<std::string> names() const { return rule_->moments(); }

  /// The numbers of a moment, in the layout of the weights.
  Block<S>& at(const std::string& name) {
    for (auto& [own, block] : buffers_)
      if (own == name) return block;
    throw UsageError("the optimiser has no moment '" + name + "'");
  }

  /// Makes room, once the layout of the weights is known.
  void reserve(const Weights<S>& weights) {
    const Index size = weights.values().size();
    if (size_ == size) return;
    for (auto& [name, block] : buffers_) {
      block = Block<S>(size);
      std::fill_n(block.data(), size, static_cast<S>(rule_->start()));
    }
    cut(weights);
    size_ = size;
  }

  bool some_frozen() const { return !frozen_.empty(); }
  /// One thread's share of setting the gradients of frozen weights to zero: those that a cell computes along with
  /// others.
  void clear_frozen(Block<S>& gradients, Part part) const {
    for (const Piece& piece : share(frozen_, part))
      std::fill_n(gradients.data() + piece.from, piece.size, S(0));
  }

  /// One thread's share of an update.
  void update(const Update& update, Block<S>& weights, Block<S>& gradients, Part part) {
    Buffers<S> all{weights.data(), gradients.data(), {}};
    for (std::size_t i = 0; i < buffers_.size(); ++i) all.moments[i] = buffers_[i].second.data();
    rule_->update(update, share(pieces_, part), all);
  }

 private:
  static std::span<const Piece> share(const std::vector<Piece>& pieces, Part part) {
    const Index count = std::ssize(pieces), from = part.begin(count);
    return std::span(pieces).subspan(static_cast<std::size_t>(from),
                                     static_cast<std::size_t>(part.end(count) - from));
  }

  /// Into pieces in which all weights are treated alike.
  void cut(const Weights<S>& weights) {
    constexpr double never = -1;  // in place of the decay of frozen weights
    Block<double> decay(weights.values().size());
    pieces_.clear();
    frozen_.clear();
    for (const Variable& weight : weights.variables()) {
      const auto found = groups_.decay.find(weight.name);
      const double own =
          groups_.frozen.contains(weight.name) ? never : (found == groups_.decay.end() ? 0 : found->second);
      for (Index c = 0; c < weight.shape.batch; ++c)
        std::fill_n(decay.data() + weight.offset + c * weight.outer, weight.shape.features, own);
    }
    for (Index from = 0, to = 0; from < decay.size(); from = to) {
      const double own = decay.data()[from];
      while (to < decay.size() && to - from < Piece::longest && decay.data()[to] == own) ++to;
      (own == never ? frozen_ : pieces_).push_back({from, to - from, own});
    }
  }

  Rule<S> rule_;
  Groups groups_;
  std::vector<std::pair<std::string, Block<S>>> buffers_;
  std::vector<Piece> pieces_, frozen_;
  Index size_ = -1;
};

}  // namespace bptt
