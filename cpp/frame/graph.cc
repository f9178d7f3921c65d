#include "frame/graph.h"

#include <algorithm>

namespace bptt {

std::string to_string(const Shape& shape) {
  return std::string("(") + std::to_string(shape.features) + ", " + std::to_string(shape.batch) + ")";
}

namespace {

template <class T>
const T& attribute(const Attributes& attributes, const std::string& name) {
  const auto found = attributes.find(name);
  if (found == attributes.end() || !std::holds_alternative<T>(found->second))
    throw UsageError("missing or mistyped attribute '" + name + "'");
  return std::get<T>(found->second);
}

Shape checked(Shape shape) {
  if (shape.features < 1 || shape.batch < 1)
    throw ShapeError("a frame value has at least one feature and one lane; got " + to_string(shape));
  return shape;
}

}  // namespace

Index Call::integer(const std::string& name) const {
  return attribute<Index>(attributes, name);
}

double Call::real(const std::string& name) const {
  return attribute<double>(attributes, name);
}

const std::string& Call::text(const std::string& name) const {
  return attribute<std::string>(attributes, name);
}

Extent Call::extent() const {
  bool frame = false, window = false;
  for (const Signature& input : inputs) {
    frame |= input.extent == Extent::Frame;
    window |= input.extent == Extent::Window;
  }
  if (frame && window)
    throw UsageError(
        "a window value, such as a mean over all frames, has no value at each frame, "
        "so it cannot be combined with a value that has one");
  return window ? Extent::Window : frame ? Extent::Frame : Extent::Constant;
}

void require_inputs(const Call& call, const std::string& name, std::size_t count) {
  if (call.inputs.size() != count)
    throw UsageError(name + " takes " + std::to_string(count) + " inputs, got " +
                     std::to_string(call.inputs.size()));
}

void require_shape(const Call& call, std::size_t input, Shape expected, const std::string& what) {
  const Shape came = call.inputs[input].shape;
  if (!(came == expected))
    throw ShapeError(what + " must have shape " + to_string(expected) + ", got " + to_string(came));
}

Value Graph::add(Signature signature, Source source, std::size_t origin) {
  checked(signature.shape);
  values_.push_back({signature, source, static_cast<int>(origin)});
  return size() - 1;
}

Value Graph::placeholder(Shape shape) {
  const Value v = add({shape, Extent::Frame}, Source::Placeholder, placeholders_.size());
  placeholders_.push_back(v);
  return v;
}

Value Graph::variable(const std::string& name, Shape shape) {
  const Value v = add({shape, Extent::Constant}, Source::Variable, variables_.size());
  variables_.push_back(name);
  return v;
}

Value Graph::constant(Shape shape, std::vector<double> numbers) {
  if (static_cast<Index>(numbers.size()) != shape.size())
    throw ShapeError("a constant of shape " + to_string(shape) + " takes " + std::to_string(shape.size()) +
                     " numbers, got " + std::to_string(numbers.size()));
  const Value v = add({shape, Extent::Constant}, Source::Constant, constants_.size());
  constants_.push_back(std::move(numbers));
  return v;
}

Value Graph::past(const std::string& name, Shape shape) {
  const Value v = add({shape, Extent::Frame}, Source::Past, recurrences_.size());
  recurrences_.push_back({name, v});
  return v;
}

void Graph::begin(Value past, Value start) {
  Recurrence& recurrence = recurrences_[static_cast<std::size_t>(info(past).origin)];
  const auto& [begun, extent] = info(start).signature;
  const Shape shape = this->shape(past);
  if (extent != Extent::Constant)
    throw UsageError("the starting value of '" + recurrence.name +
                     "' must not change in time: it is made of variables and constants");
  if (!(begun == shape) && !(begun == Shape{shape.features, 1}))
    throw ShapeError("the starting value of '" + recurrence.name + "' has shape " + to_string(begun) +
                     ", but its past value has shape " + to_string(shape));
  recurrence.start = start;
}

std::vector<Value> Graph::append(const OpType& type, const std::vector<Value>& inputs,
                                 Attributes attributes) {
  Call call{{}, attributes};
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const ValueInfo& input = info(inputs[i]);
    if (type.is_cell() && i >= type.first_weight && input.source != Source::Variable)
      throw UsageError(type.name + ": input " + std::to_string(i) + " is a weight and must be a variable");
    if (type.is_cell() && i < type.first_weight && input.signature.extent != Extent::Frame)
      throw UsageError(type.name + ": input " + std::to_string(i) + " must have a value at each frame");
    call.inputs.push_back(input.signature);
  }
  std::vector<Value> outputs;
  for (const Signature& signature : type.infer(call))
    outputs.push_back(add(signature, Source::Operation, nodes_.size()));
  nodes_.push_back({&type, inputs, outputs, std::move(attributes)});
  return outputs;
}

Value Graph::tie(Value past, Value value, const OpType& expand) {
  if (info(past).source != Source::Past) throw UsageError("only a past value can be tied");
  Recurrence& recurrence = recurrences_[static_cast<std::size_t>(info(past).origin)];
  if (recurrence.named >= 0) throw UsageError("'" + recurrence.name + "' is named twice");
  const ValueInfo named = info(value);
  if (named.signature.extent == Extent::Window)
    throw UsageError("'" + recurrence.name + "' is named a window value, which has no value at each frame");
  const Shape from = named.signature.shape, to = shape(past);
  const bool spread = from == Shape{to.features, 1};
  if (!(from == to) && !spread)
    throw ShapeError("'" + recurrence.name + "' is named a value of shape " + to_string(from) +
                     ", but its past value has shape " + to_string(to));
  const bool owns = named.source == Source::Operation && named.signature.extent == Extent::Frame &&
                    from == to && !recurrence_of_named(value);
  recurrence.named =
      owns ? value : append(expand, {value}, {{"features", to.features}, {"batch", to.batch}})[0];
  return recurrence.named;
}

Index Graph::lanes() const {
  Index lanes = 1;
  for (const Value v : placeholders_) lanes = std::max(lanes, shape(v).batch);
  for (const Recurrence& r : recurrences_) lanes = std::max(lanes, shape(r.past).batch);
  return lanes;
}

const ValueInfo& Graph::info(Value v) const {
  if (v < 0 || v >= size()) throw UsageError("no such value in this graph");
  return values_[static_cast<std::size_t>(v)];
}

Call Graph::call(const Node& node) const {
  Call call{{}, node.attributes};
  for (const Value v : node.inputs) call.inputs.push_back(info(v).signature);
  return call;
}

const Recurrence* Graph::recurrence_of_past(Value v) const {
  const ValueInfo& value = info(v);
  return value.source == Source::Past ? &recurrences_[static_cast<std::size_t>(value.origin)] : nullptr;
}

const Recurrence* Graph::recurrence_of_named(Value v) const {
  const auto found = std::find_if(recurrences_.begin(), recurrences_.end(),
                                  [v](const Recurrence& r) { return r.named == v; });
  return found == recurrences_.end() ? nullptr : &*found;
}

std::vector<bool> Graph::ancestors(const std::vector<Value>& roots) const {
  std::vector<bool> seen(values_.size(), false);
  std::vector<Value> open(roots);
  while (!open.empty()) {
    const Value v = open.back();
    open.pop_back();
    const ValueInfo& value = info(v);
    if (seen[static_cast<std::size_t>(v)]) continue;
    seen[static_cast<std::size_t>(v)] = true;
    if (const Recurrence* recurrence = recurrence_of_past(v)) {
      if (recurrence->named < 0)
        throw UsageError("the past value '" + recurrence->name + "' was never named");
      open.push_back(recurrence->named);
      open.push_back(recurrence->start);
    }
    if (value.source == Source::Operation) {
      const std::vector<Value>& inputs = nodes_[static_cast<std::size_t>(value.origin)].inputs;
      open.insert(open.end(), inputs.begin(), inputs.end());
    }
  }
  return seen;
}

}  // namespace bptt
