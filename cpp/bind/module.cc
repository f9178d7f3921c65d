#include "bind/bind.h"

namespace {

/// Raises the class of this name from bptt.errors.
void raise(const char* name, const std::exception& error) {
  namespace py = pybind11;
  const py::object type = py::module_::import("bptt.errors").attr(name);
  PyErr_SetString(type.ptr(), error.what());
}

}  // namespace

void bptt::bind::set_error(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const bptt::ShapeError& error) {
    raise("ShapeError", error);
  } catch (const bptt::UsageError& error) {
    raise("UsageError", error);
  } catch (const bptt::NonFiniteError& error) {
    raise("NonFiniteError", error);
  }
}

PYBIND11_MODULE(_core, m) {
  using namespace bptt::bind;
  m.doc() = "The C++ core of bptt: graphs, programs, weights, state and training. Use the package, not this.";

  py::register_local_exception_translator(set_error);

  bind_operations(m);
  bind_graph(m);
  bind_exclusive(m);
  bind_team(m);
  bind_weights<float>(m);
  bind_weights<double>(m);
  bind_state<float>(m);
  bind_state<double>(m);
  bind_program<float>(m);
  bind_program<double>(m);
  bind_training<float>(m);
  bind_training<double>(m);
  bind_stepper(m);
}
