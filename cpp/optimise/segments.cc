#include "optimise/segments.h"

#include <algorithm>
#include <limits>

namespace bptt {
namespace {

/// What the program of a segment is asked for.
Request of_one(Request request, Index frames, bool recompute) {
  request.frames = frames;
  request.edges = true;
  if (!recompute) request.share_from = std::numeric_limits<Index>::max();
  return request;
}

}  // namespace

template <class S>
Segments<S>::Segments(const Graph& graph, Weights<S>& weights, const Request& request, Index every,
                      bool recompute, Team* team)
    : frames_(request.frames),
      every_(every),
      count_(every < 1 ? 0 : (request.frames + every - 1) / every),
      recompute_(recompute),
      loss_(request.loss),
      program_(graph, weights,
               of_one(request, recompute ? std::min(every, request.frames) : request.frames, recompute),
               team) {
  if (every < 1) throw UsageError("a segment has at least one frame, got " + std::to_string(every));
  for (const std::string& name : program_.pasts()) {
    const Tensor<S>& window = program_.past(name);
    ways_.push_back({name, window, size_});
    size_ += window.shape.size();
  }
  edges_ = Block<S>((count_ + 1) * size_);
  gradient_ = Block<S>(size_);
  for (const Value v : request.wrt) {
    const Tensor<S>& tensor = program_.tensor(v);
    const bool past = graph.recurrence_of_past(v);
    gradients_.push_back({v, Block<S>(tensor.gradient ? tensor.shape.size() * (past ? 1 : frames_) : 0)});
  }
}

template <class S>
void Segments<S>::feed(Data<S>& data, Index start, Index counted) {
  data_ = &data;
  start_ = start;
  from_ = counted;
  present_ = -1;
}

template <class S>
void Segments<S>::compute(Index s, bool again, Pulse& pulse) {
  const Range all = segment(s), here = inside(s);
  if (recompute_) {
    data_->feed(program_, start_ + all.begin, all.size(), std::clamp(from_ - all.begin, Index{0}, all.size()),
                pulse);
    load(Side::Values, edges_.data() + s * size_, 0);
  }
  const std::uint64_t frame = frame_ + static_cast<std::uint64_t>(all.begin - here.begin);
  if (again)
    program_.recompute(frame, here, pulse);
  else
    program_.forward(frame, here, pulse);
  present_ = s;
}

template <class S>
void Segments<S>::forward(std::uint64_t frame, Pulse& pulse, std::uint64_t lane) {
  if (!data_) throw UsageError("nothing was fed");
  frame_ = frame;
  counted_ = 0;
  if (!recompute_) {
    data_->feed(program_, start_, frames_, from_, pulse);
    load(Side::Values, edges_.data(), 0);
  }
  program_.begin(pulse, lane);
  for (Index s = 0; s < count_; ++s) {
    const Range all = segment(s), here = inside(s);
    compute(s, false, pulse);
    counted_ = recompute_ ? counted_ + program_.counted() : program_.counted();
    store(Side::Values, here.end, edges_.data() + (s + 1) * size_);
    for (auto& [at, states] : others_)
      if (at > all.begin && at < all.end) store(Side::Values, here.begin + at - all.begin, states.data());
    for (Kept& kept : kept_)
      program_.copy(kept.value, here, kept.all.data() + all.begin * tensor(kept.value).shape.size());
  }
  program_.end(pulse);
}

template <class S>
void Segments<S>::backward(Pulse& pulse) {
  program_.begin_backward(pulse);
  for (Index s = count_; s-- > 0;) {
    const Range all = segment(s), here = inside(s);
    if (recompute_ && present_ != s) compute(s, true, pulse);
    if (recompute_ && s + 1 < count_) {
      program_.clear_frame_gradients(pulse);
      load(Side::Gradients, gradient_.data(), here.end);
    }
    program_.backward(here, pulse);
    store(Side::Gradients, here.begin, gradient_.data());
    for (Kept& kept : gradients_) {
      if (kept.all.size() == 0) continue;
      const Tensor<S>& from = tensor(kept.value);
      const Index size = from.shape.size();
      if (kept.all.size() == size)  // of the first frame: what comes last stays
        std::copy_n(from.gradient + here.begin * size, size, kept.all.data());
      else
        std::copy_n(from.gradient + here.begin * size, size * all.size(), kept.all.data() + all.begin * size);
    }
  }
  program_.end_backward(pulse);
}

template <class S>
void Segments<S>::load(Side part, const S* from, Index frame) const {
  for (const Way& way : ways_) {
    S* const to = part == Side::Values ? way.window.value : way.window.gradient;
    const Index size = way.window.shape.size();
    if (to) std::copy_n(from + way.place, size, to + frame * size);
  }
}

template <class S>
void Segments<S>::store(Side part, Index frame, S* to) const {
  for (const Way& way : ways_) {
    const S* const from = part == Side::Values ? way.window.value : way.window.gradient;
    const Index size = way.window.shape.size();
    if (from) std::copy_n(from + frame * size, size, to + way.place);
  }
}

template <class S>
Eigen::Map<Matrix<S>> Segments<S>::before(const std::string& name, Index frame) {
  const Shape shape = program_.past(name).shape;
  const Index place = std::ranges::find(ways_, name, &Way::name)->place;
  S* states = nullptr;
  if (frame == frames_)
    states = edges_.data() + count_ * size_;
  else if (frame % every_ == 0)
    states = edges_.data() + frame / every_ * size_;
  else
    states = others_.try_emplace(frame, size_).first->second.data();
  return {states + place, shape.features, shape.batch};
}

template <class S>
std::string Segments<S>::not_finite() {
  Pulse pulse;
  for (Index s = 0; s < count_; ++s) {
    if (recompute_) compute(s, true, pulse);
    const std::string found = program_.not_finite(inside(s), segment(s).begin);
    if (!found.empty()) return found;
  }
  return program_.not_finite_in_window();
}

template <class S>
void Segments<S>::keep(Value v) {
  const Tensor<S>& kept = tensor(v);
  if (kept.extent == Extent::Frame && std::ranges::find(kept_, v, &Kept::value) == kept_.end())
    kept_.push_back({v, Block<S>(frames_ * kept.shape.size())});
}

template <class S>
void Segments<S>::copy(Value v, S* to) const {
  const Tensor<S>& from = tensor(v);
  if (from.extent != Extent::Frame) {
    const Tensor<S> copy{to, nullptr, from.shape, Extent::Frame, from.shape.features};
    for (Index t = 0; t < frames_; ++t) copy.values(t) = from.values(t);
    return;
  }
  const auto kept = std::ranges::find(kept_, v, &Kept::value);
  if (kept == kept_.end()) throw UsageError("all frames of value " + std::to_string(v) + " were not kept");
  std::copy_n(kept->all.data(), kept->all.size(), to);
}

template <class S>
const S* Segments<S>::gradient(Value v) const {
  const auto found = std::ranges::find(gradients_, v, &Kept::value);
  if (found == gradients_.end())
    throw UsageError("the gradient of value " + std::to_string(v) + " was not asked for");
  return found->all.size() > 0 ? found->all.data() : nullptr;
}

template <class S>
std::size_t Segments<S>::memory() const {
  Index numbers = edges_.size() + gradient_.size();
  for (const auto& other : others_) numbers += other.second.size();
  for (const auto* list : {&kept_, &gradients_})
    for (const Kept& kept : *list) numbers += kept.all.size();
  return program_.memory() + static_cast<std::size_t>(numbers) * sizeof(S);
}

template class Segments<float>;
template class Segments<double>;

}  // namespace bptt
