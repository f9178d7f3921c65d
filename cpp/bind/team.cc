#include "unroll/team.h"

#include "bind/bind.h"

namespace bptt::bind {

void bind_team(py::module_& m) {
  py::class_<Team>(m, "Team", "The threads that share the large windows of a net.")
      .def(py::init<Index, Index>(), py::arg("threads"), py::arg("least") = Team::worth)
      .def_property_readonly("threads", &Team::size, "So many at most, the caller's included.")
      .def_property_readonly(
          "least", &Team::least,
          "Work of a window's forward, in multiplications, from which on it is shared out.");
}

}  // namespace bptt::bind
