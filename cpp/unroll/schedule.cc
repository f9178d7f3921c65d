#include "unroll/schedule.h"

#include <algorithm>

namespace bptt {
namespace {

/// Tarjan, "Depth-first search and linear graph algorithms", SIAM J. Comput. 1(2), 1972. Edges lead from an
/// operation to those it depends on, so components come out in the order in which they can run. The recursion
/// is kept on a stack of our own, since frames may be long chains.
class Components {
 public:
  explicit Components(const Graph& graph) : graph_(graph), marks_(graph.nodes().size()) {}

  void visit(int root) {
    if (marks_[at(root)].number >= 0) return;
    std::vector<Visit> calls{open(root)};
    while (!calls.empty()) {
      Visit& call = calls.back();
      if (call.next < call.dependencies.size()) {
        const int next = call.dependencies[call.next++];
        Mark& mark = marks_[at(next)];
        if (mark.number < 0)
          calls.push_back(open(next));
        else if (mark.waiting)
          marks_[at(call.node)].lowest = std::min(marks_[at(call.node)].lowest, mark.number);
        continue;
      }
      const int node = call.node, lowest = marks_[at(node)].lowest;
      calls.pop_back();
      if (lowest == marks_[at(node)].number) close(node);
      if (!calls.empty()) {
        Mark& caller = marks_[at(calls.back().node)];
        caller.lowest = std::min(caller.lowest, lowest);
      }
    }
  }

  std::vector<std::vector<int>> found;

 private:
  struct Mark {
    int number = -1, lowest = -1;
    bool waiting = false;
  };
  struct Visit {
    int node;
    std::vector<int> dependencies;
    std::size_t next = 0;
  };

  static std::size_t at(int node) { return static_cast<std::size_t>(node); }

  Visit open(int node) {
    marks_[at(node)] = {count_, count_, true};
    ++count_;
    waiting_.push_back(node);
    Visit visit{node, {}};
    for (const Value input : graph_.nodes()[at(node)].inputs) {
      const Recurrence* recurrence = graph_.recurrence_of_past(input);
      const ValueInfo& source = graph_.info(recurrence ? recurrence->named : input);
      if (source.source == Source::Operation) visit.dependencies.push_back(source.origin);
    }
    return visit;
  }

  void close(int node) {
    const auto first = std::find(waiting_.begin(), waiting_.end(), node);
    std::vector<int> component(first, waiting_.end());
    waiting_.erase(first, waiting_.end());
    for (const int member : component) marks_[at(member)].waiting = false;
    std::sort(component.begin(), component.end());
    found.push_back(std::move(component));
  }

  const Graph& graph_;
  std::vector<Mark> marks_;
  std::vector<int> waiting_;
  int count_ = 0;
};

/// Whether one frame of the operation depends on its own frame before, other than by a loop it steps through
/// itself.
bool depends_on_itself(const Graph& graph, const Node& node) {
  for (std::size_t i = 0; i < node.inputs.size(); ++i)
    if (const Recurrence* recurrence = graph.recurrence_of_past(node.inputs[i]))
      for (std::size_t k = 0; k < node.outputs.size(); ++k) {
        const std::pair<int, int> loop(static_cast<int>(i), static_cast<int>(k));
        const auto& own = node.type->loops;
        if (node.outputs[k] == recurrence->named && std::find(own.begin(), own.end(), loop) == own.end())
          return true;
      }
  return false;
}

}  // namespace

bool of_window_values(const Graph& graph, const Node& node) {
  return std::ranges::any_of(node.inputs, [&](Value v) { return graph.extent(v) == Extent::Window; });
}

std::vector<Stage> schedule(const Graph& graph, const std::vector<bool>& wanted) {
  Components components(graph);
  for (std::size_t v = 0; v < wanted.size(); ++v) {
    const ValueInfo& info = graph.info(static_cast<Value>(v));
    if (wanted[v] && info.source == Source::Operation) components.visit(info.origin);
  }
  std::vector<Stage> stages;
  for (std::vector<int>& nodes : components.found) {
    const bool stepwise =
        nodes.size() > 1 || depends_on_itself(graph, graph.nodes()[static_cast<std::size_t>(nodes[0])]);
    stages.push_back({std::move(nodes), stepwise});
  }
  const auto rank = [&](const Stage& stage) {
    const Node& node = graph.nodes()[static_cast<std::size_t>(stage.nodes[0])];
    if (graph.extent(node.outputs[0]) == Extent::Constant) return 0;
    return of_window_values(graph, node) ? 2 : 1;
  };
  std::ranges::stable_sort(stages, {}, rank);
  return stages;
}

}  // namespace bptt
