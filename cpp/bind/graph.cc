#include "bind/bind.h"
#include "kernel/philox.h"

namespace bptt::bind {

void bind_operations(py::module_& m) {
  py::class_<Example>(m, "Example", "A way to call an operation, for tests.")
      .def_property_readonly("inputs",
                             [](const Example& e) {
                               std::vector<std::pair<Index, Index>> shapes;
                               for (const Shape& s : e.inputs) shapes.emplace_back(s.features, s.batch);
                               return shapes;
                             })
      .def_readonly("attributes", &Example::attributes)
      .def_readonly("low", &Example::low)
      .def_readonly("high", &Example::high);

  py::class_<Registered>(m, "Operation", "An operation of the core's list.")
      .def_readonly("name", &Registered::name)
      .def_readonly("examples", &Registered::examples)
      .def_readonly("differentiable", &Registered::differentiable)
      .def_property_readonly("sequence", &Registered::is_cell)
      .def(
          "is_weight", [](const Registered& r, std::size_t input) { return input >= r.first_weight; },
          py::arg("input"));

  m.def(
      "operations",
      [] {
        std::vector<const Registered*> list;
        for (const auto& entry : registry()) list.push_back(&entry.second);
        return list;
      },
      py::return_value_policy::reference, "All operations, sorted by name.");

  m.def("philox4x32", &philox4x32, py::arg("counter"), py::arg("key"),
        "Philox4x32-10, for known-answer tests.");
}

void bind_graph(py::module_& m) {
  py::class_<Node>(m, "Node", "One call of an operation in a graph.")
      .def_property_readonly("operation", [](const Node& n) { return n.type->name; })
      .def_readonly("inputs", &Node::inputs)
      .def_readonly("outputs", &Node::outputs)
      .def_readonly("attributes", &Node::attributes);

  py::class_<Graph>(m, "Graph", "The frame of one mode: values and the operations between them.")
      .def(py::init<>())
      .def(
          "placeholder",
          [](Graph& g, Index features, Index batch) { return g.placeholder({features, batch}); },
          py::arg("features"), py::arg("batch"))
      .def(
          "variable",
          [](Graph& g, const std::string& name, Index features, Index batch) {
            return g.variable(name, {features, batch});
          },
          py::arg("name"), py::arg("features"), py::arg("batch"))
      .def(
          "constant",
          [](Graph& g, const Array<double>& array) {
            const Matrix<double> values = matrix(array);
            return g.constant({values.rows(), values.cols()}, {values.data(), values.data() + values.size()});
          },
          py::arg("array"))
      .def(
          "past",
          [](Graph& g, const std::string& name, Index features, Index batch, std::optional<Value> start) {
            if (!start)
              start = g.constant({features, 1}, std::vector<double>(static_cast<std::size_t>(features)));
            const Value past = g.past(name, {features, batch});
            g.begin(past, *start);
            return past;
          },
          py::arg("name"), py::arg("features"), py::arg("batch"), py::arg("start") = std::nullopt,
          "Without a start it begins at zero.")
      .def(
          "append",
          [](Graph& g, const std::string& name, const std::vector<Value>& inputs,
             const Attributes& attributes) { return g.append(operation(name), inputs, attributes); },
          py::arg("operation"), py::arg("inputs"), py::arg("attributes") = Attributes{})
      .def(
          "tie", [](Graph& g, Value past, Value value) { return g.tie(past, value, operation("expand")); },
          py::arg("past"), py::arg("value"))
      .def(
          "shape", [](const Graph& g, Value v) { return std::pair(g.shape(v).features, g.shape(v).batch); },
          py::arg("value"))
      .def(
          "extent",
          [](const Graph& g, Value v) {
            switch (g.extent(v)) {
              case Extent::Constant:
                return "constant";
              case Extent::Frame:
                return "frame";
              case Extent::Window:
                return "window";
            }
            return "";
          },
          py::arg("value"))
      .def_property_readonly("nodes", &Graph::nodes, "In the order in which they were appended.")
      .def_property_readonly(
          "recurrences",
          [](const Graph& g) {
            std::map<std::string, std::pair<Value, Value>> all;
            for (const Recurrence& r : g.recurrences()) all[r.name] = {r.past, r.named};
            return all;
          },
          "By name: the value at t-1, and the one at t that owns its numbers.")
      .def_property_readonly(
          "gates",
          [](const Graph& g) {
            std::map<std::string, std::pair<Value, Index>> all;
            for (const Node& node : g.nodes()) {
              if (node.type->gates.empty()) continue;
              const ValueInfo& weight = g.info(node.inputs[node.type->first_weight]);
              const std::string& name = g.variables()[static_cast<std::size_t>(weight.origin)];
              const std::string scope = name.substr(0, name.rfind('/') + 1);
              for (Index k = 0; k < std::ssize(node.type->gates); ++k)
                all[scope + node.type->gates[static_cast<std::size_t>(k)]] = {node.outputs.front(), k};
            }
            return all;
          },
          "By name, in the scope of their weights, the gates of fused cells: the cell's first output, and "
          "which.")
      .def_property_readonly("lanes", &Graph::lanes, "How many sequences go side by side.")
      .def(
          "stages",
          [](const Graph& g, const std::vector<Value>& values) {
            std::vector<std::pair<std::vector<int>, bool>> all;
            for (const Stage& stage : schedule(g, g.ancestors(values)))
              all.emplace_back(stage.nodes, stage.stepwise);
            return all;
          },
          py::arg("values"),
          "What these values need, in running order: the nodes that run together, and whether they go frame\n"
          "by frame.")
      .def(
          "placeholders_of",
          [](const Graph& g, const std::vector<Value>& values) {
            const std::vector<bool> needed = g.ancestors(values);
            std::vector<Value> found;
            for (const Value v : g.placeholders())
              if (needed[static_cast<std::size_t>(v)]) found.push_back(v);
            return found;
          },
          py::arg("values"))
      .def(
          "pasts_of",
          [](const Graph& g, const std::vector<Value>& values) {
            const std::vector<bool> needed = g.ancestors(values);
            std::vector<std::string> found;
            for (const Recurrence& r : g.recurrences())
              if (needed[static_cast<std::size_t>(r.past)]) found.push_back(r.name);
            std::sort(found.begin(), found.end());
            return found;
          },
          py::arg("values"));
}

}  // namespace bptt::bind
