// W x + U h + b: the sum is accumulated in one product, instead of several products and additions.
//
// Addends that are neither products with weights nor a bias stay additions. Inside a cycle a sum is made in steps, since
// not all of its products can be had at the same time: first those with what is outside of the cycle and with past
// values; then those with what the frame itself gives, such as the new cell under an LSTM's output gate.
#include <map>

#include "ops/affine.h"
#include "ops/operation.h"
#include "passes/passes.h"

namespace bptt {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

/// Below so many lanes, the products with what is outside of a cycle are better made for all frames at once.
constexpr Index few_lanes = 4;

class Sums {
 public:
  Sums(const Graph& graph, const Request& request)
      : graph_(graph), frames_(request.frames), plan_(graph, request), uses_(graph, request, plan_) {
    std::vector<bool> taken(graph.nodes().size(), false);
    for (int n = static_cast<int>(graph.nodes().size()) - 1; n >= 0; --n) {  // whole sums before their parts
      if (!uses_.needed(n) || taken[at(n)] || !(is_addition(n) || is_product(n))) continue;
      Sum sum{{n}};
      if (is_product(n))
        sum.products.push_back(n);
      else
        for (const Value v : graph.nodes()[at(n)].inputs) collect(v, graph.shape(result(n)), sum);
      if (sum.products.empty()) continue;
      for (const int member : sum.nodes) taken[at(member)] = true;
      sums_.push_back(std::move(sum));
    }
    distances_ = distances(uses_, [&](int from, int) { return is_product(from); });
  }

  Rewritten rewritten() {
    std::vector<std::vector<int>> groups;
    std::map<int, const Sum*> sum_of;  // by its first node
    for (const Sum& sum : sums_) {
      groups.push_back(sum.nodes);
      sum_of[sum.nodes.front()] = &sum;
    }
    Rewriter rewriter(uses_);
    rewriter.each(groups, [&](const std::vector<int>& group) {
      const auto found = sum_of.find(group.front());
      if (found == sum_of.end())
        rewriter.copy(group.front());
      else
        rewriter.stand_for(result(group.front()), emit(*found->second, rewriter));
    });
    return rewriter.finish();
  }

 private:
  struct Sum {
    std::vector<int> nodes;          // the last addition first
    std::vector<int> products = {};  // some of them
    Value bias = -1;
    std::vector<Value> others = {};  // addends that are something else
  };

  Value result(int n) const { return graph_.nodes()[at(n)].outputs[0]; }
  bool is_addition(int n) const {
    return graph_.nodes()[at(n)].type == &operation("add") && graph_.extent(result(n)) == Extent::Frame;
  }
  bool is_product(int n) const {
    const Node& node = graph_.nodes()[at(n)];
    return node.type == &operation("matmul") && graph_.info(node.inputs[0]).source == Source::Variable &&
           graph_.extent(node.inputs[1]) == Extent::Frame;
  }

  void collect(Value root, Shape shape, Sum& sum) const {
    std::vector<Value> open{root};  // the next one last
    while (!open.empty()) {
      const Value v = open.back();
      open.pop_back();
      const int n = uses_.maker(v);
      const bool ours = n >= 0 && uses_.only(v) && graph_.shape(v) == shape;
      if (ours && is_addition(n)) {
        sum.nodes.push_back(n);
        const std::vector<Value>& inputs = graph_.nodes()[at(n)].inputs;
        open.insert(open.end(), inputs.rbegin(), inputs.rend());
      } else if (ours && is_product(n)) {
        sum.nodes.push_back(n);
        sum.products.push_back(n);
      } else if (sum.bias < 0 && graph_.info(v).source == Source::Variable &&
                 graph_.shape(v) == Shape{shape.features, 1}) {
        sum.bias = v;
      } else {
        sum.others.push_back(v);
      }
    }
  }

  Value emit(const Sum& sum, Rewriter& rewriter) const {
    const int last = sum.nodes.front(), stage = uses_.stage(last);
    const auto product = [&](const std::vector<int>& products, Value bias, Value base) {
      std::vector<Value> inputs;
      std::string present;
      for (const int n : products) inputs.push_back(rewriter.now(graph_.nodes()[at(n)].inputs[1]));
      if (base >= 0) inputs.push_back(base);
      for (const int n : products) {
        inputs.push_back(rewriter.now(graph_.nodes()[at(n)].inputs[0]));
        present += '1';
      }
      if (bias >= 0) inputs.push_back(rewriter.now(bias));
      present += bias >= 0 ? '1' : '0';
      return rewriter.append(affine(), inputs,
                             {{"terms", static_cast<Index>(products.size())},
                              {"base", Index{base >= 0}},
                              {"weights", present},
                              {"of", std::string("matmul")}})[0];
    };

    std::vector<int> outside;
    std::map<int, std::vector<int>> inside;  // by distance
    for (const int n : sum.products) {
      const Value x = graph_.nodes()[at(n)].inputs[1];
      if (!uses_.stepwise(last) || !uses_.inside(x, stage)) {
        outside.push_back(n);
        continue;
      }
      const int from = uses_.maker(x);  // -1: a past value
      inside[from < 0 ? 0 : distances_[at(from)] + (is_product(from) ? 1 : 0)].push_back(n);
    }
    const bool apart = frames_ > 1 && graph_.shape(result(last)).batch < few_lanes;
    Value bias = sum.bias, base = -1, total = -1;
    if (!outside.empty() && (apart || inside.empty())) {
      base = total = product(outside, bias, -1);
      bias = -1;
      outside.clear();
    }
    const OpType& add = operation("add");
    for (auto& [distance, products] : inside) {
      products.insert(products.begin(), outside.begin(), outside.end());
      outside.clear();
      const Value next = product(products, bias, base);
      total = total < 0 || base >= 0 ? next : rewriter.append(add, {total, next}, {})[0];
      bias = base = -1;
    }
    for (const Value v : sum.others) total = rewriter.append(add, {total, rewriter.now(v)}, {})[0];
    return total;
  }

  const Graph& graph_;
  Index frames_;
  Plan plan_;
  Uses uses_;
  std::vector<Sum> sums_;
  std::vector<int> distances_;
};

}  // namespace

Rewritten accumulate_sums(const Graph& graph, const Request& request) {
  return Sums(graph, request).rewritten();
}

}  // namespace bptt
