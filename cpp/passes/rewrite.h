// A graph made anew out of another, node by node, where some nodes give way to others.
//
// The graph that was traced stays as it is. A pass goes over the operations that a request needs and appends to a new
// graph, in an order of its own as long as what an operation uses comes first.
#pragma once

#include <vector>

#include "unroll/plan.h"

namespace bptt {

/// A graph that computes the same, and the value in it of each value of the graph before (-1: not needed).
struct Rewritten {
  Graph graph;
  std::vector<Value> now;

  /// The same request of the new graph.
  Request of(const Request&) const;
};

/// What passes ask about a graph and a request.
class Uses {
 public:
  Uses(const Graph&, const Request&, const Plan&);

  /// The operation that makes a value, or -1.
  int maker(Value) const;
  /// The operations that use it at the same frame.
  const std::vector<int>& users(Value v) const { return users_[static_cast<std::size_t>(v)]; }
  /// Somebody looks at it from outside: a fetch, a gradient, the next frame.
  bool kept(Value v) const { return kept_[static_cast<std::size_t>(v)]; }
  /// Used by this one operation alone, once.
  bool only(Value v) const { return !kept(v) && users(v).size() == 1; }
  /// The operation is needed.
  bool needed(int node) const { return stage_[static_cast<std::size_t>(node)] >= 0; }
  /// The stage in which it is.
  int stage(int node) const { return stage_[static_cast<std::size_t>(node)]; }
  bool stepwise(int node) const { return plan_.stages[static_cast<std::size_t>(stage(node))].stepwise; }
  /// Whether a value is made, or is the past of what is made, in this stage.
  bool inside(Value, int stage) const;
  const Plan& plan() const { return plan_; }
  const Graph& graph() const { return graph_; }

 private:
  const Graph& graph_;
  const Plan& plan_;
  std::vector<std::vector<int>> users_;
  std::vector<bool> kept_;
  std::vector<int> stage_;
};

/// How many steps from the outside each operation is within its stage, by number. `far(from, to)` says whether the way
/// from an operation to one that uses its result is a step. In a stage that goes through time frame by frame, what comes
/// from another stage or from the frame before is outside. The other stages count as one, recurrences included.
///
/// Operations that are equally far, in one such stage or among the others, do not depend on each other but by ways that
/// are no steps.
template <class Far>
std::vector<int> distances(const Uses& uses, Far&& far) {
  const Graph& graph = uses.graph();
  std::vector<int> within(graph.nodes().size(), 0), entered(uses.plan().stages.size(), 0);
  const auto at = [](int i) { return static_cast<std::size_t>(i); };
  for (std::size_t s = 0; s < uses.plan().stages.size(); ++s) {
    const Stage& stage = uses.plan().stages[s];
    for (const int n : stage.nodes)
      for (const Value input : graph.nodes()[at(n)].inputs) {
        const Recurrence* const past = graph.recurrence_of_past(input);
        const int from = uses.maker(past ? past->named : input);
        if (from < 0) continue;
        if (uses.stage(from) == static_cast<int>(s)) {
          if (!past) within[at(n)] = std::max(within[at(n)], within[at(from)] + (far(from, n) ? 1 : 0));
          continue;
        }
        const bool step = past || stage.stepwise || uses.stepwise(from) || far(from, n);
        entered[s] = std::max(entered[s], entered[at(uses.stage(from))] + (step ? 1 : 0));
      }
    if (!stage.stepwise) within[at(stage.nodes[0])] = entered[s];
  }
  return within;
}

class Rewriter {
 public:
  /// Everything but operations is there.
  explicit Rewriter(const Uses&);

  /// The value that stands for one of the graph before.
  Value now(Value v) const { return made_.now[static_cast<std::size_t>(v)]; }
  /// Appends an operation like one of the graph before.
  void copy(int node);
  /// Appends another one.
  std::vector<Value> append(const OpType& type, const std::vector<Value>& inputs, Attributes attributes) {
    return made_.graph.append(type, inputs, std::move(attributes));
  }
  /// What stands from now on for a value of the graph before.
  void stand_for(Value before, Value now) { made_.now[static_cast<std::size_t>(before)] = now; }

  /// Calls emit(group) for groups of needed operations, each after those it depends on, otherwise in the order of the
  /// trace; operations in none are groups of their own. Groups must not depend on each other in a circle.
  template <class F>
  void each(const std::vector<std::vector<int>>& groups, F&& emit) {
    for (const std::vector<int>& group : ordered(groups)) emit(group);
  }

  Rewritten finish();

 private:
  std::vector<std::vector<int>> ordered(const std::vector<std::vector<int>>& groups) const;

  const Uses& uses_;
  Rewritten made_;
};

}  // namespace bptt
