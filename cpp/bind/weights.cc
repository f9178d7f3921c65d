#include "bind/bind.h"

namespace bptt::bind {

template <class S>
void bind_weights(py::module_& m) {
  py::class_<Weights<S>>(m, named<S>("Weights").c_str(), "All weights of a net, and their gradients.")
      .def(py::init<>())
      .def(
          "declare",
          [](Weights<S>& w, const std::string& name, const Array<S>& values) {
            w.declare(name, matrix(values));
          },
          py::arg("name"), py::arg("values"))
      .def(
          "freeze", [](Weights<S>& w, const std::vector<const Graph*>& graphs) { w.freeze(graphs); },
          py::arg("graphs"))
      .def_property_readonly("names",
                             [](const Weights<S>& w) {
                               std::vector<std::string> names;
                               for (const Variable& v : w.variables()) names.push_back(v.name);
                               return names;
                             })
      .def_property_readonly("size", [](const Weights<S>& w) { return w.values().size(); })
      .def(
          "shape",
          [](const Weights<S>& w, const std::string& name) {
            const Shape s = w.find(name).shape;
            return std::pair(s.features, s.batch);
          },
          py::arg("name"))
      .def(
          "get",
          [](const Weights<S>& w, const std::string& name) { return to_numpy<S>(w.part(w.values(), name)); },
          py::arg("name"))
      .def(
          "set",
          [](Weights<S>& w, const std::string& name, const Array<S>& array) {
            assign(w.part(w.writable(), name), array, "the weight '" + name + "'");
          },
          py::arg("name"), py::arg("array"))
      .def(
          "gradient",
          [](const Weights<S>& w, const std::string& name) {
            if (w.gradients().size() != w.values().size())
              throw UsageError("there are no gradients before the first program is built");
            return to_numpy<S>(w.part(w.gradients(), name));
          },
          py::arg("name"));
}

template void bind_weights<float>(py::module_&);
template void bind_weights<double>(py::module_&);

}  // namespace bptt::bind
