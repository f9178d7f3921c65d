#include "unroll/program.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>

#include "kernel/denormals.h"
#include "passes/passes.h"

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

constexpr auto all_stages = [](const auto&) { return true; };

/// What an operation that a pass made stands for: the name of an operation of the trace for each output.
std::string made_of(const Node& node) {
  const auto found = node.attributes.find("of");
  return found == node.attributes.end() ? node.type->name : std::get<std::string>(found->second);
}

}  // namespace

template <class S>
Program<S>::Program(const Graph& graph, Weights<S>& weights, const Request& request, Team* team)
    : frames_(request.frames),
      loss_(request.loss),
      trains_(request.trains && request.loss >= 0),
      clock_{request.seed, graph.lanes()},
      weights_(&weights),
      team_(team),
      marks_(request.frames, graph.lanes()) {
  weights.freeze({&graph});
  if (!request.passes) {
    compile(graph, request);
    return;
  }
  const Rewritten made = rewritten(graph, request);
  compile(made.graph, made.of(request));
  // From here on values have the numbers of the graph that was traced.
  std::vector<Tensor<S>> tensors(made.now.size());
  std::vector<Operation<S>*> makers(made.now.size());
  for (std::size_t v = 0; v < tensors.size(); ++v)
    if (made.now[v] >= 0) {
      tensors[v] = tensors_[at(made.now[v])];
      makers[v] = makers_[at(made.now[v])];
    }
  tensors_ = std::move(tensors);
  makers_ = std::move(makers);
  placeholders_.clear();
  for (const Value v : graph.placeholders())
    if (made.now[at(v)] >= 0) placeholders_.push_back(v);
}

template <class S>
void Program<S>::compile(const Graph& graph, const Request& request) {
  const Plan plan(graph, request);
  place_values(graph, plan, request);
  build_operations(graph, plan);
  deal_stages(graph, plan);
}

template <class S>
void Program<S>::place_values(const Graph& graph, const Plan& plan, const Request& request) {
  const std::size_t count = plan.computed.size();
  std::vector<Index> places(count, -1), gradient_places(count, -1);
  const Lives lives(graph, plan, request);
  std::vector<Slot> slots, gradient_slots;  // of frame values; a recurrence has one for both sides
  std::vector<std::size_t> owners, gradient_owners;
  const auto need = [&](Value v, Index frames) {
    constexpr Index line = 64 / sizeof(S);
    const Index size = (graph.shape(v).size() * frames + line - 1) / line * line;
    slots.push_back({size, lives.value(v)});
    owners.push_back(at(v));
    if (!plan.differentiated[at(v)]) return;
    gradient_slots.push_back({size, lives.gradient(v)});
    gradient_owners.push_back(at(v));
  };
  for (const Recurrence& recurrence : graph.recurrences())
    if (plan.computed[at(recurrence.past)]) need(recurrence.past, frames_ + 1);
  for (std::size_t v = 0; v < count; ++v) {
    const auto& [signature, source, origin] = graph.info(static_cast<Value>(v));
    if (!plan.computed[v] || source == Source::Variable) continue;
    if (signature.extent == Extent::Frame) {
      const Recurrence* const named = graph.recurrence_of_named(static_cast<Value>(v));
      const bool side = source == Source::Past || (named && plan.computed[at(named->past)]);
      if (!side) need(static_cast<Value>(v), frames_);
      continue;
    }
    places[v] = values_.reserve(signature.shape.size());
    if (plan.differentiated[v]) gradient_places[v] = held_gradients_.reserve(signature.shape.size());
  }
  // How many numbers of a gradient nobody writes before others add to them: of a recurrence that has one who does, frame 0.
  const auto cleared = [&](std::size_t i) -> Index {
    const Value v = static_cast<Value>(gradient_owners[i]);
    const Recurrence* const recurrence = graph.recurrence_of_past(v);
    const Value named = recurrence ? recurrence->named : v;
    if (named < 0 || plan.begins[at(named)] < 0) return gradient_slots[i].size;
    return recurrence ? graph.shape(v).size() : 0;
  };
  double bytes = 0;
  for (const auto* list : {&slots, &gradient_slots})
    for (const Slot& slot : *list) bytes += static_cast<double>(slot.size) * sizeof(S);
  overlaid_ = bytes >= static_cast<double>(request.share_from);
  Arena<S>& gradients = overlaid_ ? values_ : gradients_;
  if (overlaid_) {
    std::vector<Slot> both = slots;
    both.insert(both.end(), gradient_slots.begin(), gradient_slots.end());
    const Index begin = values_.reserve(place(both));
    for (std::size_t i = 0; i < both.size(); ++i)
      (i < slots.size() ? slots[i] : gradient_slots[i - slots.size()]).place = begin + both[i].place;
  } else {  // gradients that are cleared lie side by side
    for (Slot& slot : slots) slot.place = values_.reserve(slot.size);
    for (const bool begun : {false, true})
      for (std::size_t i = 0; i < gradient_slots.size(); ++i)
        if ((cleared(i) < gradient_slots[i].size) == begun)
          gradient_slots[i].place = gradients_.reserve(gradient_slots[i].size);
  }
  for (std::size_t i = 0; i < slots.size(); ++i) places[owners[i]] = slots[i].place;
  for (std::size_t i = 0; i < gradient_slots.size(); ++i)
    gradient_places[gradient_owners[i]] = gradient_slots[i].place;
  for (const Recurrence& recurrence : graph.recurrences()) {
    const std::size_t past = at(recurrence.past), named = at(recurrence.named);
    if (!plan.computed[past]) continue;
    const Index frame = graph.shape(recurrence.past).size();
    places[named] = places[past] + frame;
    if (plan.differentiated[past]) gradient_places[named] = gradient_places[past] + frame;
  }
  require_memory(static_cast<double>(values_.planned() + gradients_.planned() + held_gradients_.planned()) *
                 sizeof(S));
  values_.commit();
  gradients_.commit();
  held_gradients_.commit();
  fresh_.resize(plan.stages.size() + 1);
  for (std::size_t i = 0; i < gradient_slots.size(); ++i) {
    const auto& [size, life, place] = gradient_slots[i];
    std::vector<Fresh>& fresh = overlaid_ ? fresh_[lives.stage_back(life.first)] : fresh_.back();
    S* const numbers = gradients.at(place);
    if (!fresh.empty() && fresh.back().numbers + fresh.back().cleared == numbers)
      fresh.back().cleared += cleared(i);
    else
      fresh.push_back({numbers, cleared(i)});
  }

  tensors_.resize(count);
  makers_.resize(count);
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
    if (plan.differentiated[v])
      tensor.gradient =
          (signature.extent == Extent::Frame ? gradients : held_gradients_).at(gradient_places[v]);
    tensor.shape = signature.shape;
    tensor.extent = signature.extent;
    tensor.outer = signature.shape.features;
    static constexpr std::uint64_t never = 0;
    tensor.version = source == Source::Constant ? &never : &clock_.window;
    if (source == Source::Constant)
      std::ranges::transform(graph.constants()[at(origin)], tensor.value,
                             [](double x) { return static_cast<S>(x); });
  }
  for (const Value v : graph.placeholders())
    if (plan.computed[at(v)]) placeholders_.push_back(v);
  for (const Recurrence& recurrence : graph.recurrences())
    if (plan.computed[at(recurrence.past)])
      carried_.push_back({recurrence.name, tensors_[at(recurrence.past)], tensors_[at(recurrence.start)]});
}

template <class S>
void Program<S>::build_operations(const Graph& graph, const Plan& plan) {
  const auto make = [&](int n, bool stepwise, Scratch<S> scratch) {
    const Node& node = graph.nodes()[at(n)];
    Binding<S> binding{{},      {},      node.attributes, frames_, stepwise ? 1 : frames_,
                       scratch, &clock_, &marks_.mask()};
    for (const Value v : node.inputs) {
      binding.inputs.push_back(tensors_[at(v)]);
      binding.inputs.back().fresh = plan.begins[at(v)] == n;
    }
    for (const Value v : node.outputs) binding.outputs.push_back(tensors_[at(v)]);
    auto operation = static_cast<const Registered&>(*node.type).make(binding);
    return std::pair(std::move(operation), scratch.taken());
  };
  std::vector<Index> places;
  for (const Stage& stage : plan.stages)
    for (const int n : stage.nodes)
      places.push_back(scratch_.reserve(make(n, stage.stepwise, Scratch<S>()).second));
  scratch_.commit();

  auto place = places.begin();
  for (const Stage& stage : plan.stages) {
    std::set<const S*> summed;  // gradients of constants that the stage's steps add to
    RunStage run;
    run.stepwise = stage.stepwise;
    for (const int n : stage.nodes) {
      const Node& node = graph.nodes()[at(n)];
      operations_.push_back(make(n, stage.stepwise, Scratch<S>(scratch_.at(*place++))).first);
      Step step{.operation = operations_.back().get(),
                .backward = plan.backward[at(n)],
                .divides = node.type->divides,
                .name = node.type->name};
      // A constant factor, a weight above all, meets every lane of the frame; all else is looked at once.
      Index lanes = 1;
      std::istringstream of(made_of(node));
      for (const Value v : node.outputs) {
        makers_[at(v)] = step.operation;
        step.outputs.push_back(tensors_[at(v)]);
        step.makers.push_back(step.name);
        of >> step.makers.back();
        step.work += graph.shape(v).size() * node.type->cost;
        lanes = std::max(lanes, graph.shape(v).batch);
      }
      bool prepares = false;
      for (const Value v : node.inputs) {
        const bool constant = graph.extent(v) == Extent::Constant;
        run.of_frames |= graph.extent(v) == Extent::Frame;
        step.work += graph.shape(v).size() * (constant ? lanes : 1);
        prepares |= constant;
        const S* const gradient = tensors_[at(v)].gradient;
        if (constant && step.backward && gradient) {
          run.entangled |= !summed.insert(gradient).second;
          step.accumulates = run.accumulates = true;
        }
      }
      const Extent extent = graph.extent(node.outputs.front());
      run.grain = step.long_piece = frames_;
      run.window = extent == Extent::Window;
      if (extent == Extent::Frame) {
        run.grain = std::clamp(Pulse::unseen / step.work, Index{1}, frames_);
        // The sums of a weight's gradient are read and written for each piece.
        step.long_piece = std::min(std::max(run.grain, (512 + lanes - 1) / lanes), frames_);
      }
      run.of_frames |= extent == Extent::Frame;
      run.loops |= !node.type->loops.empty();
      run.backward |= step.backward;
      if (extent == Extent::Constant)
        constants_ = stages_.size() + 1;
      else if (run.window)
        begun_.push_back(step.operation);
      else if (prepares)
        prepared_.push_back(step.operation);
      if (!of_window_values(graph, node)) in_frames_ = stages_.size() + 1;
      run.steps.push_back(std::move(step));
    }
    if (run.stepwise) run.grain = 1;
    find_carried(graph, stage, run);
    // Where a lane stands still, its gradient goes on even if the named value needs none.
    for (const std::size_t number : run.named) run.backward |= carried_[number].window.gradient != nullptr;
    stages_.push_back(std::move(run));
  }
}

template <class S>
void Program<S>::find_carried(const Graph& graph, const Stage& stage, RunStage& run) const {
  const auto find = [&](const Recurrence* recurrence) {
    const auto found =
        recurrence ? std::ranges::find(carried_, recurrence->name, &Carried::name) : carried_.end();
    return static_cast<std::size_t>(found - carried_.begin());
  };
  const auto note = [&](std::vector<std::size_t>& list, std::size_t number) {
    if (number < carried_.size() && std::ranges::find(list, number) == list.end()) list.push_back(number);
    return number < carried_.size();
  };
  for (std::size_t i = 0; i < stage.nodes.size(); ++i) {
    const Node& node = graph.nodes()[at(stage.nodes[i])];
    Step& step = run.steps[i];
    for (const Value v : node.inputs) {
      step.reads_past |= note(run.pasts, find(graph.recurrence_of_past(v)));
      step.reads_named |= find(graph.recurrence_of_named(v)) < carried_.size();
    }
    for (const Value v : node.outputs) {
      const std::size_t number = find(graph.recurrence_of_named(v));
      step.reads_named |= note(run.named, number) && node.type->rereads(node.attributes);
      note(run.pasts, number);
    }
  }
}

/// What can be shared out, and in which pieces, depends on shapes alone: on no number of threads.
template <class S>
void Program<S>::deal_stages(const Graph& graph, const Plan& plan) {
  // Pieces of the window: enough of them for many threads, and each with enough columns for a product's tiles.
  constexpr Index most = 64, columns = 96;
  Index lanes = 1;
  for (const Stage& stage : plan.stages)
    for (const int n : stage.nodes)
      for (const Value v : graph.nodes()[at(n)].outputs) lanes = std::max(lanes, graph.shape(v).batch);
  const Index piece = std::min(std::max((frames_ + most - 1) / most, (columns + lanes - 1) / lanes), frames_);
  const Index pieces = (frames_ + piece - 1) / piece;

  const Index least = team_ ? team_->least() : Team::worth;
  Index work = 0;
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    RunStage& stage = stages_[s];
    stage.deal = deal(graph, plan.stages[s], frames_, pieces, sizeof(S));
    if (stage.deal.kind == Deal::Kind::Rows && stage.steps.front().work < least / Team::meetings)
      stage.deal = {};
    if (stage.deal.kind == Deal::Kind::Whole) continue;
    for (const Step& step : stage.steps) work += step.work * frames_;
  }
  shared_ = work >= least;
  for (RunStage& stage : stages_) {
    if (!shared_) stage.deal = {};
    if (stage.deal.kind == Deal::Kind::Frames) stage.grain = piece;
    if (stage.deal.kind == Deal::Kind::Lanes && !stage.loops) stage.grain = 1;
  }
}

/// A piece that begins with a patched column may not run beside the one before, which reads the true one; and whoever has
/// lanes to himself patches them.
template <class S>
const Deal& Program<S>::dealt(const RunStage& stage) const {
  static constexpr Deal whole;
  return patches(stage) && stage.deal.kind != Deal::Kind::Lanes ? whole : stage.deal;
}

/// One thread has nobody to wait for.
template <class S>
bool Program<S>::meet_between(const Deal& before, const RunStage& stage, const Member& member) const {
  return member.part.count > 1 && !dealt(stage).same(before);
}

template <class S>
void Program<S>::pass(const RunStage& stage, const Range& r, bool back, Pulse& pulse) const {
  const Index frames = r.size();
  if (!back)
    for (const Step& step : stage.steps) {
      step.operation->forward(r);
      pulse.spend(step.work * frames);
    }
  else
    for (const Step& step : Reversed(stage.steps)) {
      if (step.backward) step.operation->backward(r);
      pulse.spend(step.work * frames);
    }
}

template <class S>
void Program<S>::sweep(const RunStage& stage, const Range& window, Member& member, bool back,
                       Pulse& pulse) const {
  // Shut gates and fading states are denormal numbers. For a single frame the switch takes longer than it is worth.
  const FlushDenormals flush(frames_ > 1 && (stage.stepwise || stage.loops));
  if (stage.grain >= window.size() && member.part.count == 1 && !patches(stage))
    pass(stage, window, back, pulse);
  else
    sweep_pieces(stage, window, member, back, pulse);
}

template <class S>
void Program<S>::sweep_pieces(const RunStage& stage, const Range& window, Member& member, bool back,
                              Pulse& pulse) const {
  const bool patched = patches(stage);
  const Part part = member.part;
  const Deal& deal = dealt(stage);
  if (deal.kind == Deal::Kind::Whole && part.index > 0) return;
  const Index grain = stage.grain, pieces = (window.size() + grain - 1) / grain;
  const Part mine = deal.kind == Deal::Kind::Frames ? part : Part{};
  const Index first = mine.begin(pieces), end = mine.end(pieces);
  Range all = deal.share(0, 0, part);
  if (all.lanes == 0) return;
  if (deal.kind == Deal::Kind::Rows) all.member = &member;
  for (Index i = first; i < end; ++i) {
    all.begin = window.begin + (back ? first + end - 1 - i : i) * grain;
    all.end = std::min(all.begin + grain, window.end);
    each_piece(stage, all, back, patched && !stage.window, [&](const Range& range) {
      if (patched) patch(stage, range, back);
      pass(stage, range, back, pulse);
      if (patched) restore(stage, range, back);
    });
  }
}

template <class S>
template <class F>
void Program<S>::each_piece(const RunStage& stage, const Range& all, bool back, bool cut, F&& f) const {
  if (!cut) return f(all);
  const bool through = stage.stepwise || stage.loops;
  Range piece = all;
  for (Index done = 0; done < all.size(); done += piece.size()) {
    if (back) {
      piece.end = all.end - done;
      for (piece.begin = piece.end - 1; piece.begin > all.begin && !marks_.cut(piece.begin, through);)
        --piece.begin;
    } else {
      piece.begin = all.begin + done;
      for (piece.end = piece.begin + 1; piece.end < all.end && !marks_.cut(piece.end, through);) ++piece.end;
    }
    f(piece);
  }
}

template <class S>
void Program<S>::patch(const RunStage& stage, const Range& range, bool back) const {
  swap(stage, range, Swap::In);
  if (!back) return;
  swap_gradients(stage, range, Swap::In);
  hold_gradients(stage, range);
}

template <class S>
void Program<S>::restore(const RunStage& stage, const Range& range, bool back) const {
  if (back)
    swap_gradients(stage, range, Swap::Out);
  else
    hold(stage, range);
  swap(stage, range, Swap::Out);
}

template <class S>
void Program<S>::mark(const bool* resets, const bool* valid, Index from, Index frames) {
  marks_.set(resets, valid, from, frames);
  if (!marks_.events()) return;
  Index size = 0;
  for (Carried& c : carried_) {
    const auto [features, batch] = c.window.shape;
    if (batch != 1 && batch != marks_.lanes())
      throw UsageError("the state '" + c.name + "' has " + std::to_string(batch) +
                       " columns; with resets or masks it has one for each of the " +
                       std::to_string(marks_.lanes()) + " lanes, or one for all");
    c.aside = size;
    size += marks_.resets(batch).size() * features;
  }
  if (aside_.size() < size) {
    aside_ = Block<S>(size);
    if (trains_) {
      aside_gradients_ = Block<S>(size);
      start_gradients_ = Block<S>(size);
    }
  }
  for (const RunStage& stage : stages_)
    for (const Step& step : stage.steps)
      if (stage.window && step.reads_past && step.reads_named)
        throw UsageError("with resets, '" + step.name +
                         "' cannot take both a past value and one at t over all frames at once");
  for (const Value v : placeholders_) {
    const Tensor<S>& x = tensor(v);
    const Index batch = x.shape.batch;
    const Rows& there = marks_.mask().valid;
    if (!there) continue;
    there.require(batch);
    // The nearest valid frame of the lane before, or else behind; of a lane that has none, any; or else zeros.
    std::vector<Index> column(static_cast<std::size_t>(batch), -1);
    Index some = -1;
    for (Index t = frames - 1; t >= 0; --t)
      for (Index lane = batch - 1; lane >= 0; --lane)
        if (there(t, lane, batch)) some = column[static_cast<std::size_t>(lane)] = t * batch + lane;
    if (some < 0) {
      x.values({0, frames}).setZero();
      continue;
    }
    for (Index t = 0; t < frames; ++t)
      for (Index lane = 0; lane < batch; ++lane) {
        Index& from = column[static_cast<std::size_t>(lane)];
        if (there(t, lane, batch))
          from = t * batch + lane;
        else
          x.value_column(t * batch + lane) = x.value_column(from < 0 ? some : from);
      }
  }
}

template <class S>
void Program<S>::swap(const RunStage& stage, const Range& r, Swap way) const {
  for (const std::size_t number : stage.pasts) {
    const Carried& c = carried_[number];
    const Index features = c.window.shape.features, batch = c.window.shape.batch;
    marks_.resets(batch).each(r, [&](Index k, const Event& event) {
      auto column = c.window.value_column(event.frame * batch + event.lane);
      typename Tensor<S>::Column kept(aside_.data() + c.aside + k * features, features);
      if (way == Swap::In) {
        kept = column;
        column = c.start_of(event.lane);
      } else {
        column = kept;
      }
    });
  }
}

template <class S>
void Program<S>::swap_gradients(const RunStage& stage, const Range& r, Swap way) const {
  for (const std::size_t number : stage.pasts) {
    const Carried& c = carried_[number];
    if (!c.window.gradient) continue;
    const Index features = c.window.shape.features, batch = c.window.shape.batch;
    marks_.resets(batch).each(r, [&](Index k, const Event& event) {
      auto column = c.window.gradient_column(event.frame * batch + event.lane);
      typename Tensor<S>::Column kept(aside_gradients_.data() + c.aside + k * features, features),
          to_start(start_gradients_.data() + c.aside + k * features, features);
      if (way == Swap::In) {
        kept = column;
        column.setZero();
      } else {
        to_start += column;
        column = kept;
      }
    });
  }
}

template <class S>
void Program<S>::hold(const RunStage& stage, const Range& r) const {
  for (const std::size_t number : stage.named) {
    const Tensor<S>& window = carried_[number].window;
    const Index batch = window.shape.batch;
    marks_.holds(batch).each(r, [&](Index, const Event& event) {
      const Index column = event.frame * batch + event.lane;
      window.value_column(column + batch) = window.value_column(column);
    });
  }
}

template <class S>
void Program<S>::hold_gradients(const RunStage& stage, const Range& r) const {
  for (const std::size_t number : stage.named) {
    const Tensor<S>& window = carried_[number].window;
    if (!window.gradient) continue;
    const Index batch = window.shape.batch;
    marks_.holds(batch).each_back(r, [&](Index, const Event& event) {
      const Index column = event.frame * batch + event.lane;
      window.gradient_column(column) += window.gradient_column(column + batch);
      window.gradient_column(column + batch).setZero();
    });
  }
}

template <class S>
void Program<S>::add_to_starts(const Range& range) const {
  for (const Carried& c : carried_) {
    if (!c.start.gradient || !c.window.gradient) continue;
    const Index features = c.window.shape.features;
    marks_.resets(c.window.shape.batch).each(range, [&](Index k, const Event& event) {
      c.start.gradient_column(c.start.shape.batch == 1 ? 0 : event.lane) +=
          typename Tensor<S>::Column(start_gradients_.data() + c.aside + k * features, features);
    });
  }
}

template <class S>
void Program<S>::forward(std::uint64_t frame, Pulse& pulse, std::uint64_t lane) {
  clock_.frame = frame;
  clock_.lane = lane;
  ++clock_.window;
  together(pulse, [this](Member& member, Pulse& p) {
    begin(member);
    forward({0, frames_}, member, p);
    end(member, p);
  });
}

template <class S>
void Program<S>::begin(Pulse& pulse, std::uint64_t lane) {
  clock_.lane = lane;
  ++clock_.window;
  together(pulse, [this](Member& member, Pulse&) { begin(member); });
}

template <class S>
void Program<S>::forward(std::uint64_t frame, const Range& range, Pulse& pulse) {
  clock_.frame = frame;
  together(pulse, [this, range](Member& member, Pulse& p) { forward(range, member, p); });
}

template <class S>
void Program<S>::recompute(std::uint64_t frame, const Range& range, Pulse& pulse) {
  clock_.frame = frame;
  together(pulse, [this, range](Member& member, Pulse& p) {
    run(constants_, in_frames_, range, member, p, [](const RunStage& stage) { return !stage.window; });
  });
}

template <class S>
void Program<S>::end(Pulse& pulse) {
  together(pulse, [this](Member& member, Pulse& p) { end(member, p); });
}

template <class S>
void Program<S>::begin(Member& member) {
  if (member.first())
    for (std::size_t s = 0; s < constants_; ++s) {
      Operation<S>& operation = *stages_[s].steps.front().operation;
      operation.prepare();
      operation.forward({0, frames_});
    }
  member.barrier();
  const auto prepare = [&](const std::vector<Operation<S>*>& operations) {
    for (Index i = member.part.index; i < std::ssize(operations); i += member.part.count)
      operations[static_cast<std::size_t>(i)]->prepare();
  };
  prepare(begun_);
  if (constants_ > 0 || prepared_version_ != weights_->version()) prepare(prepared_);
  member.barrier();
  if (member.first()) prepared_version_ = weights_->version();
}

template <class S>
void Program<S>::forward(const Range& range, Member& member, Pulse& pulse) {
  run(constants_, in_frames_, range, member, pulse, all_stages);
}

template <class S>
void Program<S>::end(Member& member, Pulse& pulse) {
  if (in_frames_ == stages_.size()) return;
  member.barrier();
  run(in_frames_, stages_.size(), {0, frames_}, member, pulse, all_stages);
}

template <class S>
template <class F>
void Program<S>::run(std::size_t first, std::size_t last, const Range& range, Member& member, Pulse& pulse,
                     F&& here) {
  const bool others = member.part.count > 1;
  const RunStage* before = nullptr;
  for (std::size_t s = first; s < last; ++s) {
    const RunStage& stage = stages_[s];
    if (!here(stage)) continue;
    // Where memory is shared, what another thread still reads may lie where this stage writes.
    if (others && before && (overlaid_ || meet_between(dealt(*before), stage, member))) member.barrier();
    before = &stage;
    sweep(stage, range, member, false, pulse);
  }
}

template <class S>
void Program<S>::backward(Pulse& pulse) {
  if (!trains_) throw UsageError("this program was built without a loss to differentiate");
  together(pulse, [this](Member& member, Pulse& p) {
    begin_backward(member, p);
    backward({0, frames_}, member, p);
    end_backward(member, p);
  });
}

template <class S>
void Program<S>::begin_backward(Pulse& pulse) {
  if (!trains_) throw UsageError("this program was built without a loss to differentiate");
  together(pulse, [this](Member& member, Pulse& p) { begin_backward(member, p); });
}

template <class S>
void Program<S>::backward(const Range& range, Pulse& pulse) {
  together(pulse, [this, range](Member& member, Pulse& p) { backward(range, member, p); });
}

template <class S>
void Program<S>::end_backward(Pulse& pulse) {
  together(pulse, [this](Member& member, Pulse& p) { end_backward(member, p); });
}

template <class S>
void Program<S>::clear_frame_gradients(Pulse& pulse) {
  together(pulse, [this](Member& member, Pulse&) { clear_frame_gradients(member.part); });
}

template <class S>
void Program<S>::clear_frame_gradients(Part part) {
  start_gradients_.clear(part);
  clear(fresh_.back(), part);
}

template <class S>
void Program<S>::clear(const std::vector<Fresh>& fresh, Part part) {
  for (const auto& [numbers, cleared] : fresh)
    std::fill(numbers + part.begin(cleared), numbers + part.end(cleared), S(0));
}

/// Whether the loss depends on anything that has a gradient.
template <class S>
bool Program<S>::flows() const {
  return tensor(loss_).gradient;
}

template <class S>
void Program<S>::begin_backward(Member& member, Pulse& pulse) {
  clear_frame_gradients(member.part);
  held_gradients_.clear(member.part);
  weights_->gradients().clear(member.part);
  member.barrier();
  if (!flows()) return;
  if (member.first()) {
    prepared_version_ = unprepared;
    *tensor(loss_).gradient = S(1);
  }
  run_back(constants_, stages_.size(), {0, frames_}, member, pulse,
           [](const RunStage& stage) { return !stage.of_frames; });
}

template <class S>
void Program<S>::backward(const Range& range, Member& member, Pulse& pulse) {
  if (!flows()) return;
  run_back(constants_, in_frames_, range, member, pulse,
           [](const RunStage& stage) { return stage.of_frames; });
  if (!marks_.events()) return;
  member.barrier();
  if (member.first()) add_to_starts(range);
}

template <class S>
void Program<S>::end_backward(Member& member, Pulse& pulse) {
  if (flows()) run_back(0, constants_, {0, frames_}, member, pulse, all_stages);
}

template <class S>
template <class F>
void Program<S>::run_back(std::size_t first, std::size_t last, const Range& range, Member& member,
                          Pulse& pulse, F&& here) {
  const FlushDenormals flush;
  const Deal* since = nullptr;  // the barrier; null: nothing was done
  bool accumulating = false;    // others may be, since the last barrier
  const auto wait = [&] {
    member.barrier();
    since = nullptr;
    accumulating = false;
  };
  wait();
  for (std::size_t s = last; s-- > first;) {
    const RunStage& stage = stages_[s];
    if (!stage.backward || !here(stage)) continue;
    if (!fresh_[s].empty()) {
      wait();  // others may still use what was there before
      clear(fresh_[s], member.part);
      wait();
    }
    // What is accumulated may be read from columns that the sweep patches.
    if ((since && meet_between(*since, stage, member)) || (accumulating && patches(stage))) wait();
    since = &dealt(stage);
    sweep(stage, range, member, true, pulse);
    if (!stage.accumulates) continue;
    wait();
    accumulating = true;
    accumulate(stage, range, member, pulse);
  }
}

/// No sum is shared by threads: each does some of the numbers of each gradient, or all of some gradients. A step that
/// reads past values gets them as they were in the sweep, over all frames at once unless it reads named values as well.
template <class S>
void Program<S>::accumulate(const RunStage& stage, const Range& range, Member& member, Pulse& pulse) {
  const auto all_see = [&](const Range& r, Swap way) {
    member.barrier();
    if (member.first()) swap(stage, r, way);
    member.barrier();
  };
  Index whole = 0;
  for (const Step& step : Reversed(stage.steps)) {
    if (!step.accumulates) continue;
    const bool mine = step.divides || whole++ % member.part.count == member.part.index;
    const auto add = [&](const Range& r) {
      if (mine) accumulate(step, r, step.divides ? member.part : Part{}, pulse);
    };
    if (step.reads_past && patches(stage))
      each_piece(stage, range, true, step.reads_named, [&](const Range& r) {
        all_see(r, Swap::In);
        add(r);
        all_see(r, Swap::Out);
      });
    else
      add(range);
    if (stage.entangled) member.barrier();
  }
}

template <class S>
void Program<S>::accumulate(const Step& step, const Range& range, Part part, Pulse& pulse) {
  for (Index from = range.begin; from < range.end; from += step.long_piece) {
    const Range piece{from, std::min(from + step.long_piece, range.end)};
    step.operation->accumulate(piece, part);
    pulse.spend(step.work * piece.size());
  }
}

template <class S>
void Program<S>::refuse(Value v) {
  throw UsageError("this program does not compute value " + std::to_string(v));
}

template <class S>
void Program<S>::copy_gate(Value cell, Index gate, S* to) const {
  tensor(cell);  // it is computed
  const Operation<S>* const maker = makers_[at(cell)];
  if (!maker) throw UsageError("no cell makes value " + std::to_string(cell));
  maker->read_gate(gate, frames_ - 1, to);
}

template <class S>
auto Program<S>::carried(const std::string& name) const -> const Carried& {
  const auto found = std::ranges::find(carried_, name, &Carried::name);
  if (found == carried_.end()) throw UsageError("this program does not carry the state '" + name + "'");
  return *found;
}

template <class S>
void Program<S>::copy(Value v, const Range& range, S* to) const {
  const Tensor<S>& from = tensor(v);
  const Tensor<S> copy{to, nullptr, from.shape, Extent::Frame, from.shape.features};
  for (Index t = range.begin; t < range.end; ++t) copy.values(t - range.begin) = from.values(t);
  const auto past =
      std::ranges::find_if(carried_, [&](const Carried& c) { return c.window.value == from.value; });
  if (past == carried_.end()) return;
  marks_.resets(from.shape.batch).each(range, [&](Index, const Event& event) {
    const Index frame = event.frame - range.begin;
    copy.value_column(frame * from.shape.batch + event.lane) = past->start_of(event.lane);
  });
}

template <class S>
Eigen::Map<Matrix<S>> Program<S>::before(const std::string& name, Index frame) const {
  const Tensor<S>& w = carried(name).window;
  return {w.value + frame * w.shape.size(), w.shape.features, w.shape.batch};
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
  return static_cast<std::size_t>(values_.size() + gradients_.size() + held_gradients_.size() +
                                  scratch_.size()) *
         sizeof(S);
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
std::vector<Deal> Program<S>::deals() const {
  std::vector<Deal> all;
  for (const RunStage& stage : stages_) all.push_back(stage.deal);
  return all;
}

template <class S>
std::string Program<S>::not_finite(const Range& range, Index from, bool window) const {
  const auto describe = [&](const std::string& what, const Tensor<S>& tensor) -> std::string {
    const Range all = tensor.frames(range);
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
    if (tensor.extent == Extent::Frame)
      text << " at frame " << from + first - range.begin << " of the window";
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
      for (std::size_t k = 0; k < step.outputs.size() && stage.window == window; ++k) {
        const Tensor<S>& output = step.outputs[k];
        found = describe("the result of '" + step.makers[k] + "', of shape " + to_string(output.shape) + ",",
                         output);
        if (!found.empty()) return found;
      }
  return {};
}

template class Program<float>;
template class Program<double>;

}  // namespace bptt
