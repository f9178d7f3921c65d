#include "bind/bind.h"

namespace bptt::bind {

template <class S>
void bind_program(py::module_& m) {
  using P = Program<S>;
  py::class_<P> program(m, named<S>("Program").c_str(), "A frame unrolled over a window.");
  program
      .def(py::init([](const Graph& graph, Weights<S>& weights, Index frames,
                       const std::vector<Value>& fetches, std::optional<Value> loss,
                       const std::vector<Value>& wrt, std::uint64_t seed, std::optional<Team*> team,
                       const std::vector<std::string>& frozen, bool passes, bool trains, Index share_from) {
             return std::make_unique<P>(graph, weights,
                                        Request{frames, fetches, loss.value_or(-1), wrt, seed, frozen, passes,
                                                trains, false, share_from},
                                        team.value_or(nullptr));
           }),
           py::arg("graph"), py::arg("weights"), py::arg("frames"), py::arg("fetches"),
           py::arg("loss") = std::nullopt, py::arg("wrt") = std::vector<Value>{}, py::arg("seed") = 0,
           py::kw_only(), py::arg("team") = py::none(), py::arg("frozen") = std::vector<std::string>{},
           py::arg("passes") = true, py::arg("trains") = true, py::arg("share_from") = Request().share_from,
           py::keep_alive<1, 3>(), py::keep_alive<1, 9>())
      .def_property_readonly("stages", &P::stages)
      .def_property_readonly("shared", &P::shared, "Whether windows are large enough to be shared out.")
      .def_property_readonly(
          "deals",
          [](const P& p) {
            constexpr const char* names[] = {"whole", "frames", "lanes", "rows"};
            std::vector<std::string> all;
            for (const Deal& deal : p.deals()) all.emplace_back(names[static_cast<std::size_t>(deal.kind)]);
            return all;
          },
          "How each stage is shared out among threads: whole, by frames, by lanes or by rows.")
      .def(
          "feed",
          [](P& p, Value placeholder, const Array<S>& array) {
            const Tensor<S>& tensor = p.tensor(placeholder);
            const Sequence<S> frames = sequence(array, tensor.shape);
            if (frames.frames != p.frames())
              throw ShapeError("expected " + std::to_string(p.frames()) + " frames, got an array of shape " +
                               shape_of(array));
            frames.copy(0, p.frames(), tensor.value);
            require_finite(tensor.values({0, p.frames()}), "a feed");
          },
          py::arg("placeholder"), py::arg("array"))
      .def(
          "mark",
          [](P& p, const std::optional<FlagArray>& resets, const std::optional<FlagArray>& masks,
             Index counted) {
            const auto rows = [&](const std::optional<FlagArray>& array) {
              const Flags found = flags(array, p.marks().lanes());
              if (array && found.frames != p.frames())
                throw ShapeError("expected " + std::to_string(p.frames()) +
                                 " frames, got an array of shape " + shape_of(*array));
              return found.data;
            };
            p.mark(rows(resets), rows(masks), counted);
          },
          py::arg("resets") = std::nullopt, py::arg("masks") = std::nullopt, py::arg("counted") = 0,
          "Where lanes begin anew, and which frames are valid, (frames, lanes); after feeding. Losses are "
          "made of the "
          "frames from `counted` on.")
      .def(
          "keep", [](const P& p, Value v) { p.tensor(v); }, py::arg("value"),
          "What was fetched is there after a forward, as `value`.")
      .def(
          "gradient",
          [](const P& p, Value v) {
            Tensor<S> gradient = p.tensor(v);
            if (!gradient.gradient) {  // the loss does not depend on it
              py::array_t<S> none = window<S>(p.frames(), gradient.shape);
              std::fill_n(none.mutable_data(), none.size(), S(0));
              return none;
            }
            gradient.value = gradient.gradient;
            return to_numpy(gradient, p.frames());
          },
          py::arg("value"),
          "(time, features, batch); for a past value frame 0 is that of the state that came in.");
  define_runs<S>(program);
}

template void bind_program<float>(py::module_&);
template void bind_program<double>(py::module_&);

}  // namespace bptt::bind
