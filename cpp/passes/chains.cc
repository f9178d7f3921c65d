// Element-wise operations on values of one shape that follow one another become one operation, which goes over memory
// once. Slices that they read are read where they lie.
#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "ops/chain.h"
#include "ops/operation.h"
#include "ops/rules.h"
#include "passes/passes.h"

namespace bptt {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

/// So many operations at most in one chain, so that its blocks are not too small.
constexpr std::size_t longest = 40;

class Chains {
 public:
  Chains(const Graph& graph, const Request& request)
      : graph_(graph),
        plan_(graph, request),
        uses_(graph, request, plan_),
        chain_of_(graph.nodes().size(), -1) {
    const auto joined = [&](int from, int to) {
      return elementwise(from) && elementwise(to) && shape(from) == shape(to) &&
             (uses_.stage(from) == uses_.stage(to) || !(uses_.stepwise(from) || uses_.stepwise(to)));
    };
    const auto step = [&](int from, int to) {
      return !(joined(from, to) || (is_slice(from) && elementwise(to)));
    };
    std::vector<int> far = distances(uses_, step);
    // As late as its users allow, so that it is made where it is used.
    for (int n = static_cast<int>(far.size()) - 1; n >= 0; --n) {
      if (!uses_.needed(n) || !elementwise(n) || uses_.kept(result(n))) continue;
      const std::vector<int>& users = uses_.users(result(n));
      const bool alike = std::ranges::all_of(users, [&](int to) {
        return uses_.stage(to) == uses_.stage(n) || !(uses_.stepwise(to) || uses_.stepwise(n));
      });
      if (!alike || users.empty()) continue;
      int latest = std::numeric_limits<int>::max();
      for (const int to : users) latest = std::min(latest, far[at(to)] - (step(n, to) ? 1 : 0));
      far[at(n)] = latest;
    }

    // Those that are equally far and use one another, directly.
    std::vector<int> root(graph.nodes().size());
    std::iota(root.begin(), root.end(), 0);
    const auto find = [&](int n) {
      while (root[at(n)] != n) n = root[at(n)] = root[at(root[at(n)])];
      return n;
    };
    for (int n = 0; n < static_cast<int>(root.size()); ++n)
      if (uses_.needed(n))
        for (const Value v : graph.nodes()[at(n)].inputs)
          if (const int from = uses_.maker(v); from >= 0 && joined(from, n) && far[at(from)] == far[at(n)])
            root[at(find(n))] = find(from);
    std::map<int, std::vector<int>> together;
    for (int n = 0; n < static_cast<int>(root.size()); ++n)
      if (uses_.needed(n) && elementwise(n)) together[find(n)].push_back(n);
    for (const auto& [first, nodes] : together)
      for (std::size_t from = 0; from < nodes.size(); from += longest) {
        const auto begin = nodes.begin() + static_cast<std::ptrdiff_t>(from);
        const std::vector<int> some(
            begin, begin + static_cast<std::ptrdiff_t>(std::min(longest, nodes.size() - from)));
        if (some.size() == 1 && !reads_slice(some[0])) continue;
        for (const int n : some) chain_of_[at(n)] = static_cast<int>(chains_.size());
        chains_.push_back(some);
      }
  }

  Rewritten rewritten() {
    Rewriter rewriter(uses_);
    rewriter.each(chains_, [&](const std::vector<int>& nodes) {
      if (chain_of_[at(nodes.front())] < 0)
        rewriter.copy(nodes.front());
      else
        emit(nodes, rewriter);
    });
    return rewriter.finish();
  }

 private:
  const Node& node(int n) const { return graph_.nodes()[at(n)]; }
  Value result(int n) const { return node(n).outputs[0]; }
  Shape shape(int n) const { return graph_.shape(result(n)); }
  bool elementwise(int n) const {
    return graph_.extent(result(n)) == Extent::Frame && row_rule<float>(node(n).type->name);
  }
  bool is_slice(int n) const {
    return node(n).type == &operation("slice") && graph_.extent(result(n)) == Extent::Frame;
  }
  bool reads_slice(int n) const {
    return std::ranges::any_of(node(n).inputs, [&](Value v) {
      const int from = uses_.maker(v);
      return from >= 0 && is_slice(from);
    });
  }

  void emit(const std::vector<int>& nodes, Rewriter& rewriter) {
    const int own = chain_of_[at(nodes.front())];
    ChainCode code{shape(nodes.front())};
    std::vector<Value> inputs;
    std::map<Value, Index> number;  // by value: what it is in the chain
    for (const int n : nodes)
      for (const Value v : node(n).inputs) {
        int from = uses_.maker(v);
        if (number.contains(v) || (from >= 0 && chain_of_[at(from)] == own)) continue;
        Value source = v;
        Index start = 0;
        // A slice of one row that is spread over more is no part of what it is cut from.
        if (graph_.shape(v).features != code.shape.features) from = -1;
        for (; from >= 0 && is_slice(from); from = uses_.maker(source)) {
          start += std::get<Index>(node(from).attributes.at("start"));
          source = node(from).inputs[0];
        }
        const Value now = rewriter.now(source);
        const auto place = std::ranges::find(inputs, now);
        number[v] = static_cast<Index>(code.loads.size());
        code.loads.push_back({place - inputs.begin(), start});
        if (place == inputs.end()) inputs.push_back(now);
      }
    std::vector<Value> outputs;
    for (const int n : nodes) {
      const std::vector<Value>& operands = node(n).inputs;
      code.steps.push_back({node(n).type->name, number.at(operands.front()), number.at(operands.back())});
      const Value v = result(n);
      number[v] = static_cast<Index>(code.loads.size() + code.steps.size()) - 1;
      const bool seen = uses_.kept(v) || std::ranges::any_of(uses_.users(v), [&](int user) {
                          return chain_of_[at(user)] != own;
                        });
      if (!seen) continue;
      code.outputs.push_back(number.at(v));
      outputs.push_back(v);
    }
    const std::vector<Value> made = rewriter.append(chain(), inputs, code.attributes());
    for (std::size_t k = 0; k < made.size(); ++k) rewriter.stand_for(outputs[k], made[k]);
  }

  const Graph& graph_;
  Plan plan_;
  Uses uses_;
  std::vector<int> chain_of_;  // by node: the chain that it is in, or -1
  std::vector<std::vector<int>> chains_;
};

}  // namespace

Rewritten chain_elementwise(const Graph& graph, const Request& request) {
  return Chains(graph, request).rewritten();
}

Rewritten rewritten(const Graph& graph, const Request& request) {
  Rewritten all = accumulate_sums(graph, request);
  for (const auto pass : {stack_products, chain_elementwise}) {
    Rewritten next = pass(all.graph, all.of(request));
    for (Value& v : all.now)
      if (v >= 0) v = next.now[at(v)];
    all.graph = std::move(next.graph);
  }
  return all;
}

}  // namespace bptt
