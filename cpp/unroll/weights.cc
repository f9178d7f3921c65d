#include "unroll/weights.h"

#include <algorithm>

#include "passes/passes.h"

namespace bptt {
namespace {

/// The groups of weights, by name, that the graph's operations want stacked.
std::vector<std::vector<std::string>> wanted_stacks(const Graph& graph) {
  std::vector<std::vector<std::string>> wanted;
  for (const Node& node : graph.nodes())
    for (const std::vector<std::size_t>& stack : node.type->stacks) {
      std::vector<std::string> names;
      for (const std::size_t input : stack)
        if (input < node.inputs.size()) {
          const ValueInfo& info = graph.info(node.inputs[input]);
          names.push_back(graph.variables()[static_cast<std::size_t>(info.origin)]);
        }
      if (!names.empty()) wanted.push_back(std::move(names));
    }
  return wanted;
}

}  // namespace

template <class S>
void Weights<S>::declare(const std::string& name, const Matrix<S>& values) {
  if (places_.count(name)) throw UsageError("there is a weight '" + name + "' already");
  if (frozen_)
    throw UsageError("the weight '" + name +
                     "' comes too late: weights are laid out when the first program is built; "
                     "make all of them in the frame function, or before the first run");
  Block<S> grown(values_.size() + values.size());
  std::copy_n(values_.data(), values_.size(), grown.data());
  std::copy_n(values.data(), values.size(), grown.data() + values_.size());
  places_[name] = variables_.size();
  variables_.push_back({name, {values.rows(), values.cols()}, values_.size(), values.rows()});
  values_ = std::move(grown);
}

template <class S>
void Weights<S>::freeze(const std::vector<const Graph*>& graphs) {
  std::vector<std::vector<std::string>> wanted;
  for (const Graph* graph : graphs)
    for (std::vector<std::string>& stack : wanted_stacks(*graph)) wanted.push_back(std::move(stack));

  if (!frozen_) {
    std::vector<Variable> placed = variables_;
    std::vector<bool> done(placed.size(), false);
    Index end = 0;
    const auto place = [&](const std::vector<std::string>& stack) {
      Index rows = 0;
      for (const std::string& name : stack) rows += find(name).shape.features;
      Index row = 0;
      for (const std::string& name : stack) {
        const std::size_t k = places_.at(name);
        placed[k].offset = end + row;
        placed[k].outer = rows;
        row += placed[k].shape.features;
        done[k] = true;
      }
      end += rows * find(stack[0]).shape.batch;
    };
    const auto place_free = [&](const std::vector<std::string>& stack) {
      std::vector<std::string> different = stack;
      std::ranges::sort(different);
      bool free = std::ranges::adjacent_find(different) == different.end();
      for (const std::string& name : stack) free = free && places_.count(name) && !done[places_.at(name)];
      if (free) place(stack);
    };
    std::ranges::for_each(wanted, place_free);
    // What is good to have, where nothing else is wanted.
    for (const Graph* graph : graphs) std::ranges::for_each(stacked_weights(*graph), place_free);
    for (const Variable& variable : variables_)
      if (!done[places_.at(variable.name)]) place({variable.name});

    const Block<S> before = std::move(values_);
    const std::vector<Variable> sources = variables_;
    values_ = Block<S>(end);
    gradients_ = Block<S>(end);
    variables_ = std::move(placed);
    for (const Variable& from : sources)
      part(values_, from.name) = MatrixMap<S>(before.data() + from.offset, from.shape.features,
                                              from.shape.batch, Eigen::OuterStride<>(from.outer));
    frozen_ = true;
  }

  for (const std::vector<std::string>& stack : wanted) {
    Index row = 0;
    for (const std::string& name : stack) {
      if (find(name).offset != find(stack[0]).offset + row)
        throw UsageError("the weight '" + name +
                         "' cannot be a gate of this cell: it belongs to another cell, or serves two gates");
      row += find(name).shape.features;
    }
  }
}

template <class S>
const Variable& Weights<S>::find(const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) throw UsageError("there is no weight '" + name + "'");
  return variables_[found->second];
}

template <class S>
MatrixMap<S> Weights<S>::part(const Block<S>& buffer, const std::string& name) const {
  const Variable& v = find(name);
  return {buffer.data() + v.offset, v.shape.features, v.shape.batch, Eigen::OuterStride<>(v.outer)};
}

template <class S>
Tensor<S> Weights<S>::tensor(const std::string& name) const {
  const Variable& v = find(name);
  return {
      values_.data() + v.offset, gradients_.data() + v.offset, v.shape, Extent::Constant, v.outer, &version_};
}

template class Weights<float>;
template class Weights<double>;

}  // namespace bptt
