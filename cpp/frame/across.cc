#include "frame/across.h"

#include <algorithm>

namespace bptt {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

/// The outputs of one operation, given the rest.
Across made(const Graph& graph, const Node& node, const std::vector<Across>& all, bool masks) {
  const Call call = graph.call(node);
  const auto any = [&](Across kind) {
    return std::ranges::any_of(node.inputs, [&](Value v) { return all[at(v)] == kind; });
  };
  const auto& [shape, extent] = graph.info(node.outputs.front()).signature;
  const bool lanes = shape.batch == graph.lanes(), gathered = any(Across::Mean) || any(Across::Sum);
  if (any(Across::Unknown)) return Across::Unknown;
  if (node.inputs.empty()) return lanes ? Across::Lanes : Across::Same;

  if (const Gather gather = node.type->gathers(call); gather != Gather::None) {
    const Across kind = gather == Gather::Mean ? Across::Mean : Across::Sum;
    const bool over_frames = extent == Extent::Window && call.inputs[0].extent != Extent::Window;
    if (any(Across::Either)) return Across::Unknown;
    if (any(Across::Lanes)) return masks && !over_frames ? Across::Unknown : kind;
    const bool constant = call.inputs[0].extent == Extent::Constant && kind == Across::Mean;
    if (masks && over_frames && !constant) return Across::Unknown;
  } else if (!gathered) {
    const bool by_lanes = node.type->split(call) == Split::Lanes;
    if (any(Across::Lanes)) return by_lanes && lanes ? Across::Lanes : Across::Unknown;
    if (any(Across::Either)) return lanes ? Across::Either : Across::Same;
  }
  if (!gathered) return Across::Same;

  // What was taken over lanes stays so under what is linear in it. A mean of the same is the same; a sum is not.
  if (any(Across::Lanes) || any(Across::Either)) return Across::Unknown;
  const auto apart = std::ranges::count_if(node.inputs, [&](Value v) { return all[at(v)] != Across::Same; });
  const Across kind = any(Across::Mean) ? Across::Mean : Across::Sum;
  switch (node.type->linear) {
    case LinearIn::None:
      break;
    case LinearIn::All:
      if (kind == Across::Mean ? !any(Across::Sum) : !any(Across::Same)) return kind;
      break;
    case LinearIn::First:
      if (all[at(node.inputs[0])] == Across::Same) break;
      [[fallthrough]];
    case LinearIn::Each:
      if (apart == 1) return kind;
      break;
  }
  return Across::Unknown;
}

/// What a past value is, given what it was taken for and what it is the past of.
Across joined(Across past, Across named) {
  if (past == named || named == Across::Same || (past == Across::Lanes && named == Across::Either))
    return past;
  return past == Across::Same && named == Across::Mean ? named : Across::Unknown;
}

}  // namespace

std::vector<Across> across(const Graph& graph, bool resets, bool masks) {
  std::vector<Across> all(at(graph.size()), Across::Same);
  const auto lanes = [&](Value v) { return graph.shape(v).batch == graph.lanes(); };
  for (Value v = 0; v < graph.size(); ++v) switch (graph.info(v).source) {
      case Source::Placeholder:
        if (lanes(v)) all[at(v)] = Across::Lanes;
        break;
      case Source::Constant:
        if (lanes(v) && graph.lanes() > 1) all[at(v)] = Across::Either;
        break;
      case Source::Past:  // what all lanes have in common begins anew, or stands still, where all of them do
        all[at(v)] = lanes(v) ? Across::Lanes : resets || masks ? Across::Unknown : Across::Same;
        break;
      case Source::Variable:
      case Source::Operation:
        break;
    }
  for (bool changed = true; changed;) {  // again for what comes around through recurrences
    changed = false;
    for (const Node& node : graph.nodes()) {
      const Across kind = made(graph, node, all, masks);
      for (const Value v : node.outputs) all[at(v)] = kind;
    }
    for (const Recurrence& r : graph.recurrences()) {
      if (r.named < 0) continue;
      const Across kind = joined(all[at(r.past)], all[at(r.named)]);
      changed |= kind != all[at(r.past)];
      all[at(r.past)] = kind;
    }
  }
  return all;
}

std::vector<Across> across(const Graph& graph, const std::vector<Value>& values, bool resets, bool masks) {
  const std::vector<Across> all = across(graph, resets, masks);
  std::vector<Across> found;
  for (const Value v : values) {
    const Across kind = all[at(v)];
    if (kind == Across::Unknown) {
      const std::vector<bool> needed = graph.ancestors({v});
      std::string where;
      for (const Recurrence& r : graph.recurrences())
        if (needed[at(r.past)] && all[at(r.past)] == Across::Unknown) where = "the state '" + r.name + "'";
      for (auto node = graph.nodes().rbegin(); node != graph.nodes().rend(); ++node) {
        const auto unknown = [&](Value value) { return all[at(value)] == Across::Unknown; };
        if (needed[at(node->outputs.front())] && unknown(node->outputs.front()) &&
            std::ranges::none_of(node->inputs, unknown))
          where = "'" + node->type->name + "' of shape " + to_string(graph.shape(node->outputs.front()));
      }
      const std::string rows = masks ? " with masks" : resets ? " with resets" : "";
      throw UsageError(
          "with several ranks a loss, or a metric, is a mean over lanes, a sum over lanes, or made of such "
          "means by "
          "sums and factors; here " +
          where + rows + " needs the lanes of all ranks at once");
    }
    found.push_back(kind == Across::Same ? Across::Mean : kind);
  }
  return found;
}

}  // namespace bptt
