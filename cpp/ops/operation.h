// The contract between an operation and the program that runs it.
//
// An operation works on a range of frames and does not know whether the range is a whole window or one frame
// of a cycle:
//
//   prepare()            before a window's forward: what can be made of constant inputs alone; sums begin at 0. Not if
//                        nothing but forwards happened since the last, unless it makes window values.
//   forward(r)           writes the outputs at the frames r; they hold garbage before.
//   backward(r)          adds to the gradients of the inputs that differ from frame to frame (and of window values).
//   accumulate(r, part)  adds to the gradients of the inputs that are constant in time, summing over the frames r.
//
//   read_gate(k, t, to)  of a cell: copies the k-th gate at frame t to a packed block of the first output's shape. After
//                        forward, of the last frame that it was called for.
//
// backward runs after every user of the outputs had its turn, so their gradients are complete at r; it goes through time
// in reverse. accumulate follows once per stage and window, or segment of a window, over all its frames. To a window value
// each forward adds its frames; for others a long range may come in pieces. An input whose gradient is null needs none; the
// outputs' gradients are never null when backward and accumulate are called. All gradients are zero when a sweep begins,
// but those of `fresh` inputs, which hold garbage: backward writes them, since nobody was there before.
// Constant and window values have one frame, whatever the range.
//
// Threads. OpType says what several threads may ask of an operation at the same time: forward and backward of disjoint
// ranges of frames or lanes (`split`), and the parts of an accumulate (`divides`). However the work is dealt out, each
// number gets the same bits: the order in which its sum is taken depends on shapes alone. Frames are dealt out in pieces
// that shapes alone decide. Lanes are dealt out in runs of `least_lanes` or more that begin and end on cache lines in all
// values of their stage. A range of some lanes has one frame, unless the operation steps through time by itself. Such an
// operation also lets threads share the rows of each frame: they are in the same call of forward or backward at the same
// time, each with its part of the panels, and meet wherever one needs the others' rows. When it returns they have met.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "frame/graph.h"
#include "kernel/product.h"
#include "ops/member.h"

namespace bptt {

/// Frames, and the lanes of each: all of them, unless threads share a frame. Handed on by reference: a copy made
/// right after its numbers were written waits until they have reached the cache.
struct Range {
  Index begin, end;
  Index lane = 0, lanes = all;  // the first, and how many
  Member* member = nullptr;     // threads share the rows of each frame: this is one of them
  static constexpr Index all = -1;

  Index size() const { return end - begin; }
  /// This thread's share of rows, by panels.
  Part rows() const { return member ? member->part : Part{}; }
  /// Whether this thread does what is one thread's.
  bool leads() const { return !member || member->first(); }
  /// Waits until the others have theirs.
  void meet() const {
    if (member) member->barrier();
  }
};

/// Calls f(first, count) for all columns of a range that lie side by side, for values with so many lanes.
template <class F>
void columns(const Range& r, Index batch, F&& f) {
  if (r.lanes == Range::all) return f(r.begin * batch, r.size() * batch);
  for (Index t = r.begin; t < r.end; ++t) f(t * batch + r.lane, r.lanes);
}

/// A thread never gets fewer lanes, unless there are no more.
inline constexpr Index least_lanes = 4;

/// Where a value lives. All frames of a Frame value are one features x (batch * frames) matrix.
template <class S>
struct Tensor {
  S* value = nullptr;
  S* gradient = nullptr;  // null: none is wanted
  Shape shape;
  Extent extent = Extent::Frame;
  Index outer =
      1;  // from one column to the next: `features`, or more for a weight that is stacked with others
  const std::uint64_t* version = nullptr;  // of a constant: changes whenever its numbers may have
  bool fresh = false;                      // of an input that OpType::begins allows: write its gradient

  bool constant() const { return extent == Extent::Constant; }
  /// The frames that a range means for this value.
  Range frames(const Range& r) const { return extent == Extent::Frame ? r : Range{0, 1}; }
  /// A range as one matrix; if not all lanes are in it, it has one frame.
  MatrixMap<S> values(const Range& r) const { return map(value, r); }
  MatrixMap<S> gradients(const Range& r) const { return map(gradient, r); }
  MatrixMap<S> values(Index t) const { return map(value, {t, t + 1}); }
  MatrixMap<S> gradients(Index t) const { return map(gradient, {t, t + 1}); }
  /// One column of all: number t * batch + lane.
  using Column = Eigen::Map<Eigen::Matrix<S, Eigen::Dynamic, 1>>;
  Column value_column(Index column) const { return {value + column * outer, shape.features}; }
  Column gradient_column(Index column) const { return {gradient + column * outer, shape.features}; }

 private:
  MatrixMap<S> map(S* base, const Range& r) const {
    const Eigen::OuterStride<> stride(outer);
    if (extent != Extent::Frame) return {base, shape.features, shape.batch, stride};
    const Index lanes = r.lanes == Range::all ? shape.batch : r.lanes;
    return {base + r.begin * shape.size() + r.lane * outer, shape.features, lanes * r.size(), stride};
  }
};

/// A yes or no for every lane of every frame of a window.
struct Rows {
  Index lanes = 1;                     // of the net
  const std::uint8_t* each = nullptr;  // lanes x frames; null: yes everywhere
  const std::uint8_t* any = nullptr;   // by frame: whether it is yes in one of the lanes
  bool alike = true;                   // in every frame all lanes have the same

  explicit operator bool() const { return each; }
  /// For one lane of a value with so many of them. A value with one is common to all lanes of the net.
  bool operator()(Index t, Index lane, Index batch) const {
    return batch == lanes ? each[t * lanes + lane] : any[t];
  }
  /// Throws UsageError for a value with so many lanes, if theirs cannot be told.
  void require(Index batch) const {
    if (!alike && batch != lanes && batch != 1)
      throw UsageError("a mask of " + std::to_string(lanes) + " lanes says nothing of a value with " +
                       std::to_string(batch) + " columns; it can have one for each lane, or one for all");
  }
};

/// What there is in a window. Whoever adds up lanes or frames leaves out what is not there.
struct Mask {
  Rows valid;    // the others are padding: their numbers are finite and mean nothing
  Rows counted;  // those of them that losses are made of
};

/// Where the window stands in its sequence; noise depends on nothing else.
struct Clock {
  std::uint64_t seed = 0;
  Index lanes = 1;           // of the net
  std::uint64_t frame = 0;   // the number of the window's first frame
  std::uint64_t lane = 0;    // the number of the net's first lane, where others go on elsewhere
  std::uint64_t window = 0;  // how many windows this program has run
};

/// Private memory of an operation. A program builds each operation twice: once without memory, to see how
/// much it takes.
template <class S>
class Scratch {
 public:
  explicit Scratch(S* memory = nullptr) : memory_(memory) {}

  /// So many numbers, from a cache line on; garbage at first. Null while counting.
  S* take(Index count) {
    const Index at = taken_;
    constexpr Index line = 64 / sizeof(S);
    taken_ += (count + line - 1) / line * line;
    return memory_ ? memory_ + at : nullptr;
  }

  /// Memory for a factor whose matrices are all known.
  void take(Factor<S>& factor) { factor.place(take(factor.size())); }

  Index taken() const { return taken_; }

 private:
  S* memory_;
  Index taken_ = 0;
};

/// What an operation is given when a program is built.
template <class S>
struct Binding {
  std::vector<Tensor<S>> inputs, outputs;
  const Attributes& attributes;
  Index frames;         // of the window
  Index at_once;        // so many of them at most in one call: one in a cycle, else all
  Scratch<S>& scratch;  // for use in the constructor; what is taken lives as long as the program
  const Clock* clock;   // lives as long as the program
  const Mask* mask;     // and so does this; it changes from window to window
};

template <class S>
class Operation {
 public:
  virtual ~Operation() = default;
  virtual void prepare() {}
  virtual void forward(const Range&) = 0;
  virtual void backward(const Range&) {}
  virtual void accumulate(const Range&, Part) {}
  virtual void read_gate(Index, Index, S*) const {}
};

/// For OpType::split, where all calls can be shared out alike.
inline Split by_frames(const Call&) {
  return Split::Frames;
}
inline Split by_lanes(const Call&) {
  return Split::Lanes;
}

/// For OpType::begins, where it is the first.
inline bool begins_first(const Call&, std::size_t input) {
  return input == 0;
}

/// An operation in the core's list: what the graph knows of it, and how to make one for either precision.
struct Registered : OpType {
  std::unique_ptr<Operation<float>> (*make32)(const Binding<float>&) = nullptr;
  std::unique_ptr<Operation<double>> (*make64)(const Binding<double>&) = nullptr;

  template <class S>
  std::unique_ptr<Operation<S>> make(const Binding<S>& binding) const {
    if constexpr (std::is_same_v<S, float>)
      return make32(binding);
    else
      return make64(binding);
  }
};

/// The core's own list, by name.
std::map<std::string, Registered>& registry();

/// The operation of this name; throws UsageError.
const Registered& operation(const std::string& name);

/// A static object of this type adds an operation to the list: Register<Op> name{{.name = ..., .infer = ...}}; an Op
/// with a function `make` decides by itself what is made.
template <template <class> class Op>
struct Register {
  explicit Register(OpType type) {
    Registered entry{std::move(type)};
    entry.make32 = make<float>;
    entry.make64 = make<double>;
    registry()[entry.name] = std::move(entry);
  }

 private:
  template <class S>
  static std::unique_ptr<Operation<S>> make(const Binding<S>& binding) {
    if constexpr (requires { Op<S>::make(binding); })
      return Op<S>::make(binding);
    else
      return std::make_unique<Op<S>>(binding);
  }
};

}  // namespace bptt
