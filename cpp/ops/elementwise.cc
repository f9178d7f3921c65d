// Element-wise operations: one row each, the value and, beside it, its derivative.
//
// Every rule is written over Eigen array expressions. `y` is the value already computed, for derivatives that
// are cheaper in it. Binary rules follow numpy's broadcasting over (features, batch), and constants spread
// over time.
#include <type_traits>

#include "kernel/activate.h"
#include "ops/chain.h"
#include "ops/rules.h"

namespace bptt {
namespace {

template <class X>
using ScalarOf = typename std::decay_t<X>::Scalar;

template <class S>
using NumberRow = Eigen::Array<S, Eigen::Dynamic, 1>;

/// What derivatives look at.
enum Needs { None = 0, A = 1, B = 2, Y = 4 };

// clang-format off

struct Negative { static constexpr auto name = "negative"; static constexpr int needs = None; static constexpr LinearIn linear = LinearIn::All;
  static auto value(const auto& x) { return -x; }
  static auto slope(const auto& x, const auto&) { using S = ScalarOf<decltype(x)>; return NumberRow<S>::Constant(x.size(), S(-1)); } };
struct Tanh { static constexpr auto name = "tanh"; static constexpr int needs = Y; static constexpr bool costly = true;
  static auto value(const auto& x) { return x.unaryExpr(TanhOf<ScalarOf<decltype(x)>>{}); }
  static auto slope(const auto&, const auto& y) { return ScalarOf<decltype(y)>(1) - y.square(); } };
struct Sigmoid { static constexpr auto name = "sigmoid"; static constexpr int needs = Y; static constexpr bool costly = true;
  static auto value(const auto& x) { return x.unaryExpr(SigmoidOf<ScalarOf<decltype(x)>>{}); }
  static auto slope(const auto&, const auto& y) { return y * (ScalarOf<decltype(y)>(1) - y); } };
struct Relu { static constexpr auto name = "relu"; static constexpr int needs = A;  // the derivative at 0 is taken to be 0
  static auto value(const auto& x) { return x.template max<Eigen::PropagateNaN>(ScalarOf<decltype(x)>(0)); }
  static auto slope(const auto& x, const auto&) { using S = ScalarOf<decltype(x)>; return (x > S(0)).template cast<S>(); } };
struct Exp { static constexpr auto name = "exp"; static constexpr int needs = Y; static constexpr bool costly = true;
  static auto value(const auto& x) { return x.exp(); }
  static auto slope(const auto&, const auto& y) { return y; } };
struct Log { static constexpr auto name = "log"; static constexpr int needs = A; static constexpr bool costly = true; static constexpr double low = 0.2, high = 2;
  static auto value(const auto& x) { return x.log(); }
  static auto slope(const auto& x, const auto&) { return x.inverse(); } };
struct Sqrt { static constexpr auto name = "sqrt"; static constexpr int needs = Y; static constexpr bool costly = true; static constexpr double low = 0.2, high = 2;
  static auto value(const auto& x) { return x.sqrt(); }
  static auto slope(const auto&, const auto& y) { return ScalarOf<decltype(y)>(0.5) / y; } };
struct Square { static constexpr auto name = "square"; static constexpr int needs = A;
  static auto value(const auto& x) { return x.square(); }
  static auto slope(const auto& x, const auto&) { return ScalarOf<decltype(x)>(2) * x; } };
struct Abs { static constexpr auto name = "abs"; static constexpr int needs = A;  // the derivative at 0 is taken to be 0
  static auto value(const auto& x) { return x.abs(); }
  static auto slope(const auto& x, const auto&) { return x.sign(); } };
struct StopGradient { static constexpr auto name = "stop_gradient"; static constexpr int needs = None; static constexpr LinearIn linear = LinearIn::All; static constexpr bool differentiable = false;
  static auto value(const auto& x) { return x; }
  static auto slope(const auto& x, const auto&) { using S = ScalarOf<decltype(x)>; return NumberRow<S>::Constant(x.size(), S(0)); } };

struct Add { static constexpr auto name = "add"; static constexpr int needs = None; static constexpr LinearIn linear = LinearIn::All;
  static auto value(const auto& a, const auto& b) { return a + b; }
  static auto slope_a(const auto& a, const auto&, const auto&) { using S = ScalarOf<decltype(a)>; return NumberRow<S>::Constant(a.size(), S(1)); }
  static auto slope_b(const auto& a, const auto&, const auto&) { using S = ScalarOf<decltype(a)>; return NumberRow<S>::Constant(a.size(), S(1)); } };
struct Subtract { static constexpr auto name = "subtract"; static constexpr int needs = None; static constexpr LinearIn linear = LinearIn::All;
  static auto value(const auto& a, const auto& b) { return a - b; }
  static auto slope_a(const auto& a, const auto&, const auto&) { using S = ScalarOf<decltype(a)>; return NumberRow<S>::Constant(a.size(), S(1)); }
  static auto slope_b(const auto& a, const auto&, const auto&) { using S = ScalarOf<decltype(a)>; return NumberRow<S>::Constant(a.size(), S(-1)); } };
struct Multiply { static constexpr auto name = "multiply"; static constexpr int needs = A | B; static constexpr LinearIn linear = LinearIn::Each;
  static auto value(const auto& a, const auto& b) { return a * b; }
  static auto slope_a(const auto&, const auto& b, const auto&) { return b; }
  static auto slope_b(const auto& a, const auto&, const auto&) { return a; } };
struct Divide { static constexpr auto name = "divide"; static constexpr int needs = B | Y; static constexpr LinearIn linear = LinearIn::First; static constexpr bool costly = true; static constexpr double low = 0.5, high = 2;
  static auto value(const auto& a, const auto& b) { return a / b; }
  static auto slope_a(const auto&, const auto& b, const auto&) { return b.inverse(); }
  static auto slope_b(const auto&, const auto& b, const auto& y) { return -y / b; } };
struct Maximum { static constexpr auto name = "maximum"; static constexpr int needs = A | B;  // at a tie the gradient goes to the first operand
  static auto value(const auto& a, const auto& b) { return a.template max<Eigen::PropagateNaN>(b); }
  static auto slope_a(const auto& a, const auto& b, const auto&) { return (a >= b).template cast<ScalarOf<decltype(a)>>(); }
  static auto slope_b(const auto& a, const auto& b, const auto&) { return (a < b).template cast<ScalarOf<decltype(a)>>(); } };
struct Minimum { static constexpr auto name = "minimum"; static constexpr int needs = A | B;  // at a tie the gradient goes to the first operand
  static auto value(const auto& a, const auto& b) { return a.template min<Eigen::PropagateNaN>(b); }
  static auto slope_a(const auto& a, const auto& b, const auto&) { return (a <= b).template cast<ScalarOf<decltype(a)>>(); }
  static auto slope_b(const auto& a, const auto& b, const auto&) { return (a > b).template cast<ScalarOf<decltype(a)>>(); } };
struct Less { static constexpr auto name = "less"; static constexpr int needs = None; static constexpr bool differentiable = false;  // 1 where a < b, else 0
  static auto value(const auto& a, const auto& b) { return (a < b).template cast<ScalarOf<decltype(a)>>(); }
  static auto slope_a(const auto& a, const auto&, const auto&) { using S = ScalarOf<decltype(a)>; return NumberRow<S>::Constant(a.size(), S(0)); }
  static auto slope_b(const auto& a, const auto&, const auto&) { using S = ScalarOf<decltype(a)>; return NumberRow<S>::Constant(a.size(), S(0)); } };
struct Huber { static constexpr auto name = "huber"; static constexpr int needs = A | B;  // of an error and delta: with c = min(|e|, delta), c (|e| - c/2)
  static auto value(const auto& e, const auto& delta) { using S = ScalarOf<decltype(e)>; return (e.abs() > delta).select(delta * (e.abs() - S(0.5) * delta), S(0.5) * e.square()); }
  static auto slope_a(const auto& e, const auto& delta, const auto&) { return e.abs().min(delta) * e.sign(); }
  static auto slope_b(const auto& e, const auto& delta, const auto&) { using S = ScalarOf<decltype(e)>; return (e.abs() - delta).max(S(0)); } };
struct BinaryCrossEntropy { static constexpr auto name = "binary_cross_entropy_with_logits"; static constexpr int needs = A | B; static constexpr bool costly = true;  // of logits x and probabilities p
  static auto value(const auto& x, const auto& p) { using S = ScalarOf<decltype(x)>; return x.max(S(0)) - x * p + (-x.abs()).exp().log1p(); }
  static auto slope_a(const auto& x, const auto& p, const auto&) { return x.unaryExpr(SigmoidOf<ScalarOf<decltype(x)>>{}) - p; }
  static auto slope_b(const auto& x, const auto&, const auto&) { return -x; } };

// clang-format on

// Rules by themselves, over whole packets.

template <class S, class N>
using Packeted =
    Eigen::Map<std::conditional_t<std::is_const_v<N>, const Eigen::Array<S, width_of<FullPacket<S>>, 1>,
                                  Eigen::Array<S, width_of<FullPacket<S>>, 1>>>;

template <class N>
auto packet_at(N* data) {
  return Packeted<std::remove_const_t<N>, N>(data);
}

template <class Rule>
concept OfOne = requires(Eigen::Array<float, 4, 1> x) { Rule::value(x); };

template <class Rule, class S>
void rows_forward(S* y, const S* a, [[maybe_unused]] const S* b, Index n) {
  for (Index i = 0; i < n; i += width_of<FullPacket<S>>) {
    if constexpr (OfOne<Rule>)
      packet_at(y + i) = Rule::value(packet_at(a + i));
    else
      packet_at(y + i) = Rule::value(packet_at(a + i), packet_at(b + i));
  }
}

/// dx (+)= dy times the slope, given for each packet.
template <class S, class F>
void rows_add(S* dx, bool add, const S* dy, Index n, F&& slope) {
  constexpr Index W = width_of<FullPacket<S>>;
  if (add)
    for (Index i = 0; i < n; i += W) packet_at(dx + i) += packet_at(dy + i) * slope(i);
  else
    for (Index i = 0; i < n; i += W) packet_at(dx + i) = packet_at(dy + i) * slope(i);
}

template <class Rule, class S>
void rows_backward(const RowBack& r, S* const* at, S* gradients, Index n) {
  const auto gradient = [&](std::size_t v) { return gradients + static_cast<Index>(v) * n; };
  const S* const a = Rule::needs & A ? at[r.a] : gradients;
  [[maybe_unused]] const S* const b = Rule::needs & B ? at[r.b] : gradients;
  const S* const y = Rule::needs & Y ? at[r.y] : gradients;
  const S* const dy = gradient(r.y);
  if constexpr (OfOne<Rule>) {
    rows_add(gradient(r.a), r.add_a, dy, n,
             [&](Index i) { return Rule::slope(packet_at(a + i), packet_at(y + i)); });
  } else {
    if (r.to_a)
      rows_add(gradient(r.a), r.add_a, dy, n,
               [&](Index i) { return Rule::slope_a(packet_at(a + i), packet_at(b + i), packet_at(y + i)); });
    if (r.to_b)
      rows_add(gradient(r.b), r.add_b, dy, n,
               [&](Index i) { return Rule::slope_b(packet_at(a + i), packet_at(b + i), packet_at(y + i)); });
  }
}

template <class S>
std::map<std::string, RowRule<S>>& row_rules() {
  static std::map<std::string, RowRule<S>> list;
  return list;
}

template <class Rule, class S>
void list_rule() {
  RowRule<S> rule{};
  rule.forward = rows_forward<Rule, S>;
  rule.backward = rows_backward<Rule, S>;
  rule.operands = OfOne<Rule> ? 1 : 2;
  rule.differentiable = !requires { Rule::differentiable; };
  rule.costly = requires { Rule::costly; };
  rule.reads_a = Rule::needs & A;
  rule.reads_b = Rule::needs & B;
  rule.reads_y = Rule::needs & Y;
  row_rules<S>()[Rule::name] = rule;
}

/// What a rule says of itself, or what holds for most.
template <class Rule>
OpType described() {
  list_rule<Rule, float>();
  list_rule<Rule, double>();
  OpType type;
  type.name = Rule::name;
  type.split = by_lanes;
  if constexpr (requires { Rule::differentiable; }) type.differentiable = Rule::differentiable;
  if constexpr (requires { Rule::linear; }) type.linear = Rule::linear;
  return type;
}

template <class Rule>
Example with_domain(Example example) {
  if constexpr (requires { Rule::low; }) {
    example.low = Rule::low;
    example.high = Rule::high;
  }
  return example;
}

/// By itself it is a chain of one.
template <class Rule>
struct UnaryOp {
  template <class S>
  struct Type {
    static std::unique_ptr<Operation<S>> make(const Binding<S>& b) {
      return make_chain(
          b, {.shape = b.outputs[0].shape, .loads = {{0, 0}}, .steps = {{Rule::name, 0, 0}}, .outputs = {1}});
    }
  };

  static OpType type() {
    OpType type = described<Rule>();
    type.infer = [](const Call& call) -> std::vector<Signature> {
      require_inputs(call, Rule::name, 1);
      return {call.inputs[0]};
    };
    type.begins = begins_first;
    type.examples = {with_domain<Rule>({{{1, 1}}}), with_domain<Rule>({{{3, 2}}}),
                     with_domain<Rule>({{{37, 9}}})};
    return type;
  }
};

Index broadcast(Index a, Index b, const Call& call, const char* name) {
  if (a != b && a != 1 && b != 1)
    throw ShapeError(std::string(name) + ": shapes " + to_string(call.inputs[0].shape) + " and " +
                     to_string(call.inputs[1].shape) + " do not broadcast to one (features, batch)");
  return a == 1 ? b : a;
}

template <class Rule>
struct BinaryOp {
  template <class S>
  struct Type {
    static std::unique_ptr<Operation<S>> make(const Binding<S>& b) {
      return make_chain(b, {.shape = b.outputs[0].shape,
                            .loads = {{0, 0}, {1, 0}},
                            .steps = {{Rule::name, 0, 1}},
                            .outputs = {2}});
    }
  };

  static OpType type() {
    OpType type = described<Rule>();
    type.infer = [](const Call& call) -> std::vector<Signature> {
      require_inputs(call, Rule::name, 2);
      const Shape a = call.inputs[0].shape, b = call.inputs[1].shape;
      return {{{broadcast(a.features, b.features, call, Rule::name),
                broadcast(a.batch, b.batch, call, Rule::name)},
               call.extent()}};
    };
    type.begins = [](const Call& call, std::size_t input) {
      const Shape a = call.inputs[0].shape, b = call.inputs[1].shape;
      return call.inputs[input].shape == Shape{std::max(a.features, b.features), std::max(a.batch, b.batch)};
    };
    for (const auto& [a, b] : std::vector<std::pair<Shape, Shape>>{{{1, 1}, {1, 1}},
                                                                   {{3, 2}, {3, 2}},
                                                                   {{3, 1}, {3, 4}},
                                                                   {{1, 4}, {3, 4}},
                                                                   {{3, 4}, {1, 1}},
                                                                   {{3, 1}, {1, 2}},
                                                                   {{37, 9}, {37, 9}},
                                                                   {{37, 1}, {37, 9}}})
      type.examples.push_back(with_domain<Rule>({{a, b}}));
    return type;
  }
};

const Register<UnaryOp<Negative>::Type> negative{UnaryOp<Negative>::type()};
const Register<UnaryOp<Tanh>::Type> tanh{UnaryOp<Tanh>::type()};
const Register<UnaryOp<Sigmoid>::Type> sigmoid{UnaryOp<Sigmoid>::type()};
const Register<UnaryOp<Relu>::Type> relu{UnaryOp<Relu>::type()};
const Register<UnaryOp<Exp>::Type> exp{UnaryOp<Exp>::type()};
const Register<UnaryOp<Log>::Type> log{UnaryOp<Log>::type()};
const Register<UnaryOp<Sqrt>::Type> sqrt{UnaryOp<Sqrt>::type()};
const Register<UnaryOp<Square>::Type> square{UnaryOp<Square>::type()};
const Register<UnaryOp<Abs>::Type> abs{UnaryOp<Abs>::type()};
const Register<UnaryOp<StopGradient>::Type> stop_gradient{UnaryOp<StopGradient>::type()};
const Register<BinaryOp<Add>::Type> add{BinaryOp<Add>::type()};
const Register<BinaryOp<Subtract>::Type> subtract{BinaryOp<Subtract>::type()};
const Register<BinaryOp<Multiply>::Type> multiply{BinaryOp<Multiply>::type()};
const Register<BinaryOp<Divide>::Type> divide{BinaryOp<Divide>::type()};
const Register<BinaryOp<Maximum>::Type> maximum{BinaryOp<Maximum>::type()};
const Register<BinaryOp<Minimum>::Type> minimum{BinaryOp<Minimum>::type()};
const Register<BinaryOp<Less>::Type> less{BinaryOp<Less>::type()};
const Register<BinaryOp<Huber>::Type> huber{BinaryOp<Huber>::type()};
const Register<BinaryOp<BinaryCrossEntropy>::Type> binary_cross_entropy{BinaryOp<BinaryCrossEntropy>::type()};

}  // namespace

template <class S>
const RowRule<S>* row_rule(const std::string& name) {
  const auto found = row_rules<S>().find(name);
  return found == row_rules<S>().end() ? nullptr : &found->second;
}

template const RowRule<float>* row_rule(const std::string&);
template const RowRule<double>* row_rule(const std::string&);

}  // namespace bptt
