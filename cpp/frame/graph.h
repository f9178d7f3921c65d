// The frame as the user wrote it: an append-only graph of values and the operations between them.
//
// A value stands for a (features, batch) matrix at every time step. Nothing here knows how long a window is,
// what an operation computes, or where numbers live.
#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "frame/errors.h"

namespace bptt {

using Index = std::ptrdiff_t;
using Value = int;  // the number of a value within its graph

struct Shape {
  Index features = 1, batch = 1;
  Index size() const { return features * batch; }
  bool operator==(const Shape&) const = default;
};

std::string to_string(const Shape&);

/// Along time, a value is one of three things.
enum class Extent {
  Constant,  // the same at every frame: depends on no placeholder, past value or noise; held once
  Frame,     // one matrix for each frame
  Window,    // made from all frames of a window, such as a loss; no frame can use it
};

/// What is known of a value when it is traced.
struct Signature {
  Shape shape;
  Extent extent = Extent::Frame;
};

using Attribute = std::variant<Index, double, std::string>;
using Attributes = std::map<std::string, Attribute>;

/// One call of an operation, as its shape rule sees it.
struct Call {
  std::vector<Signature> inputs;
  const Attributes& attributes;

  Index integer(const std::string& name) const;
  double real(const std::string& name) const;
  const std::string& text(const std::string& name) const;
  /// Window if any input is, else Frame if any is, else Constant. Frame with Window throws UsageError.
  Extent extent() const;
};

/// Throws UsageError unless the call has so many inputs.
void require_inputs(const Call&, const std::string& name, std::size_t count);
/// Throws ShapeError unless the input has this shape.
void require_shape(const Call&, std::size_t input, Shape, const std::string& what);

/// A way to call an operation that tests use: shapes, attributes, and where to draw the inputs from.
struct Example {
  std::vector<Shape> inputs;
  Attributes attributes = {};
  double low = -1.5, high = 1.5;
};

/// How one call of an operation can be shared out among threads.
enum class Split {
  None,    // one thread does all of it
  Frames,  // disjoint ranges of frames, at the same time; unless it steps through time by itself
  Lanes,   // disjoint lanes too: a lane of the outputs comes from that lane of the inputs, and from constants
};

/// In which of its inputs an operation is linear.
enum class LinearIn {
  None,
  All,    // in all of them together: it adds, moves or scales what they hold
  Each,   // in each of them, the others being given
  First,  // in the first of them, the others being given
};

/// What an operation takes over the lanes of its input.
enum class Gather { None, Sum, Mean };

/// What the graph and the scheduler need to know of an operation. What it computes is in ops/operation.h.
struct OpType {
  std::string name;
  /// Signatures of the outputs; throws ShapeError or UsageError.
  std::function<std::vector<Signature>(const Call&)> infer;
  std::vector<Example> examples;
  /// False: its output counts as independent of its inputs when gradients are taken.
  bool differentiable = true;
  /// Inputs from this one on must be variables: the weights of a fused cell. Those before must be Frame
  /// values.
  std::size_t first_weight = std::numeric_limits<std::size_t>::max();
  /// Roughly, how many multiplications' time one number of its output takes, products with weights apart.
  std::ptrdiff_t cost = 4;
  /// (input, output) pairs: if this input is the past of this output, the operation steps through time by
  /// itself.
  std::vector<std::pair<int, int>> loops = {};
  /// Weights (as input numbers) to be laid out as the row blocks of one matrix. Those beyond the inputs are
  /// ignored.
  std::vector<std::vector<std::size_t>> stacks = {};
  /// Whether threads can share forward and backward. To share lanes, inputs that differ from frame to frame must also
  /// have as many of them as the outputs, which need not be looked at here.
  Split (*split)(const Call&) = [](const Call&) { return Split::None; };
  /// What becomes of lanes that are not kept apart, for who holds only some of them: frame/across.h.
  LinearIn linear = LinearIn::None;
  Gather (*gathers)(const Call&) = [](const Call&) { return Gather::None; };
  /// Whether accumulate does the share that it is asked for. Otherwise it is asked for the whole.
  bool divides = false;
  /// Whether accumulate reads the outputs' values.
  bool (*rereads)(const Attributes&) = [](const Attributes&) { return true; };

  /// Whether backward can write the gradient of this input, of all frames that it is asked for, in place of adding to it.
  bool (*begins)(const Call&, std::size_t input) = [](const Call&, std::size_t) { return false; };

  /// Of a cell: what its gates are called.
  std::vector<std::string> gates = {};

  bool is_cell() const { return first_weight != std::numeric_limits<std::size_t>::max(); }
};

/// One appended operation.
struct Node {
  const OpType* type;
  std::vector<Value> inputs, outputs;
  Attributes attributes;
};

enum class Source { Operation, Placeholder, Variable, Constant, Past };

struct ValueInfo {
  Signature signature;
  Source source;
  int origin;  // index into nodes(), placeholders(), variables(), constants() or recurrences(), by source
};

/// A past value (t-1), what it is where a sequence begins, once that is said, and, once tied, the value at t that it is the
/// past of.
struct Recurrence {
  std::string name;
  Value past;
  Value start = -1;  // constant in time; of one column for every lane, or one for each
  Value named = -1;
};

class Graph {
 public:
  Value placeholder(Shape);
  Value variable(const std::string& name, Shape);
  /// `numbers` is column-major, features fastest.
  Value constant(Shape, std::vector<double> numbers);
  Value past(const std::string& name, Shape);
  /// Where a past value begins: at what is constant in time, of its shape or of one column.
  void begin(Value past, Value start);
  /// Appends one operation; returns its outputs.
  std::vector<Value> append(const OpType&, const std::vector<Value>& inputs, Attributes = {});
  /// Declares `value` at t to be `past` at t+1. Each recurrence lives in a buffer that one operation writes,
  /// so a value that cannot own one (a placeholder, a weight, a constant, another past value, a value that
  /// owns one already) or that has to be spread over lanes goes through an `expand` first. Returns the value
  /// that owns the buffer.
  Value tie(Value past, Value value, const OpType& expand);

  const ValueInfo& info(Value) const;
  /// A node as its type sees it.
  Call call(const Node&) const;
  Shape shape(Value v) const { return info(v).signature.shape; }
  Extent extent(Value v) const { return info(v).signature.extent; }
  Value size() const { return static_cast<Value>(values_.size()); }
  /// How many sequences go side by side: the largest batch of a placeholder or a past value, or 1.
  Index lanes() const;

  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<Value>& placeholders() const { return placeholders_; }
  const std::vector<std::string>& variables() const { return variables_; }
  const std::vector<std::vector<double>>& constants() const { return constants_; }
  const std::vector<Recurrence>& recurrences() const { return recurrences_; }
  /// The recurrence whose past or named value this is, or null.
  const Recurrence* recurrence_of_past(Value) const;
  const Recurrence* recurrence_of_named(Value) const;

  /// For each value, whether `roots` depend on it, through recurrences too.
  std::vector<bool> ancestors(const std::vector<Value>& roots) const;

 private:
  Value add(Signature, Source, std::size_t origin);

  std::vector<ValueInfo> values_;
  std::vector<Node> nodes_;
  std::vector<Value> placeholders_;
  std::vector<std::string> variables_;
  std::vector<std::vector<double>> constants_;
  std::vector<Recurrence> recurrences_;
};

}  // namespace bptt
