#include "unroll/deal.h"

#include <numeric>

namespace bptt {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

/// What all operations of a stage allow, and the lanes that all their values have (0: not all the same).
struct Allowed {
  Split split = Split::Lanes;
  Index lanes = -1;
  Index run = 1;       // lanes that fill whole cache lines of each value
  bool loops = false;  // one of them steps through time by itself
  bool past = false;   // one of them uses the frame before
};

Allowed allowed(const Graph& graph, const Stage& stage, Index line) {
  Allowed all;
  for (const int n : stage.nodes) {
    const Node& node = graph.nodes()[at(n)];
    const auto value = [&](Value v, bool input) {
      const Signature& signature = graph.info(v).signature;
      if (input && signature.extent == Extent::Constant) return;
      if (signature.extent != Extent::Frame) all.split = Split::None;
      const auto [features, batch] = signature.shape;
      all.lanes = all.lanes < 0 || all.lanes == batch ? batch : 0;
      all.run = std::lcm(all.run, line / std::gcd(line, features));
      all.past |= input && graph.recurrence_of_past(v);
    };
    for (const Value v : node.inputs) value(v, true);
    for (const Value v : node.outputs) value(v, false);
    all.split = std::min(all.split, node.type->split(graph.call(node)));
    all.loops |= !node.type->loops.empty();
  }
  return all;
}

}  // namespace

Deal deal(const Graph& graph, const Stage& stage, Index frames, Index pieces, std::size_t bytes) {
  const Allowed all = allowed(graph, stage, 64 / static_cast<Index>(bytes));
  Deal deal;
  // Whole frames begin on cache lines if whole runs fill them.
  deal.run = (least_lanes + all.run - 1) / all.run * all.run;
  const bool by_lanes = all.split == Split::Lanes && all.lanes >= 2 * deal.run && all.lanes % all.run == 0;
  const bool by_frames = all.split != Split::None && !stage.stepwise && !all.loops && pieces > 1;
  if (by_frames && !(by_lanes && frames < 8)) {
    deal.kind = Deal::Kind::Frames;
    deal.apart = all.past;
  } else if (by_lanes) {
    deal.kind = Deal::Kind::Lanes;
    deal.lanes = all.lanes;
    return deal;
  } else if (all.split == Split::Lanes && !stage.stepwise && all.loops) {
    deal.kind = Deal::Kind::Rows;
  }
  deal.run = 1;
  return deal;
}

}  // namespace bptt
