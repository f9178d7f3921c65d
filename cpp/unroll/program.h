// A frame unrolled over a window: its stages, its memory, and the forward and backward loops.
//
// Memory. A value with one matrix per frame has T of them, one after the other. A recurrence has T + 1: frame
// 0 is the state that came in, the named value at t stands in frame t + 1, and the past value at t is frame t
// of the same buffer. Gradients are laid out alike, so a step back through time moves no numbers. In larger programs what
// is not needed at the same time shares memory (lifetimes.h); a gradient is then cleared where it is first needed. Where
// the first that adds to it can write it, it is not cleared at all.
//
// Marks. Where a lane begins anew at frame t, its past is the starting value, while the same column is still the named
// value at t - 1 to whoever reads that. So a stage that reads the past is swept in pieces, cut at such frames: before a
// piece the columns of its first frame change places with the starting values, and after it back again; on the way back
// their gradients are set aside too, and what the piece adds belongs to the starting value alone. Where a lane stands
// still at t, the column of its past is copied to frame t + 1 after the piece, and on the way back the gradient of that
// is moved to frame t before it. No operation knows of it, and no other lane is touched.
//
// Threads. All threads of a team walk over the same stages, each with its share of the frames or lanes; `deal.h` says
// which. Where one stage's share is not the next one's, they wait for one another; inside a loop over time only where they
// share the rows of its frames. What is shared out, and in which pieces, depends on the program alone, so that results do
// not depend on how many threads there are.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/operation.h"
#include "unroll/arena.h"
#include "unroll/deal.h"
#include "unroll/lifetimes.h"
#include "unroll/marks.h"
#include "unroll/plan.h"
#include "unroll/pulse.h"
#include "unroll/team.h"
#include "unroll/weights.h"

namespace bptt {

template <class S>
class Program {
 public:
  /// The weights and the team, if there is one, must outlive the program; the graph need not.
  Program(const Graph&, Weights<S>&, const Request&, Team* = nullptr);
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  /// Marks the window that was fed; without, it has the last one's marks. Rows of frames x lanes, lane fastest, or null:
  /// where lanes begin anew, and what is valid. Frames count in losses from `from` on. What was fed to the others is
  /// overwritten with numbers of valid ones, so that nothing in them can do harm.
  void mark(const bool* resets, const bool* valid, Index from = 0) { mark(resets, valid, from, frames_); }
  /// The same of the first `frames` frames, where there are no more.
  void mark(const bool* resets, const bool* valid, Index from, Index frames);
  const Marks& marks() const { return marks_; }
  /// So many lanes of all frames count in losses.
  Index counted() const { return marks_.counted(); }

  /// Computes the window whose first frame has this number in its sequence, and whose first lane has that one among all
  /// that are trained together. Placeholders and past states are read.
  void forward(std::uint64_t frame, Pulse&, std::uint64_t lane = 0);
  /// Zeroes all gradients, then computes those of the loss, weights' included, for the window of the last
  /// forward. Denormal numbers count as zero.
  void backward(Pulse&);

  /// The same in parts, for windows in segments: once what is constant over the window, then frames, in any number of
  /// ranges, and once what is made of window values, which are complete after the last frame. `frame` is the number of
  /// frame 0 in its sequence. Ranges go forward from the state before them, and back from the gradient of that after them,
  /// in frame `end` of the gradients.
  void begin(Pulse&, std::uint64_t lane = 0);
  void forward(std::uint64_t frame, const Range&, Pulse&);
  /// Once more, without adding to window values.
  void recompute(std::uint64_t frame, const Range&, Pulse&);
  void end(Pulse&);
  void begin_backward(Pulse&);
  void backward(const Range&, Pulse&);
  void end_backward(Pulse&);
  /// Between ranges that share memory.
  void clear_frame_gradients(Pulse&);

  /// Calls f(member, pulse) in all threads of the team if windows are large enough, else in this one.
  template <class F>
  void together(Pulse& pulse, F&& f) {
    if (shared_ && team_ && team_->size() > 1) return team_->run(pulse, f);
    Member alone;
    f(alone, pulse);
  }

  /// Where a value of the graph lives; throws UsageError if this program does not compute it.
  const Tensor<S>& tensor(Value v) const {
    const auto place = static_cast<std::size_t>(v);  // of a negative one, beyond all
    if (place >= tensors_.size() || !tensors_[place].value) refuse(v);
    return tensors_[place];
  }
  /// Features x batch: the state before the first frame, before another, after the last, and the gradient of the first.
  Eigen::Map<Matrix<S>> first(const std::string& name) const { return before(name, 0); }
  Eigen::Map<Matrix<S>> before(const std::string& name, Index frame) const;
  Eigen::Map<Matrix<S>> last(const std::string& name) const { return before(name, frames_); }
  Eigen::Map<Matrix<S>> first_gradient(const std::string& name) const;
  /// A carried state, frame t of it before frame t of the window.
  const Tensor<S>& past(const std::string& name) const { return carried(name).window; }

  /// A gate of the cell whose first output this is, at the last frame of the last forward.
  void copy_gate(Value cell, Index gate, S* to) const;

  /// All frames of a value, or some, as operations read it: with the starting values where lanes begin anew.
  void copy(Value v, S* to) const { copy(v, {0, frames_}, to); }
  void copy(Value, const Range&, S* to) const;

  Index frames() const { return frames_; }
  /// The loss of the last forward; 0 where no frame counts.
  S loss() const { return counted() == 0 ? S(0) : *tensor(loss_).value; }
  /// After a forward: the first value, in running order, that is not finite, in words for an error message.
  std::string not_finite() const {
    const std::string found = not_finite({0, frames_}, 0);
    return found.empty() ? not_finite_in_window() : found;
  }
  /// The same of some frames, which the message counts from `from`; empty if there is none.
  std::string not_finite(const Range& frames, Index from) const { return not_finite(frames, from, false); }
  /// And of window values.
  std::string not_finite_in_window() const {
    const std::string found = not_finite({0, frames_}, 0, true);
    return found.empty() ? "no value" : found;
  }
  /// What has to be fed, in the order of the trace.
  const std::vector<Value>& placeholders() const { return placeholders_; }
  std::vector<std::string> pasts() const;
  /// Bytes of values, gradients and scratch.
  std::size_t memory() const;
  /// The names of each stage's operations, and whether it is stepwise.
  std::vector<std::pair<std::vector<std::string>, bool>> stages() const;
  /// How each stage is shared out among threads.
  std::vector<Deal> deals() const;
  /// Whether windows are large enough to be shared out.
  bool shared() const { return shared_; }

 private:
  /// One operation as it is run.
  struct Step {
    Operation<S>* operation;
    bool backward = false;                         // it is on the way from the loss
    bool accumulates = false;                      // it adds to gradients of constants
    bool divides = false;                          // and does the share of that that it is asked for
    Index work = 64;                               // for one frame, roughly, in multiplications
    Index long_piece = 1;                          // how many frames accumulate is given at once
    bool reads_past = false, reads_named = false;  // accumulate does
    std::string name;
    std::vector<Tensor<S>> outputs = {};
    std::vector<std::string> makers = {};  // what made each, in the words of the trace
  };
  struct RunStage {
    std::vector<Step> steps = {};
    bool stepwise = false;
    bool loops = false;        // its operation steps through time by itself
    bool window = false;       // it makes a window value, of all frames at once
    bool of_frames = false;    // what it makes, or an input, differs from frame to frame
    bool backward = false;     // one of the steps has a backward
    bool accumulates = false;  // one of them does
    bool entangled = false;    // two of them add to the same gradient
    Index grain = 1;           // how many frames it is given at once
    Deal deal = {};
    std::vector<std::size_t> pasts = {},
                             named = {};  // carried values that it reads or writes, and that it writes
  };
  struct Carried {
    std::string name;
    Tensor<S> window;  // as the past value sees it: frames 0 ... T, the last for `last` alone
    Tensor<S> start;
    Index aside = 0;  // where its columns are set aside
    auto start_of(Index lane) const { return start.value_column(start.shape.batch == 1 ? 0 : lane); }
  };

  /// Gradients that are needed from some step on, and how many of their numbers are cleared there: those that no
  /// operation begins by writing them.
  struct Fresh {
    S* numbers;
    Index cleared;
  };

  /// Compiles a graph, and numbers what it holds as in that graph.
  void compile(const Graph&, const Request&);
  /// Memory for all values and gradients.
  void place_values(const Graph&, const Plan&, const Request&);
  /// Operations in running order, each with its private memory.
  void build_operations(const Graph&, const Plan&);
  const Carried& carried(const std::string& name) const;
  /// Decides what is shared out among threads.
  void deal_stages(const Graph&, const Plan&);
  /// Notes which carried values a stage reads and writes.
  void find_carried(const Graph&, const Stage&, RunStage&) const;
  /// Whether a stage reads or writes states that the marks of this window change.
  bool patches(const RunStage& stage) const { return !stage.pasts.empty() && marks_.events(); }
  /// How the work of a stage is dealt out in this window.
  const Deal& dealt(const RunStage&) const;
  /// Whether threads wait for one another between what was dealt out before and a stage.
  bool meet_between(const Deal& before, const RunStage&, const Member&) const;
  /// One thread's share of a stage at some frames.
  void sweep(const RunStage&, const Range&, Member&, bool back, Pulse&) const;
  /// The same where it is dealt out, in pieces, or marked.
  void sweep_pieces(const RunStage&, const Range&, Member&, bool back, Pulse&) const;
  /// The steps of a stage at a range, one after the other.
  void pass(const RunStage&, const Range&, bool back, Pulse&) const;
  /// Calls f for a range, or, if it is to be `cut`, for the pieces that the marks cut it into.
  template <class F>
  void each_piece(const RunStage&, const Range&, bool back, bool cut, F&& f) const;
  /// What the marks ask for before a piece, and after it.
  void patch(const RunStage&, const Range&, bool back) const;
  void restore(const RunStage&, const Range&, bool back) const;
  enum class Swap { In, Out };
  /// The columns where lanes of a range begin anew change places with the starting values, or back; their gradients too.
  void swap(const RunStage&, const Range&, Swap) const;
  void swap_gradients(const RunStage&, const Range&, Swap) const;
  /// Lanes that stand still: their state goes on, and on the way back its gradient.
  void hold(const RunStage&, const Range&) const;
  void hold_gradients(const RunStage&, const Range&) const;
  /// The gradients of the starting values.
  void add_to_starts(const Range&) const;
  void clear_frame_gradients(Part);
  static void clear(const std::vector<Fresh>&, Part);
  void begin(Member&);
  void forward(const Range&, Member&, Pulse&);
  void end(Member&, Pulse&);
  template <class F>
  void run(std::size_t first, std::size_t last, const Range&, Member&, Pulse&, F&& here);
  void begin_backward(Member&, Pulse&);
  void backward(const Range&, Member&, Pulse&);
  void end_backward(Member&, Pulse&);
  /// Back over the stages before `last` down to `first`, those of which here(stage) says so.
  template <class F>
  void run_back(std::size_t first, std::size_t last, const Range&, Member&, Pulse&, F&& here);
  void accumulate(const RunStage&, const Range&, Member&, Pulse&);
  static void accumulate(const Step&, const Range&, Part, Pulse&);
  bool flows() const;
  [[noreturn]] static void refuse(Value);
  std::string not_finite(const Range&, Index from, bool window) const;

  Index frames_;
  Value loss_;
  bool trains_;
  Clock clock_;
  Weights<S>* weights_;
  Team* team_;
  bool shared_ = false;
  bool overlaid_ = false;  // values and gradients that are not needed at the same time share memory
  Arena<S> values_, gradients_, scratch_;
  Arena<S> held_gradients_;  // of constants and window values, which all frames add to
  std::vector<std::vector<Fresh>>
      fresh_;                       // by stage, the last before all: there alone where no memory is shared
  std::vector<Tensor<S>> tensors_;  // by value; those not computed have no memory
  std::vector<Value> placeholders_;
  std::vector<Carried> carried_;
  Marks marks_;
  Block<S> aside_, aside_gradients_, start_gradients_;  // by carried value and reset: its column
  std::vector<std::unique_ptr<Operation<S>>> operations_;
  std::vector<Operation<S>*> makers_;  // by value: which of them makes it, or null
  std::vector<RunStage> stages_;
  std::size_t constants_ = 0;            // so many of them, the first, compute constants
  std::size_t in_frames_ = 0;            // those before this one go over frames
  std::vector<Operation<S>*> begun_;     // of the others, those that make window values
  std::vector<Operation<S>*> prepared_;  // and those that have constant inputs
  static constexpr std::uint64_t unprepared = ~std::uint64_t{0};
  std::uint64_t prepared_version_ =
      unprepared;  // of the weights, when these were; none: a backward has begun since
};

extern template class Program<float>;
extern template class Program<double>;

}  // namespace bptt
