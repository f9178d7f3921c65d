#include "passes/rewrite.h"

#include <algorithm>
#include <queue>

namespace bptt {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

}  // namespace

Request Rewritten::of(const Request& request) const {
  Request made = request;
  for (Value& v : made.fetches) v = now[at(v)];
  for (Value& v : made.wrt) v = now[at(v)];
  if (made.loss >= 0) made.loss = now[at(made.loss)];
  return made;
}

Uses::Uses(const Graph& graph, const Request& request, const Plan& plan)
    : graph_(graph),
      plan_(plan),
      users_(at(graph.size())),
      kept_(at(graph.size()), false),
      stage_(graph.nodes().size(), -1) {
  for (std::size_t s = 0; s < plan.stages.size(); ++s)
    for (const int n : plan.stages[s].nodes) {
      stage_[at(n)] = static_cast<int>(s);
      for (const Value v : graph.nodes()[at(n)].inputs) users_[at(v)].push_back(n);
    }
  for (const Value v : request.fetches) kept_[at(v)] = true;
  for (const Value v : request.wrt) kept_[at(v)] = true;
  if (request.loss >= 0) kept_[at(request.loss)] = true;
  for (const Recurrence& r : graph.recurrences())
    if (plan.computed[at(r.past)]) kept_[at(r.named)] = kept_[at(r.start)] = true;
}

int Uses::maker(Value v) const {
  const ValueInfo& info = graph_.info(v);
  return info.source == Source::Operation ? info.origin : -1;
}

bool Uses::inside(Value v, int stage) const {
  const Recurrence* const past = graph_.recurrence_of_past(v);
  const int from = maker(past ? past->named : v);
  return from >= 0 && this->stage(from) == stage;
}

Rewriter::Rewriter(const Uses& uses) : uses_(uses) {
  const Graph& graph = uses.graph();
  made_.now.assign(at(graph.size()), -1);
  for (Value v = 0; v < graph.size(); ++v) {
    const auto& [signature, source, origin] = graph.info(v);
    if (!uses.plan().computed[at(v)]) continue;
    if (source == Source::Placeholder)
      stand_for(v, made_.graph.placeholder(signature.shape));
    else if (source == Source::Variable)
      stand_for(v, made_.graph.variable(graph.variables()[at(origin)], signature.shape));
    else if (source == Source::Constant)
      stand_for(v, made_.graph.constant(signature.shape, graph.constants()[at(origin)]));
    else if (source == Source::Past)
      stand_for(v, made_.graph.past(graph.recurrences()[at(origin)].name, signature.shape));
  }
}

void Rewriter::copy(int n) {
  const Node& node = uses_.graph().nodes()[at(n)];
  std::vector<Value> inputs;
  for (const Value v : node.inputs) inputs.push_back(now(v));
  const std::vector<Value> outputs = append(*node.type, inputs, node.attributes);
  for (std::size_t k = 0; k < outputs.size(); ++k) stand_for(node.outputs[k], outputs[k]);
}

std::vector<std::vector<int>> Rewriter::ordered(const std::vector<std::vector<int>>& groups) const {
  const Graph& graph = uses_.graph();
  std::vector<int> group_of(graph.nodes().size(), -1);
  std::vector<std::vector<int>> all = groups;
  for (std::size_t g = 0; g < groups.size(); ++g)
    for (const int n : groups[g]) group_of[at(n)] = static_cast<int>(g);
  for (std::size_t n = 0; n < group_of.size(); ++n)
    if (group_of[n] < 0 && uses_.needed(static_cast<int>(n))) {
      group_of[n] = static_cast<int>(all.size());
      all.push_back({static_cast<int>(n)});
    }

  // Kahn, "Topological sorting of large networks", Commun. ACM 5(11), 1962; of those that are ready the first traced.
  std::vector<int> missing(all.size(), 0);
  std::vector<std::vector<int>> after(all.size());
  for (std::size_t g = 0; g < all.size(); ++g)
    for (const int n : all[g])
      for (const Value v : graph.nodes()[at(n)].inputs)
        if (const int from = uses_.maker(v); from >= 0 && group_of[at(from)] != static_cast<int>(g)) {
          after[at(group_of[at(from)])].push_back(static_cast<int>(g));
          ++missing[g];
        }
  using Ready = std::pair<int, int>;  // first node, group
  std::priority_queue<Ready, std::vector<Ready>, std::greater<>> ready;
  const auto enter = [&](int g) { ready.push({all[at(g)].front(), g}); };
  for (std::size_t g = 0; g < all.size(); ++g)
    if (missing[g] == 0) enter(static_cast<int>(g));
  std::vector<std::vector<int>> order;
  while (!ready.empty()) {
    const int g = ready.top().second;
    ready.pop();
    order.push_back(all[at(g)]);
    for (const int next : after[at(g)])
      if (--missing[at(next)] == 0) enter(next);
  }
  if (order.size() != all.size()) throw std::logic_error("a pass made a circle of operations");
  return order;
}

Rewritten Rewriter::finish() {
  const Graph& graph = uses_.graph();
  for (const Recurrence& r : graph.recurrences())
    if (uses_.plan().computed[at(r.past)]) {
      made_.graph.begin(now(r.past), now(r.start));
      // It owns a buffer already, so nothing is inserted.
      made_.graph.tie(now(r.past), now(r.named), *graph.nodes()[at(uses_.maker(r.named))].type);
    }
  return std::move(made_);
}

}  // namespace bptt
