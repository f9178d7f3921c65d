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
  } catch (const bptt::RankError& error) {
    raise("RankError", error);
  }
}

/// What it was compiled with, and for.
static std::map<std::string, std::string> build_info() {
#if defined(__clang__)
  const std::string compiler = "Clang " __clang_version__;
#elif defined(__GNUC__)
  const std::string compiler = "GCC " __VERSION__;
#elif defined(_MSC_VER)
  const std::string compiler = "MSVC " + std::to_string(_MSC_FULL_VER);
#else
  const std::string compiler = "unknown";
#endif
  const auto number = [](int n) { return std::to_string(n); };
  return {{"isa", BPTT_ISA},
          {"compiler", compiler},
          {"eigen", number(EIGEN_WORLD_VERSION) + "." + number(EIGEN_MAJOR_VERSION) + "." +
                        number(EIGEN_MINOR_VERSION)}};
}

// Its file is _core_v4 or the like; bptt/_core.py loads it under this name.
PYBIND11_MODULE(_core, m) {
  using namespace bptt::bind;
  m.doc() = "The C++ core of bptt: graphs, programs, weights, state and training. Use the package, not this.";

  py::register_local_exception_translator(set_error);

  m.def("build_info", &build_info, "Instruction set, compiler, version of Eigen.");
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
  bind_segments<float>(m);
  bind_segments<double>(m);
  bind_training<float>(m);
  bind_training<double>(m);
  bind_stepper(m);
}
