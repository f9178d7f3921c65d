#include "unroll/program.h"

#include <algorithm>
#include <cmath>
#include <sstream>

namespace bptt {
namespace {

/// The same backwards. (Clang 15 does not compile the standard library's view of that name.)
template <class C>
struct Reversed {
  explicit Reversed(const C& all) : all(all) {}
  const C& all;
  auto begin() const { return all.rbegin(); }
  auto end() const { return all.rend(); }
};

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

}  // namespace

template <class S>
Program<S>::Program(const Graph& graph, Weights<S>& weights, const Request& request)
    : frames_(request.frames), loss_(request.loss), clock_{request.seed}, weights_(&weights) {
  const Plan plan(graph, request);
  weights.freeze({&graph});
  place_values(graph, plan);
  build_operations(graph, plan);
}

template <class S>
void Program<S>::place_values(const Graph& graph, const Plan& plan) {
  const std::size_t count = plan.computed.size();
  std::vector<Index> places(count, -1), gradient_places(count, -1);
  for (const Recurrence& recurrence : graph.recurrences()) {
    const std::size_t past = at(recurrence.past), named = at(recurrence.named);
    if (!plan.computed[past]) continue;
    const Index frame = graph.shape(recurrence.past).size();
    places[past] = values_.reserve(frame * (frames_ + 1));
    places[named] = places[past] + frame;
    if (!plan.differentiated[past]) continue;
    gradient_places[past] = gradients_.reserve(frame * (frames_ + 1));
    gradient_places[named] = gradient_places[past] + frame;
  }
  for (std::size_t v = 0; v < count; ++v) {
    const auto& [shape, extent] = graph.info(static_cast<Value>(v)).signature;
    if (!plan.computed[v] || graph.info(static_cast<Value>(v)).source == Source::Variable) continue;
    const Index numbers = shape.size() * (extent == Extent::Frame ? frames_ : 1);
    if (places[v] < 0) places[v] = values_.reserve(numbers);
    if (gradient_places[v] < 0 && plan.differentiated[v]) gradient_places[v] = gradients_.reserve(numbers);
  }
  require_memory(static_cast<double>(values_.planned() + gradients_.planned()) * sizeof(S));
  values_.commit();
  gradients_.commit();

  tensors_.resize(count);
  for (std::size_t v = 0; v < count; ++v) {
    if (!plan.computed[v]) continue;
    const auto& [signature, source, origin] = graph.info(static_cast<Value>(v));
    Tensor<S>& tensor = tensors_[v];
    if (source == Source::Variable) {
      tensor = weights_->tensor(graph.variables()[at(origin)]);
      if (!plan.differentiated[v]) tensor.gradient = nullptr;
      continue;
    }
    tensor.value = values_.at(places[v]);
    if (plan.differentiated[v]) tensor.gradient = gradients_.at(gradient_places[v]);
    tensor.shape = signature.shape;
    tensor.extent = signature.extent;
    tensor.outer = signature.shape.features;
    tensor.version = &clock_.window;
    if (source == Source::Constant)
      std::ranges::transform(graph.constants()[at(origin)], tensor.value,
                             [](double x) { return static_cast<S>(x); });
  }
  for (const Value v : graph.placeholders())
    if (plan.computed[at(v)]) placeholders_.push_back(v);
  for (const Recurrence& recurrence : graph.recurrences())
    if (plan.computed[at(recurrence.past)])
      carried_.push_back({recurrence.name, tensors_[at(recurrence.past)]});
}

template <class S>
void Program<S>::build_operations(const Graph& graph, const Plan& plan) {
  const auto make = [&](int n, Scratch<S> scratch) {
    const Node& node = graph.nodes()[at(n)];
    Binding<S> binding{{}, {}, node.attributes, frames_, scratch, &clock_};
    for (const Value v : node.inputs) binding.inputs.push_back(tensors_[at(v)]);
    for (const Value v : node.outputs) binding.outputs.push_back(tensors_[at(v)]);
    auto operation = static_cast<const Registered&>(*node.type).make(binding);
    return std::pair(std::move(operation), scratch.taken());
  };
  std::vector<Index> places;
  for (const Stage& stage : plan.stages)
    for (const int n : stage.nodes) places.push_back(scratch_.reserve(make(n, Scratch<S>()).second));
  scratch_.commit();

  auto place = places.begin();
  for (const Stage& stage : plan.stages) {
    RunStage run{{}, stage.stepwise};
    for (const int n : stage.nodes) {
      const Node& node = graph.nodes()[at(n)];
      operations_.push_back(make(n, Scratch<S>(scratch_.at(*place++))).first);
      Step step{operations_.back().get(), plan.backward[at(n)], 64, frames_, node.type->name, {}};
      // A constant factor, a weight above all, meets every lane of the frame; all else is looked at once.
      Index lanes = 1;
      for (const Value v : node.outputs) {
        step.outputs.push_back(tensors_[at(v)]);
        step.work += graph.shape(v).size() * node.type->cost;
        lanes = std::max(lanes, graph.shape(v).batch);
      }
      for (const Value v : node.inputs)
        step.work += graph.shape(v).size() * (graph.extent(v) == Extent::Constant ? lanes : 1);
      if (graph.extent(node.outputs.front()) == Extent::Frame)
        step.piece = std::clamp(Pulse::unseen / step.work, Index{1}, frames_);
      run.steps.push_back(std::move(step));
    }
    stages_.push_back(std::move(run));
  }
}

template <class S>
template <class F>
void Program<S>::pieces(const Step& step, Pulse& pulse, F&& run) const {
  for (Index from = 0; from < frames_; from += step.piece) {
    const Range piece{from, std::min(from + step.piece, frames_)};
    run(piece);
    pulse.spend(step.work * piece.size());
  }
}

template <class S>
void Program<S>::forward(std::uint64_t frame, Pulse& pulse) {
  clock_.frame = frame;
  ++clock_.window;
  for (const RunStage& stage : stages_) {
    if (stage.stepwise) {
      for (Index t = 0; t < frames_; ++t)
        for (const Step& step : stage.steps) {
          step.operation->forward({t, t + 1});
          pulse.spend(step.work);
        }
    } else {
      const Step& step = stage.steps.front();
      pieces(step, pulse, [&](Range r) { step.operation->forward(r); });
    }
  }
}

template <class S>
void Program<S>::backward(Pulse& pulse) {
  if (loss_ < 0) throw UsageError("this program was built without a loss");
  gradients_.clear();
  weights_->gradients().clear();
  const Tensor<S>& loss = tensor(loss_);
  if (!loss.gradient) return;  // the loss depends on nothing that has a gradient
  *loss.gradient = S(1);
  for (const RunStage& stage : Reversed(stages_)) {
    if (stage.stepwise) {
      for (Index t = frames_ - 1; t >= 0; --t)
        for (const Step& step : Reversed(stage.steps))
          if (step.backward) {
            step.operation->backward({t, t + 1});
            pulse.spend(step.work);
          }
    } else if (const Step& step = stage.steps.front(); step.backward) {
      pieces(step, pulse, [&](Range r) { step.operation->backward({frames_ - r.end, frames_ - r.begin}); });
    }
    for (const Step& step : stage.steps)
      if (step.backward) pieces(step, pulse, [&](Range r) { step.operation->accumulate(r, {}); });
  }
}

template <class S>
void Program<S>::load(const State<S>& state) {
  for (const Carried& c : carried_) c.window.values(0) = state.at(c.name);
}

template <class S>
void Program<S>::store(State<S>& state) const {
  for (const Carried& c : carried_) state.at(c.name) = c.window.values(frames_);
}

template <class S>
const Tensor<S>& Program<S>::tensor(Value v) const {
  if (v < 0 || at(v) >= tensors_.size() || !tensors_[at(v)].value)
    throw UsageError("this program does not compute value " + std::to_string(v));
  return tensors_[at(v)];
}

template <class S>
auto Program<S>::carried(const std::string& name) const -> const Carried& {
  const auto found = std::ranges::find(carried_, name, &Carried::name);
  if (found == carried_.end()) throw UsageError("this program does not carry the state '" + name + "'");
  return *found;
}

template <class S>
Eigen::Map<Matrix<S>> Program<S>::first(const std::string& name) const {
  const Tensor<S>& w = carried(name).window;
  return {w.value, w.shape.features, w.shape.batch};
}

template <class S>
Eigen::Map<Matrix<S>> Program<S>::last(const std::string& name) const {
  const Tensor<S>& w = carried(name).window;
  return {w.value + frames_ * w.shape.size(), w.shape.features, w.shape.batch};
}

template <class S>
Eigen::Map<Matrix<S>> Program<S>::first_gradient(const std::string& name) const {
  const Tensor<S>& w = carried(name).window;
  if (!w.gradient) throw UsageError("this program does not compute the gradient of the state '" + name + "'");
  return {w.gradient, w.shape.features, w.shape.batch};
}

template <class S>
std::vector<std::string> Program<S>::pasts() const {
  std::vector<std::string> names;
  for (const Carried& c : carried_) names.push_back(c.name);
  std::ranges::sort(names);
  return names;
}

template <class S>
std::size_t Program<S>::memory() const {
  return static_cast<std::size_t>(values_.size() + gradients_.size() + scratch_.size()) * sizeof(S);
}

template <class S>
std::vector<std::pair<std::vector<std::string>, bool>> Program<S>::stages() const {
  std::vector<std::pair<std::vector<std::string>, bool>> all;
  for (const RunStage& stage : stages_) {
    all.emplace_back(std::vector<std::string>{}, stage.stepwise);
    for (const Step& step : stage.steps) all.back().first.push_back(step.name);
  }
  return all;
}

template <class S>
std::string Program<S>::not_finite() const {
  const auto describe = [&](const std::string& what, const Tensor<S>& tensor) -> std::string {
    const Range all = tensor.frames({0, frames_});
    S largest = 0;
    Index first = -1;
    for (Index t = all.begin; t < all.end; ++t) {
      const Matrix<S> values = tensor.values(t);
      for (const S x : values.reshaped())
        if (std::isfinite(x))
          largest = std::max(largest, std::abs(x));
        else if (first < 0)
          first = t;
    }
    if (first < 0) return {};
    std::ostringstream text;
    text << what;
    if (tensor.extent == Extent::Frame) text << " at frame " << first << " of the window";
    text << "; its largest finite magnitude is " << largest;
    return text.str();
  };
  std::string found;
  for (const Variable& weight : weights_->variables()) {
    found = describe("the weight '" + weight.name + "'", weights_->tensor(weight.name));
    if (!found.empty()) return found;
  }
  for (const Value v : placeholders_) {
    found = describe("what was fed", tensor(v));
    if (!found.empty()) return found;
  }
  for (const Carried& c : carried_) {
    Tensor<S> incoming = c.window;
    incoming.extent = Extent::Constant;
    found = describe("the state '" + c.name + "' that came in", incoming);
    if (!found.empty()) return found;
  }
  for (const RunStage& stage : stages_)
    for (const Step& step : stage.steps)
      for (const Tensor<S>& output : step.outputs) {
        found =
            describe("the result of '" + step.name + "', of shape " + to_string(output.shape) + ",", output);
        if (!found.empty()) return found;
      }
  return "no value";
}

template class Program<float>;
template class Program<double>;

}  // namespace bptt
