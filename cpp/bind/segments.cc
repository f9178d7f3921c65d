#include "bind/bind.h"

namespace bptt::bind {

template <class S>
void bind_segments(py::module_& m) {
  using P = Fed<S>;
  py::class_<P> segments(
      m, named<S>("Segments").c_str(),
      "A frame unrolled over a long window, of which one segment is in memory at a time; used as a Program.");
  segments
      .def(py::init([](const Graph& graph, Weights<S>& weights, Index frames,
                       const std::vector<Value>& fetches, std::optional<Value> loss,
                       const std::vector<Value>& wrt, std::uint64_t seed, Index every, bool recompute,
                       std::optional<Team*> team, const std::vector<std::string>& frozen, bool passes,
                       bool trains, Index share_from) {
             return std::make_unique<P>(graph, weights,
                                        Request{frames, fetches, loss.value_or(-1), wrt, seed, frozen, passes,
                                                trains, false, share_from},
                                        every, recompute, team.value_or(nullptr));
           }),
           py::arg("graph"), py::arg("weights"), py::arg("frames"), py::arg("fetches"),
           py::arg("loss") = std::nullopt, py::arg("wrt") = std::vector<Value>{}, py::arg("seed") = 0,
           py::kw_only(), py::arg("every"), py::arg("recompute") = true, py::arg("team") = py::none(),
           py::arg("frozen") = std::vector<std::string>{}, py::arg("passes") = true, py::arg("trains") = true,
           py::arg("share_from") = Request().share_from, py::keep_alive<1, 3>(), py::keep_alive<1, 11>())
      .def("feed", &P::feed, py::arg("placeholder"), py::arg("array"))
      .def("mark", &P::mark, py::arg("resets") = std::nullopt, py::arg("masks") = std::nullopt,
           "Where lanes begin anew, and which frames are valid, (frames, lanes); after feeding.")
      .def("keep", &P::keep, py::arg("value"),
           "All frames of a value are kept from the next forward on, for `value`.")
      .def(
          "gradient",
          [](const P& p, Value v) {
            const S* const gradient = p.gradient(v);
            const std::vector<Value>& fed = p.placeholders();
            const bool past = std::ranges::find(fed, v) == fed.end();
            py::array_t<S> array = window<S>(past ? 1 : p.frames(), p.tensor(v).shape);
            if (gradient)
              std::copy_n(gradient, array.size(), array.mutable_data());
            else  // the loss does not depend on it
              std::fill_n(array.mutable_data(), array.size(), S(0));
            return array;
          },
          py::arg("value"),
          "(time, features, batch); of a past value that of the state that came in, time 1.");
  define_runs<S>(segments);
}

template void bind_segments<float>(py::module_&);
template void bind_segments<double>(py::module_&);

}  // namespace bptt::bind
