#include "unroll/lifetimes.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace bptt {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

void stretch(Life& life, int step) {
  life.first = std::min(life.first, step);
  life.last = std::max(life.last, step);
}

}  // namespace

Lives::Lives(const Graph& graph, const Plan& plan, const Request& request)
    : stages_(plan.stages.size()),
      values_(at(graph.size()), {end(), 0}),
      gradients_(at(graph.size()), {end(), 0}) {
  const bool trains = std::ranges::find(plan.backward, true) != plan.backward.end();
  for (std::size_t s = 0; s < stages_; ++s)
    for (const int n : plan.stages[s].nodes) {
      const auto touch = [&](Value v) {
        stretch(values_[at(v)], forward(s));
        if (trains) stretch(values_[at(v)], turn());  // for whoever looks what is not finite
        const Recurrence* const named = graph.recurrence_of_named(v);
        const bool held = named && plan.differentiated[at(named->past)];  // masks move its gradient
        if (!plan.backward[at(n)] && !held) return;
        stretch(values_[at(v)], back(s));
        stretch(gradients_[at(v)], back(s));
      };
      for (const Value v : graph.nodes()[at(n)].inputs) touch(v);
      for (const Value v : graph.nodes()[at(n)].outputs) touch(v);
    }
  const auto keep = [&](Value v) { values_[at(v)].last = end(); };
  std::ranges::for_each(request.fetches, keep);
  for (const Value v : graph.placeholders()) values_[at(v)] = {0, end()};
  for (const Value v : request.wrt) gradients_[at(v)] = {turn(), end()};
  for (const Recurrence& r : graph.recurrences()) {
    if (r.named < 0) continue;
    Life& gradient = gradients_[at(r.past)];
    const Life& other = gradients_[at(r.named)];
    gradient = {std::min(gradient.first, other.first), std::max(gradient.last, other.last)};
    if (request.edges) gradient = {turn(), end()};
    gradients_[at(r.named)] = gradient;
    values_[at(r.past)] = values_[at(r.named)] = {0, end()};
  }
}

Index place(std::vector<Slot>& pieces) {
  std::vector<std::size_t> order(pieces.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::greater<>(), [&](std::size_t i) { return pieces[i].size; });
  std::vector<const Slot*> placed;  // from the lowest place on
  Index room = 0;
  for (const std::size_t i : order) {
    Slot& piece = pieces[i];
    Index smallest = std::numeric_limits<Index>::max(), after = 0;
    piece.place = -1;
    for (const Slot* other : placed) {
      if (!other->life.meets(piece.life)) continue;
      const Index gap = other->place - after;
      if (gap >= piece.size && gap < smallest) {
        smallest = gap;
        piece.place = after;
      }
      after = std::max(after, other->place + other->size);
    }
    if (piece.place < 0) piece.place = after;
    room = std::max(room, piece.place + piece.size);
    placed.insert(std::ranges::upper_bound(placed, piece.place, {}, [](const Slot* p) { return p->place; }),
                  &piece);
  }
  return room;
}

}  // namespace bptt
