#include "unroll/plan.h"

#include <algorithm>
#include <span>

namespace bptt {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

}  // namespace

Plan::Plan(const Graph& graph, const Request& request) : backward(graph.nodes().size(), false) {
  if (request.frames < 1)
    throw UsageError("a window has at least one frame, got " + std::to_string(request.frames));
  std::vector<Value> roots = request.fetches;
  roots.insert(roots.end(), request.wrt.begin(), request.wrt.end());
  if (request.loss >= 0) {
    const bool window = graph.extent(request.loss) == Extent::Window;
    if (!window || !(graph.shape(request.loss) == Shape{1, 1}))
      throw UsageError(
          "a loss is a window value of shape (1, 1), such as reduce_mean(...); got a value of shape " +
          to_string(graph.shape(request.loss)) + (window ? "" : " for each frame"));
    roots.push_back(request.loss);
  }
  computed = graph.ancestors(roots);
  differentiated = wanted_gradients(graph, request);
  for (std::size_t v = 0; v < computed.size(); ++v) differentiated[v] = differentiated[v] && computed[v];
  stages = schedule(graph, computed);

  for (const Stage& stage : stages)
    for (const int n : stage.nodes) {
      const std::vector<Value>& outputs = graph.nodes()[at(n)].outputs;
      backward[at(n)] = std::ranges::any_of(outputs, [&](Value v) { return differentiated[at(v)]; });
      for (const Value v : outputs) {  // an operation writes all it makes, wanted or not
        computed[at(v)] = true;
        if (backward[at(n)]) differentiated[at(v)] = true;
      }
    }
  for (const Recurrence& r : graph.recurrences())  // the two sides share a buffer
    if (r.named >= 0 && computed[at(r.past)] && (differentiated[at(r.past)] || differentiated[at(r.named)]))
      differentiated[at(r.past)] = differentiated[at(r.named)] = true;
  for (Value v = 0; v < graph.size(); ++v) begins.push_back(begins_gradient(graph, request, v));
}

int Plan::begins_gradient(const Graph& graph, const Request& request, Value v) const {
  const auto& [signature, source, origin] = graph.info(v);
  if (!differentiated[at(v)] || signature.extent != Extent::Frame || source == Source::Past) return -1;
  const Recurrence* const named = graph.recurrence_of_named(v);
  const Value past = named && computed[at(named->past)] ? named->past : -1;
  if (past >= 0 && request.edges) return -1;
  const auto stage = std::ranges::find_if(stages.rbegin(), stages.rend(), [&](const Stage& s) {
    return std::ranges::any_of(s.nodes, [&](int n) {
      const auto meets = [&](const std::vector<Value>& all) {
        return std::ranges::find(all, v) != all.end() ||
               (past >= 0 && std::ranges::find(all, past) != all.end());
      };
      const Node& node = graph.nodes()[at(n)];
      return meets(node.outputs) || (backward[at(n)] && meets(node.inputs));
    });
  });
  if (stage == stages.rend()) return -1;
  int first = -1;  // of the way back
  for (const int n : stage->nodes) {
    const Node& node = graph.nodes()[at(n)];
    const auto reads = [&](Value x) { return std::ranges::count(node.inputs, x); };
    if (std::ranges::find(node.outputs, v) != node.outputs.end()) return -1;
    if (!backward[at(n)]) continue;
    if (past >= 0 && reads(past) > 0) return -1;
    if (reads(v) > 0) first = n;
  }
  const Node& node = graph.nodes()[at(first)];
  const auto input = std::ranges::find(node.inputs, v) - node.inputs.begin();
  const bool once = std::ranges::count(node.inputs, v) == 1;
  return once && node.type->begins(graph.call(node), static_cast<std::size_t>(input)) ? first : -1;
}

std::vector<bool> Plan::wanted_gradients(const Graph& graph, const Request& request) {
  const std::size_t count = at(graph.size());
  std::vector<bool> depends(count, false), matters(count, false);
  if (request.loss < 0 || !request.trains) return depends;

  for (Value v = 0; v < graph.size(); ++v) {
    const ValueInfo& info = graph.info(v);
    depends[at(v)] =
        info.source == Source::Variable &&
        std::ranges::find(request.frozen, graph.variables()[at(info.origin)]) == request.frozen.end();
  }
  for (const Value v : request.wrt) depends[at(v)] = true;
  for (bool changed = true; changed;) {  // again for what comes around through recurrences
    changed = false;
    const auto mark = [&](Value v) {
      changed |= !depends[at(v)];
      depends[at(v)] = true;
    };
    for (const Node& node : graph.nodes())
      if (node.type->differentiable &&
          std::ranges::any_of(node.inputs, [&](Value v) { return depends[at(v)]; }))
        for (const Value v : node.outputs) mark(v);
    for (const Recurrence& recurrence : graph.recurrences())
      if ((recurrence.start >= 0 && depends[at(recurrence.start)]) ||
          (recurrence.named >= 0 && depends[at(recurrence.named)]))
        mark(recurrence.past);
  }

  std::vector<Value> open{request.loss};
  while (!open.empty()) {
    const Value v = open.back();
    open.pop_back();
    if (matters[at(v)]) continue;
    matters[at(v)] = true;
    const ValueInfo& info = graph.info(v);
    if (const Recurrence* recurrence = graph.recurrence_of_past(v)) {
      open.push_back(recurrence->named);
      open.push_back(recurrence->start);
    }
    if (info.source == Source::Operation) {
      const Node& node = graph.nodes()[at(info.origin)];
      if (node.type->differentiable) open.insert(open.end(), node.inputs.begin(), node.inputs.end());
    }
  }
  for (std::size_t v = 0; v < count; ++v) depends[v] = depends[v] && matters[v];
  for (const Node& node : graph.nodes()) {
    if (!node.type->is_cell()) continue;
    const auto weights = std::span(node.inputs).subspan(node.type->first_weight);
    if (std::ranges::any_of(weights, [&](Value v) { return depends[at(v)]; }))
      for (const Value v : weights) depends[at(v)] = true;
  }
  return depends;
}

}  // namespace bptt
