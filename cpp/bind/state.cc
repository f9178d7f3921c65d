#include "bind/bind.h"
#include "unroll/exclusive.h"

namespace bptt::bind {

void bind_exclusive(py::module_& m) {
  py::class_<Exclusive>(m, "Exclusive",
                        "One thread at a time: `with exclusive:` raises UsageError for a second one.")
      .def(py::init<>())
      .def("__enter__", &Exclusive::enter)
      .def(
          "__exit__",
          [](Exclusive& e, const py::object&, const py::object&, const py::object&) { e.leave(); },
          py::arg("type"), py::arg("value"), py::arg("traceback"))
      .def("lend", &Exclusive::lend, "Inside: let a function of the user's enter.")
      .def("take_back", &Exclusive::take_back, py::arg("before"), "After it, with what `lend` returned.");
}

template <class S>
void bind_state(py::module_& m) {
  py::class_<State<S>>(m, named<S>("State").c_str(), "The recurrent state of one mode.")
      .def(py::init([](const std::map<std::string, std::pair<Index, Index>>& shapes) {
             std::map<std::string, Shape> converted;
             for (const auto& [name, shape] : shapes) converted[name] = {shape.first, shape.second};
             return State<S>(converted);
           }),
           py::arg("shapes"))
      .def_property_readonly("names", &State<S>::names)
      .def(
          "shape",
          [](const State<S>& s, const std::string& name) {
            return std::pair(s.at(name).rows(), s.at(name).cols());
          },
          py::arg("name"))
      .def(
          "get", [](const State<S>& s, const std::string& name) { return to_numpy<S>(s.at(name)); },
          py::arg("name"))
      .def(
          "set",
          [](State<S>& s, const std::string& name, const Array<S>& array) {
            assign(s.at(name), array, "the state '" + name + "'");
          },
          py::arg("name"), py::arg("array"))
      .def_readwrite("frame", &State<S>::frame);
}

template void bind_state<float>(py::module_&);
template void bind_state<double>(py::module_&);

}  // namespace bptt::bind
