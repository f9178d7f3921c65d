#include <chrono>

#include "bind/bind.h"
#include "unroll/exclusive.h"

namespace bptt::bind {

Pulse signals() {
  using Clock = std::chrono::steady_clock;
  constexpr auto period = std::chrono::milliseconds(20);  // the GIL may have to be waited for: not too often
  return Pulse([last = Clock::now(), period]() mutable {
    if (Clock::now() - last < period) return;
    last = Clock::now();
    const py::gil_scoped_acquire acquire;
    Exclusive::interrupting() = true;
    const int raised = PyErr_CheckSignals();
    Exclusive::interrupting() = false;
    if (raised != 0) throw py::error_already_set();
  });
}

namespace {

template <class S, class P>
Data<S> data_of(const P& program, Index lanes, const std::vector<Array<S>>& data,
                const std::optional<FlagArray>& resets, const std::optional<FlagArray>& masks) {
  if (data.size() != program.placeholders().size())
    throw UsageError("expected " + std::to_string(program.placeholders().size()) + " arrays, got " +
                     std::to_string(data.size()));
  Data<S> all{{}, flags(resets, lanes), flags(masks, lanes)};
  for (std::size_t i = 0; i < data.size(); ++i)
    all.sequences.push_back(sequence(data[i], program.tensor(program.placeholders()[i]).shape));
  return all;
}

template <class S>
const Program<S>& one_of(const Program<S>& program) {
  return program;
}
template <class S>
const Program<S>& one_of(const Segments<S>& segments) {
  return segments.program();
}

template <class S, class P>
py::array_t<S> fit_windows(P& program, State<S>& state, std::optional<Training<S>*> training,
                           const std::vector<Array<S>>& data, Index start, Index steps,
                           const std::vector<Value>& watched, std::vector<py::array_t<S>> room,
                           const std::optional<FlagArray>& resets, const std::optional<FlagArray>& masks,
                           std::optional<Index> stride, std::optional<Ranks<S>*> ranks) {
  Data<S> all = data_of(program, one_of(program).marks().lanes(), data, resets, masks);
  const Index by = stride.value_or(program.frames());
  if (by < 1 || by > program.frames())
    throw UsageError("a stride is from 1 to " + std::to_string(program.frames()) + " frames, got " +
                     std::to_string(by));
  py::array_t<S> losses(steps);
  std::vector<const S*> from;
  std::vector<S*> to{losses.mutable_data()};
  if (watched.size() != room.size()) throw UsageError("there is not as much room as is watched");
  for (std::size_t i = 0; i < watched.size(); ++i) {
    const Tensor<S>& value = program.tensor(watched[i]);
    if (value.extent != Extent::Window || !(value.shape == Shape{1, 1}) || room[i].size() != steps)
      throw UsageError("what is watched is a window value of one number, with room for it of each window");
    from.push_back(value.value);
    to.push_back(room[i].mutable_data());
  }
  {
    const py::gil_scoped_release release;
    Pulse pulse = signals();
    Ranks<S> alone;
    fit(program, state, training.value_or(nullptr), ranks ? **ranks : alone, all, start, by, steps, from,
        pulse, [&](Index window, std::span<const S> values) {
          for (std::size_t i = 0; i < values.size(); ++i) to[i][window] = values[i];
        });
  }
  return losses;
}

template <class S, class P>
void step(Training<S>& training, P& program) {
  Pulse pulse = signals();
  Ranks<S> alone;
  S loss = program.loss();
  training.step(program, pulse, alone, {&loss, 1});
}

template <class S>
std::vector<py::array_t<S>> predict_frames(Program<S>& program, State<S>& state,
                                           const std::vector<Array<S>>& data,
                                           const std::vector<Value>& outputs, std::optional<Index> frames,
                                           const std::optional<FlagArray>& resets,
                                           const std::optional<FlagArray>& masks,
                                           const std::vector<std::pair<Value, Index>>& gates) {
  Data<S> all = data_of(program, program.marks().lanes(), data, resets, masks);
  if (!gates.empty() && program.frames() > 1) throw UsageError("gates are those of windows of one frame");
  if (!frames && data.empty()) throw UsageError("without inputs, say how many frames to run");
  const Index windows = frames.value_or(data.empty() ? 0 : all.sequences[0].frames) / program.frames();
  std::vector<py::array_t<S>> arrays;
  std::vector<std::pair<Value, S*>> copies;  // from the program, to the array
  for (const Value v : outputs) {
    arrays.push_back(window<S>(windows * program.frames(), program.tensor(v).shape));
    copies.emplace_back(v, arrays.back().mutable_data());
  }
  std::vector<S*> inside;
  for (const auto& [cell, gate] : gates) {
    arrays.push_back(window<S>(windows, program.tensor(cell).shape));
    inside.push_back(arrays.back().mutable_data());
  }
  const py::gil_scoped_release release;
  Pulse pulse = signals();
  predict(
      program, state, all, windows,
      [&](Index w) {
        for (const auto& [from, to] : copies)
          program.copy(from, to + w * program.frames() * program.tensor(from).shape.size());
        for (std::size_t i = 0; i < gates.size(); ++i) {
          const auto& [cell, gate] = gates[i];
          program.copy_gate(cell, gate, inside[i] + w * program.tensor(cell).shape.size());
        }
      },
      pulse);
  return arrays;
}

}  // namespace

template <class S>
void bind_training(py::module_& m) {
  using T = Training<S>;
  py::class_<Optimiser<S>, Rule<S>>(m, named<S>("Optimiser").c_str(),
                                    "A rule by which weights change, and its settings.")
      .def_static("sgd", &sgd<S>, py::arg("momentum"), py::arg("nesterov"))
      .def_static("rmsprop", &rmsprop<S>, py::arg("alpha"), py::arg("epsilon"), py::arg("momentum"),
                  py::arg("centered"))
      .def_static("adagrad", &adagrad<S>, py::arg("epsilon"), py::arg("epsilon_inside"), py::arg("start"))
      .def_static("adam", &adam<S>, py::arg("beta1"), py::arg("beta2"), py::arg("epsilon"),
                  py::arg("epsilon_hat"), py::arg("decoupled"));

  using C = Clip<S>;
  py::class_<C>(m, named<S>("Clip").c_str(), "How gradients are clipped.")
      .def_static("none", [] { return C{}; })
      .def_static(
          "by_value", [](double limit) { return C{C::Kind::ByValue, limit}; }, py::arg("limit"))
      .def_static(
          "by_global_norm", [](double limit) { return C{C::Kind::ByGlobalNorm, limit}; }, py::arg("limit"));

  py::class_<T>(m, named<S>("Training").c_str(), "Clipping and an optimiser, for the weights of one net.")
      .def(py::init([](Weights<S>& weights, const C& clip, Rule<S> optimiser,
                       const std::map<std::string, double>& decay, const std::set<std::string>& frozen) {
             return std::make_unique<T>(weights, clip, optimiser, Groups{decay, frozen});
           }),
           py::arg("weights"), py::arg("clip"), py::arg("optimiser"), py::arg("decay"), py::arg("frozen"),
           py::keep_alive<1, 2>())
      .def("step", &step<S, Program<S>>, py::arg("program"), py::call_guard<py::gil_scoped_release>())
      .def("step", &step<S, Fed<S>>, py::arg("program"), py::call_guard<py::gil_scoped_release>())
      .def("plan", &T::plan, py::arg("rates"),
           "Learning rates of the coming updates, one each; the last serves all that follow.")
      .def_property("steps", &T::steps, &T::set_steps)
      .def_property_readonly("moments", [](T& t) { return t.moments().names(); })
      .def(
          "get_moment",
          [](T& t, const std::string& moment, const std::string& weight) {
            return to_numpy<S>(t.weights().part(t.moments().at(moment), weight));
          },
          py::arg("moment"), py::arg("weight"))
      .def(
          "set_moment",
          [](T& t, const std::string& moment, const std::string& weight, const Array<S>& array) {
            assign(t.weights().part(t.moments().at(moment), weight), array,
                   "the moment '" + moment + "' of '" + weight + "'");
          },
          py::arg("moment"), py::arg("weight"), py::arg("array"));

  using R = Ranks<S>;
  py::class_<R>(m, named<S>("Ranks").c_str(), "Processes that train one net, each on lanes of its own.")
      .def(py::init([](const std::function<void(py::array)>& add_up, Index first, Index lanes,
                       const Graph& graph, const std::vector<Value>& values, bool resets, bool masks) {
             return std::make_unique<R>(
                 [add_up](S* numbers, Index count) {
                   const py::gil_scoped_acquire acquire;
                   const py::capsule nobody(numbers,
                                            [](void*) {});  // an array without an owner would be a copy
                   add_up(py::array_t<S>(count, numbers, nobody));
                 },
                 first, lanes, across(graph, values, resets, masks));
           }),
           py::arg("add_up"), py::arg("first"), py::arg("lanes"), py::arg("graph"), py::arg("values"),
           py::arg("resets"), py::arg("masks"),
           "`add_up` adds a flat array up over all ranks, in place. `lanes` go on in all of them, `first` "
           "before this "
           "one's. The values are the loss and what is watched.")
      .def_property_readonly(
          "kinds",
          [](const R& r) {
            std::vector<std::string> all;
            for (const Across kind : r.kinds()) all.emplace_back(kind == Across::Sum ? "sum" : "mean");
            return all;
          },
          "How the values of ranks go together.");

  const auto define_fit = [&](auto* function) {
    m.def("fit", function, py::arg("program"), py::arg("state"), py::arg("training"), py::arg("data"),
          py::arg("start"), py::arg("steps"), py::kw_only(), py::arg("watched") = std::vector<Value>{},
          py::arg("room") = std::vector<py::array_t<S>>{}, py::arg("resets") = std::nullopt,
          py::arg("masks") = std::nullopt, py::arg("stride") = std::nullopt, py::arg("ranks") = std::nullopt,
          "Trains on windows, each `stride` frames after the one before (a window's length), by the loss of "
          "their last `stride` frames; training None: only runs them. Returns the losses. Of window values "
          "that are watched it fills the arrays, one number for each window.");
  };
  define_fit(&fit_windows<S, Program<S>>);
  define_fit(&fit_windows<S, Fed<S>>);
  m.def("predict", &predict_frames<S>, py::arg("program"), py::arg("state"), py::arg("data"),
        py::arg("outputs"), py::arg("frames") = std::nullopt, py::kw_only(), py::arg("resets") = std::nullopt,
        py::arg("masks") = std::nullopt, py::arg("gates") = std::vector<std::pair<Value, Index>>{},
        "Runs so many frames (all of the data); returns each output, then each gate, as (time, features, "
        "batch).");
}

template void bind_training<float>(py::module_&);
template void bind_training<double>(py::module_&);

}  // namespace bptt::bind
