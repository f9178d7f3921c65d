// A long window in bounded memory: computed in segments, from states that are kept at their edges.
//
// The way forward goes over all segments in the memory of one, and keeps the recurrent state at each edge. The way back
// takes the segments from the last to the first: each is computed once more from the state at its first frame, then swept
// back from the gradient of the state after its last, which the segment behind it left at its own first. Weight gradients
// add up. Noise depends on the frame alone, so that it comes out the same. (Griewank & Walther, "Evaluating
// Derivatives", 2nd ed. 2008, chapter 12, with one level of checkpoints at equal distances; for recurrent nets Gruslys et
// al., "Memory-efficient backpropagation through time", 2016.)
//
// A loss is made of sums over frames, whatever else is done with them: they are complete after the way forward, so that
// the gradients of the sums are known before any segment is swept back.
//
// To whoever runs windows it is a program.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "optimise/training.h"

namespace bptt {

template <class S>
class Segments {
 public:
  /// A window of request.frames frames, in segments of `every`; the last is as long as what remains. Without `recompute`
  /// all frames are kept, and computed once: the same numbers in more memory, for tests.
  Segments(const Graph&, Weights<S>&, const Request&, Index every, bool recompute, Team* = nullptr);

  /// The next window: `data` from frame `start` on. Of its frames those from `counted` on count in losses. The data are
  /// read by `forward` and `backward`.
  void feed(Data<S>& data, Index start, Index counted);
  /// As those of a program; state is put into `first`, and is there, and in `before`, after a forward.
  void forward(std::uint64_t frame, Pulse&, std::uint64_t lane = 0);
  void backward(Pulse&);
  Eigen::Map<Matrix<S>> first(const std::string& name) { return before(name, 0); }
  Eigen::Map<Matrix<S>> last(const std::string& name) { return before(name, frames_); }
  /// The state is kept at this frame from now on.
  Eigen::Map<Matrix<S>> before(const std::string& name, Index frame);
  Index counted() const { return counted_; }
  S loss() const { return counted_ == 0 ? S(0) : *program_.tensor(loss_).value; }
  std::string not_finite();
  template <class F>
  void together(Pulse& pulse, F&& f) {
    program_.together(pulse, f);
  }
  Index frames() const { return frames_; }
  const std::vector<Value>& placeholders() const { return program_.placeholders(); }
  std::vector<std::string> pasts() const { return program_.pasts(); }
  /// Where a value lies, of a segment; a window value after `forward` that of all of them.
  const Tensor<S>& tensor(Value v) const { return program_.tensor(v); }

  /// All frames of a value are kept from the next forward on, for `copy`; they take the memory that they take.
  void keep(Value);
  /// Throws UsageError for a value of frames that was not kept.
  void copy(Value, S* to) const;
  /// The gradient of a placeholder or past value that was asked for, of all frames; of a past value that of the first
  /// alone. Null if the loss does not depend on it.
  const S* gradient(Value) const;

  /// What computes each segment.
  const Program<S>& program() const { return program_; }
  /// Bytes of the program, the states at the edges, and what is kept.
  std::size_t memory() const;

 private:
  /// A carried state within all of them.
  struct Way {
    std::string name;
    Tensor<S> window;
    Index place;
  };
  /// One value over the whole window.
  struct Kept {
    Value value;
    Block<S> all;
  };

  /// The frames of a segment in the window.
  Range segment(Index s) const { return {s * every_, std::min((s + 1) * every_, frames_)}; }
  /// The same in the program's memory.
  Range inside(Index s) const { return recompute_ ? Range{0, segment(s).size()} : segment(s); }
  /// Forward over a segment from the state at its edge, for the first time or again.
  void compute(Index s, bool again, Pulse&);
  /// All carried states, between frame `frame` of the program's memory, of values or gradients, and a block.
  enum class Side { Values, Gradients };
  void load(Side, const S* from, Index frame) const;
  void store(Side, Index frame, S* to) const;

  Index frames_, every_, count_;
  bool recompute_;
  Value loss_;
  Program<S> program_;
  Data<S>* data_ = nullptr;
  Index start_ = 0, from_ = 0;  // where the window begins in the data, and from where on it counts
  std::uint64_t frame_ = 0;
  Index counted_ = 0, present_ = -1;  // the segment that the program holds
  std::vector<Way> ways_;
  Index size_ = 0;                    // of all states
  Block<S> edges_, gradient_;         // the states before each segment and after the last; their gradient
  std::map<Index, Block<S>> others_;  // states at other frames
  std::vector<Kept> kept_, gradients_;
};

extern template class Segments<float>;
extern template class Segments<double>;

template <class S>
void feed(Segments<S>& segments, Data<S>& data, Index start, Index counted, Pulse&) {
  segments.feed(data, start, counted);
}

}  // namespace bptt
