// Products that share an input become one product of stacked weights, and slices of its result.
//
// W_i x and W_f x read x once as [W_i; W_f] x, in larger tiles. In a cycle it is enough that inputs overlap: the matrix has
// zeros where a sum lacks a product, as long as they are few. Nothing that could be done before a cycle is drawn into it,
// and no two cycles become one.
#include <algorithm>
#include <map>

#include "ops/affine.h"
#include "ops/operation.h"
#include "passes/passes.h"

namespace bptt {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

/// A sum of products, as `accumulate_sums` made it.
struct Sum {
  int node;
  std::vector<Value> xs, weights;  // one weight for each x
  Value base = -1, bias = -1;
  Index rows = 0;
};

/// Sums to be stacked.
struct Stack {
  std::vector<const Sum*> members = {};
  std::vector<Value> xs = {};
  Index rows = 0, filled = 0;  // rows in all; numbers of the matrix that are weights

  Index depth(const Graph& graph, const std::vector<Value>& of) const {
    Index depth = 0;
    for (const Value x : of) depth += graph.shape(x).features;
    return depth;
  }

  Stack with(const Graph& graph, const Sum& sum) const {
    Stack more = *this;
    more.members.push_back(&sum);
    for (const Value x : sum.xs)
      if (std::ranges::find(more.xs, x) == more.xs.end()) more.xs.push_back(x);
    more.rows += sum.rows;
    more.filled += sum.rows * depth(graph, sum.xs);
    return more;
  }

  /// Its inputs overlap, and at most a quarter of the matrix is zeros.
  bool worthwhile(const Graph& graph) const {
    const Sum& last = *members.back();
    const bool shared = members.size() == 1 || std::ranges::any_of(last.xs, [&](Value x) {
                          return std::ranges::any_of(members, [&](const Sum* other) {
                            return other != &last && std::ranges::find(other->xs, x) != other->xs.end();
                          });
                        });
    return shared && 4 * filled >= 3 * rows * depth(graph, xs);
  }
};

class Stacks {
 public:
  Stacks(const Graph& graph, const Request& request)
      : graph_(graph), plan_(graph, request), uses_(graph, request, plan_) {
    for (int n = 0; n < static_cast<int>(graph.nodes().size()); ++n)
      if (uses_.needed(n) && graph.nodes()[at(n)].type == &affine()) sums_.emplace(n, read(n));
    std::vector<bool> is_base(graph.nodes().size(), false);
    for (const auto& [n, sum] : sums_)
      if (sum.base >= 0) is_base[at(uses_.maker(sum.base))] = true;

    const std::vector<int> far =
        distances(uses_, [&](int from, int) { return graph_.nodes()[at(from)].type == &affine(); });
    using Key = std::tuple<int, int, bool, Index, std::vector<Value>>;
    std::map<Key, std::vector<std::pair<Stack, Stack>>> stacks;  // and those of their bases
    for (const auto& [n, sum] : sums_) {
      if (is_base[at(n)] || repeats(sum.xs)) continue;
      const bool stepwise = uses_.stepwise(n);
      std::vector<Value> same = stepwise ? std::vector<Value>{} : sum.xs;
      std::ranges::sort(same);
      const Index batch = graph.shape(graph.nodes()[at(n)].outputs[0]).batch;
      const int stage = stepwise ? uses_.stage(n) : -1, distance = stepwise ? far[at(n)] : 0;
      auto& candidates = stacks[{stage, distance, sum.base >= 0, batch, same}];
      const Sum* const base = sum.base >= 0 ? &sums_.at(uses_.maker(sum.base)) : nullptr;
      if (base && repeats(base->xs)) continue;
      const auto fits = std::ranges::find_if(candidates, [&](const auto& there) {
        return there.first.with(graph, sum).worthwhile(graph) &&
               (!base || there.second.with(graph, *base).worthwhile(graph));
      });
      auto& [stack, bases] = fits == candidates.end() ? candidates.emplace_back() : *fits;
      stack = stack.with(graph, sum);
      if (base) bases = bases.with(graph, *base);
    }
    for (auto& [key, found] : stacks)
      for (auto& [stack, bases] : found) {
        if (stack.members.size() < 2) continue;
        if (!bases.members.empty()) stacks_.push_back(std::move(bases));
        stacks_.push_back(std::move(stack));
      }
  }

  Rewritten rewritten() {
    std::vector<std::vector<int>> groups;
    std::map<int, const Stack*> stack_of;  // by its first node
    for (const Stack& stack : stacks_) {
      groups.emplace_back();
      for (const Sum* sum : stack.members) groups.back().push_back(sum->node);
      stack_of[groups.back().front()] = &stack;
    }
    Rewriter rewriter(uses_);
    rewriter.each(groups, [&](const std::vector<int>& group) {
      const auto found = stack_of.find(group.front());
      if (found == stack_of.end())
        rewriter.copy(group.front());
      else
        emit(*found->second, rewriter);
    });
    return rewriter.finish();
  }

 private:
  Sum read(int n) const {
    const Node& node = graph_.nodes()[at(n)];
    const auto terms = std::get<Index>(node.attributes.at("terms"));
    const auto base = std::get<Index>(node.attributes.at("base"));
    const auto first = node.inputs.begin(), weights = first + terms + base;
    Sum sum{n, {first, first + terms}, {weights, weights + terms}};
    if (base != 0) sum.base = *(first + terms);
    if (weights + terms != node.inputs.end()) sum.bias = node.inputs.back();
    sum.rows = graph_.shape(node.outputs[0]).features;
    return sum;
  }

  static bool repeats(std::vector<Value> xs) {
    std::ranges::sort(xs);
    return std::ranges::adjacent_find(xs) != xs.end();
  }

  void emit(const Stack& stack, Rewriter& rewriter) {
    std::vector<Value> inputs;
    for (const Value x : stack.xs) inputs.push_back(rewriter.now(x));
    const Value base = stack.members.front()->base;
    if (base >= 0) inputs.push_back(whole_.at(base));
    std::string present;
    for (const Sum* sum : stack.members) {
      for (const Value x : stack.xs) {
        const auto found = std::ranges::find(sum->xs, x);
        present += found == sum->xs.end() ? '0' : '1';
        if (found != sum->xs.end())
          inputs.push_back(rewriter.now(sum->weights[static_cast<std::size_t>(found - sum->xs.begin())]));
      }
      if (sum->bias >= 0) inputs.push_back(rewriter.now(sum->bias));
      present += sum->bias >= 0 ? "1 " : "0 ";
    }
    const Value y = rewriter.append(affine(), inputs,
                                    {{"terms", static_cast<Index>(stack.xs.size())},
                                     {"base", Index{base >= 0}},
                                     {"weights", present},
                                     {"of", std::string("matmul")}})[0];
    Index row = 0;
    for (const Sum* sum : stack.members) {
      const Value before = graph_.nodes()[at(sum->node)].outputs[0];
      whole_[before] = y;
      rewriter.stand_for(
          before, rewriter.append(operation("slice"), {y}, {{"start", row}, {"stop", row + sum->rows}})[0]);
      row += sum->rows;
    }
  }

  const Graph& graph_;
  Plan plan_;
  Uses uses_;
  std::map<int, Sum> sums_;  // by node
  std::vector<Stack> stacks_;
  std::map<Value, Value> whole_;  // the stacked result of which a value was one row block
};

}  // namespace

Rewritten stack_products(const Graph& graph, const Request& request) {
  return Stacks(graph, request).rewritten();
}

std::vector<std::vector<std::string>> stacked_weights(const Graph& graph) {
  std::vector<std::vector<std::string>> all;
  if (std::ranges::any_of(graph.recurrences(), [](const Recurrence& r) { return r.named < 0; })) return all;
  Request everything{.frames = 2};
  for (const Node& node : graph.nodes())
    everything.fetches.insert(everything.fetches.end(), node.outputs.begin(), node.outputs.end());
  for (const Recurrence& r : graph.recurrences()) everything.fetches.push_back(r.past);
  // What is fetched is not summed over: only what nobody uses is.
  std::vector<bool> used(at(graph.size()), false);
  for (const Node& node : graph.nodes())
    for (const Value v : node.inputs) used[at(v)] = true;
  std::erase_if(everything.fetches, [&](Value v) { return used[at(v)]; });

  const Rewritten sums = accumulate_sums(graph, everything);
  const Rewritten made = stack_products(sums.graph, sums.of(everything));
  for (const Node& node : made.graph.nodes()) {
    if (node.type != &affine()) continue;
    const auto terms = static_cast<std::size_t>(std::get<Index>(node.attributes.at("terms")));
    std::vector<std::vector<std::string>> columns(terms + 1);
    auto next = node.inputs.begin() + static_cast<std::ptrdiff_t>(terms) +
                std::get<Index>(node.attributes.at("base"));
    std::size_t column = 0;
    for (const char present : std::get<std::string>(node.attributes.at("weights"))) {
      if (present == '1')
        columns[column].push_back(made.graph.variables()[at(made.graph.info(*next++).origin)]);
      column = present == ' ' ? 0 : column + 1;
    }
    for (std::vector<std::string>& names : columns)
      if (names.size() > 1) all.push_back(std::move(names));
  }
  return all;
}

}  // namespace bptt
