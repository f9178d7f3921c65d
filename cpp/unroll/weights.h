// All weights of a net in one flat buffer, and their gradients in another of the same layout.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ops/operation.h"
#include "unroll/arena.h"

namespace bptt {

/// A named weight: rows x columns inside a flat buffer, columns `outer` apart.
struct Variable {
  std::string name;
  Shape shape;
  Index offset = 0;
  Index outer = 1;
};

template <class S>
class Weights {
 public:
  /// Adds a weight; `values` is column-major. Throws UsageError once the layout is frozen, or if the name is
  /// taken.
  void declare(const std::string& name, const Matrix<S>& values);

  /// Settles where each weight lies, given all graphs that use them: what an operation wants stacked becomes
  /// the row blocks of one matrix. Values are kept. Programs hold on to the places, so later calls change
  /// nothing, and throw UsageError if a graph wants what the layout does not have.
  void freeze(const std::vector<const Graph*>& graphs);

  const std::vector<Variable>& variables() const { return variables_; }
  const Variable& find(const std::string& name) const;

  /// One weight's part of a buffer that has the layout of all weights (values, gradients, an optimiser's
  /// moments).
  MatrixMap<S> part(const Block<S>& buffer, const std::string& name) const;
  /// The same weight as the input of an operation.
  Tensor<S> tensor(const std::string& name) const;

  Block<S>& gradients() { return gradients_; }
  /// For whoever writes to the weights: counts as a change of all of them.
  Block<S>& writable() {
    ++version_;
    return values_;
  }
  /// Changes whenever a weight may have.
  std::uint64_t version() const { return version_; }
  const Block<S>& values() const { return values_; }
  const Block<S>& gradients() const { return gradients_; }

 private:
  std::vector<Variable> variables_;
  std::map<std::string, std::size_t> places_;
  Block<S> values_, gradients_;
  bool frozen_ = false;
  std::uint64_t version_ = 0;
};

extern template class Weights<float>;
extern template class Weights<double>;

}  // namespace bptt
