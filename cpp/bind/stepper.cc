#include "bind/bind.h"
#include "unroll/carry.h"
#include "unroll/exclusive.h"

namespace bptt::bind {
namespace {

/// One frame after another, its inputs and outputs seen where the program has them.
template <class S>
class Stepper {
 public:
  Stepper(Program<S>& program, State<S>& state, Exclusive& exclusive, std::vector<Value> outputs)
      : program_(program), carry_(program, state), exclusive_(exclusive), outputs_(std::move(outputs)) {
    for (const Value v : outputs_) program.tensor(v);  // throws if it is not computed
  }

  void step() {
    const Inside inside{exclusive_};
    for (const Value v : program_.placeholders())
      require_finite(program_.tensor(v).values(0), "an input of the step");
    carry_.load();
    program_.forward(carry_.frame(), pulse_);
    carry_.store();
  }

  /// Live (features, batch) views that keep `owner` alive.
  std::vector<py::array_t<S>> inputs(const py::object& owner) const {
    return views(program_.placeholders(), owner);
  }
  std::vector<py::array_t<S>> outputs(const py::object& owner) const {
    std::vector<py::array_t<S>> all = views(outputs_, owner);
    for (py::array_t<S>& view : all) view.attr("setflags")(py::arg("write") = false);
    return all;
  }

 private:
  struct Inside {
    explicit Inside(Exclusive& e) : exclusive(e) { exclusive.enter(); }
    ~Inside() { exclusive.leave(); }
    Exclusive& exclusive;
  };

  std::vector<py::array_t<S>> views(const std::vector<Value>& values, const py::object& owner) const {
    std::vector<py::array_t<S>> all;
    constexpr Index bytes = sizeof(S);
    for (const Value v : values) {
      const Tensor<S>& t = program_.tensor(v);
      all.push_back(
          py::array_t<S>({t.shape.features, t.shape.batch}, {bytes, bytes * t.outer}, t.value, owner));
    }
    return all;
  }

  Program<S>& program_;
  Carry<S> carry_;
  Exclusive& exclusive_;
  std::vector<Value> outputs_;
  Pulse pulse_;  // a frame is short
};

}  // namespace

template <class S>
void bind_stepper(py::module_& m) {
  using T = Stepper<S>;
  py::class_<T>(m, named<S>("Stepper").c_str(), "One frame a call.")
      .def(py::init<Program<S>&, State<S>&, Exclusive&, std::vector<Value>>(), py::arg("program"),
           py::arg("state"), py::arg("exclusive"), py::arg("outputs"), py::keep_alive<1, 2>(),
           py::keep_alive<1, 3>(), py::keep_alive<1, 4>())
      .def_property_readonly("inputs",
                             [](const py::object& self) { return self.cast<const T&>().inputs(self); })
      .def_property_readonly("outputs",
                             [](const py::object& self) { return self.cast<const T&>().outputs(self); })
      .def("__call__", &T::step);
}

template void bind_stepper<float>(py::module_&);
template void bind_stepper<double>(py::module_&);

}  // namespace bptt::bind
