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

template <class S>
Block<S>& moment_of(Training<S>& training, const std::string& name) {
  training.optimiser.reserve(training.weights);
  if (name == "m") return training.optimiser.m;
  if (name == "v") return training.optimiser.v;
  throw UsageError("Adam has the moments \"m\" and \"v\", not \"" + name + "\"");
}

template <class S>
std::vector<Sequence<S>> sequences(const Program<S>& program, const std::vector<Array<S>>& data) {
  if (data.size() != program.placeholders().size())
    throw UsageError("expected " + std::to_string(program.placeholders().size()) + " arrays, got " +
                     std::to_string(data.size()));
  std::vector<Sequence<S>> all;
  for (std::size_t i = 0; i < data.size(); ++i)
    all.push_back(sequence(data[i], program.tensor(program.placeholders()[i]).shape));
  return all;
}

template <class S>
py::array_t<S> fit_windows(Program<S>& program, State<S>& state, std::optional<Training<S>*> training,
                           const std::vector<Array<S>>& data, Index start, Index steps) {
  const std::vector<Sequence<S>> all = sequences(program, data);
  std::vector<S> losses(static_cast<std::size_t>(steps));
  {
    const py::gil_scoped_release release;
    Pulse pulse = signals();
    fit(program, state, training.value_or(nullptr), all, start, losses, pulse);
  }
  return py::array_t<S>(static_cast<Index>(losses.size()), losses.data());
}

template <class S>
std::vector<py::array_t<S>> predict_frames(Program<S>& program, State<S>& state,
                                           const std::vector<Array<S>>& data,
                                           const std::vector<Value>& outputs, std::optional<Index> frames) {
  const std::vector<Sequence<S>> all = sequences(program, data);
  if (!frames && all.empty()) throw UsageError("without inputs, say how many frames to run");
  const Index windows = frames.value_or(all.empty() ? 0 : all[0].frames) / program.frames();
  std::vector<py::array_t<S>> arrays;
  std::vector<std::pair<Tensor<S>, Tensor<S>>> copies;  // from the program, to the array
  for (const Value v : outputs) {
    const Tensor<S>& from = program.tensor(v);
    arrays.push_back(window<S>(windows * program.frames(), from.shape));
    copies.push_back(
        {from, {arrays.back().mutable_data(), nullptr, from.shape, Extent::Frame, from.shape.features}});
  }
  const py::gil_scoped_release release;
  Pulse pulse = signals();
  predict(
      program, state, all, windows,
      [&](Index w) {
        for (const auto& [from, to] : copies)
          for (Index t = 0; t < program.frames(); ++t) to.values(w * program.frames() + t) = from.values(t);
      },
      pulse);
  return arrays;
}

}  // namespace

template <class S>
void bind_training(py::module_& m) {
  using T = Training<S>;
  py::class_<Adam<S>>(m, named<S>("Adam").c_str(), "Adam's settings and moments.")
      .def(py::init([](double learning_rate, double beta1, double beta2, double epsilon, bool epsilon_hat) {
             return Adam<S>({learning_rate, beta1, beta2, epsilon, epsilon_hat});
           }),
           py::arg("learning_rate"), py::arg("beta1"), py::arg("beta2"), py::arg("epsilon"),
           py::arg("epsilon_hat"));

  using C = Clip<S>;
  py::class_<C>(m, named<S>("Clip").c_str(), "How gradients are clipped.")
      .def_static("none", [] { return C{}; })
      .def_static(
          "by_value", [](double limit) { return C{C::Kind::ByValue, limit}; }, py::arg("limit"))
      .def_static(
          "by_global_norm", [](double limit) { return C{C::Kind::ByGlobalNorm, limit}; }, py::arg("limit"));

  py::class_<T>(m, named<S>("Training").c_str(), "Clipping and an optimiser, for the weights of one net.")
      .def(py::init([](Weights<S>& weights, const C& clip, Adam<S>& optimiser) {
             return T{weights, clip, Adam<S>(optimiser.settings)};
           }),
           py::arg("weights"), py::arg("clip"), py::arg("optimiser"), py::keep_alive<1, 2>())
      .def(
          "step",
          [](T& t, Program<S>& program) {
            Pulse pulse = signals();
            t.step(program, pulse);
          },
          py::arg("program"), py::call_guard<py::gil_scoped_release>())
      .def_property(
          "learning_rate", [](const T& t) { return t.optimiser.settings.learning_rate; },
          [](T& t, double rate) { t.optimiser.settings.learning_rate = rate; })
      .def_property(
          "steps", [](const T& t) { return t.optimiser.steps; },
          [](T& t, Index steps) { t.optimiser.steps = steps; })
      .def_property_readonly("moments", [](const T&) { return std::vector<std::string>{"m", "v"}; })
      .def(
          "get_moment",
          [](T& t, const std::string& moment, const std::string& weight) {
            return to_numpy<S>(t.weights.part(moment_of(t, moment), weight));
          },
          py::arg("moment"), py::arg("weight"))
      .def(
          "set_moment",
          [](T& t, const std::string& moment, const std::string& weight, const Array<S>& array) {
            assign(t.weights.part(moment_of(t, moment), weight), array,
                   "the moment '" + moment + "' of '" + weight + "'");
          },
          py::arg("moment"), py::arg("weight"), py::arg("array"));

  m.def("fit", &fit_windows<S>, py::arg("program"), py::arg("state"), py::arg("training"), py::arg("data"),
        py::arg("start"), py::arg("steps"),
        "Trains on consecutive windows (training None: only runs them); returns their losses.");
  m.def("predict", &predict_frames<S>, py::arg("program"), py::arg("state"), py::arg("data"),
        py::arg("outputs"), py::arg("frames") = std::nullopt,
        "Runs so many frames (all of the data); returns each output as (time, features, batch).");
}

template void bind_training<float>(py::module_&);
template void bind_training<double>(py::module_&);

}  // namespace bptt::bind
