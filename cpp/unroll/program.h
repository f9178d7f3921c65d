// A frame unrolled over a window: its stages, its memory, and the forward and backward loops.
//
// Memory. A value with one matrix per frame has T of them, one after the other. A recurrence has T + 1: frame
// 0 is the state that came in, the named value at t stands in frame t + 1, and the past value at t is frame t
// of the same buffer. Gradients are laid out alike, so a step back through time moves no numbers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/operation.h"
#include "unroll/arena.h"
#include "unroll/plan.h"
#include "unroll/pulse.h"
#include "unroll/state.h"
#include "unroll/weights.h"

namespace bptt {

template <class S>
class Program {
 public:
  /// The weights must outlive the program; the graph need not.
  Program(const Graph&, Weights<S>&, const Request&);
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  /// Computes the window whose first frame has this number in its sequence. Placeholders and past states are
  /// read.
  void forward(std::uint64_t frame, Pulse&);
  /// Zeroes all gradients, then computes those of the loss, weights' included, for the window of the last
  /// forward.
  void backward(Pulse&);

  /// Copies the state that comes in, or out after the last frame.
  void load(const State<S>&);
  void store(State<S>&) const;

  /// Where a value of the graph lives; throws UsageError if this program does not compute it.
  const Tensor<S>& tensor(Value) const;
  /// Features x batch: the state before the first frame, after the last, and the gradient of the first.
  Eigen::Map<Matrix<S>> first(const std::string& name) const;
  Eigen::Map<Matrix<S>> last(const std::string& name) const;
  Eigen::Map<Matrix<S>> first_gradient(const std::string& name) const;

  Index frames() const { return frames_; }
  /// The loss of the last forward.
  S loss() const { return *tensor(loss_).value; }
  /// After a forward: the first value, in running order, that is not finite, in words for an error message.
  std::string not_finite() const;
  /// What has to be fed, in the order of the trace.
  const std::vector<Value>& placeholders() const { return placeholders_; }
  std::vector<std::string> pasts() const;
  /// Bytes of values, gradients and scratch.
  std::size_t memory() const;
  /// The names of each stage's operations, and whether it is stepwise.
  std::vector<std::pair<std::vector<std::string>, bool>> stages() const;

 private:
  /// One operation as it is run.
  struct Step {
    Operation<S>* operation;
    bool backward;  // it is on the way from the loss
    Index work;     // for one frame, roughly, in multiplications
    Index piece;    // how many frames it is given at once
    std::string name;
    std::vector<Tensor<S>> outputs;
  };
  struct RunStage {
    std::vector<Step> steps;
    bool stepwise;
  };
  struct Carried {
    std::string name;
    Tensor<S> window;  // as the past value sees it: frames 0 ... T, the last for `last` alone
  };

  /// Memory for all values and gradients.
  void place_values(const Graph&, const Plan&);
  /// Operations in running order, each with its private memory.
  void build_operations(const Graph&, const Plan&);
  const Carried& carried(const std::string& name) const;
  /// Calls run with pieces of the window, one after the other, none of them long.
  template <class F>
  void pieces(const Step&, Pulse&, F&& run) const;

  Index frames_;
  Value loss_;
  Clock clock_;
  Weights<S>* weights_;
  Arena<S> values_, gradients_, scratch_;
  std::vector<Tensor<S>> tensors_;  // by value; those not computed have no memory
  std::vector<Value> placeholders_;
  std::vector<Carried> carried_;
  std::vector<std::unique_ptr<Operation<S>>> operations_;
  std::vector<RunStage> stages_;
};

extern template class Program<float>;
extern template class Program<double>;

}  // namespace bptt
