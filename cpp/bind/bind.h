// What the binding files share: conversions between numpy arrays and the core, and one function per bound
// class. Arrays are converted and checked first, then the GIL is released for the work.
#pragma once

#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "optimise/segments.h"

namespace bptt::bind {

namespace py = pybind11;

/// Any real array; other number types are converted, and numbers that do not lie on their own boundaries copied.
template <class S>
using Array = py::array_t<S, static_cast<int>(py::array::forcecast) |
                                 static_cast<int>(py::detail::npy_api::NPY_ARRAY_ALIGNED_)>;

/// "Weights" and 32 or 64, the number of bits.
template <class S>
std::string named(const char* name) {
  return name + std::to_string(8 * sizeof(S));
}

inline std::string shape_of(const py::array& array) {
  return py::str(array.attr("shape")).cast<std::string>();
}

/// A (features, batch) array, whatever its strides.
template <class S>
Matrix<S> matrix(const Array<S>& array) {
  if (array.ndim() != 2)
    throw ShapeError("expected an array (features, batch), got shape " + shape_of(array));
  const auto view = array.template unchecked<2>();
  Matrix<S> copy(view.shape(0), view.shape(1));
  for (Index b = 0; b < copy.cols(); ++b)
    for (Index f = 0; f < copy.rows(); ++f) copy(f, b) = view(f, b);
  return copy;
}

/// A (features, batch) array written into a place of that shape.
template <class S, class M>
void assign(M&& place, const Array<S>& array, const std::string& what) {
  const Shape shape{place.rows(), place.cols()};
  if (array.ndim() != 2 || array.shape(0) != shape.features || array.shape(1) != shape.batch)
    throw ShapeError(what + " has shape " + to_string(shape) + ", got an array of shape " + shape_of(array));
  place = matrix(array);
}

/// Throws NonFiniteError if a number that came from outside is NaN or infinite. Python says where it is.
template <class M>
void require_finite(const M& values, const char* what) {
  if (!values.allFinite()) throw NonFiniteError(std::string(what) + " holds a number that is not finite");
}

/// A (time, features, batch) array as the core walks it; it must outlive the sequence.
template <class S>
Sequence<S> sequence(const Array<S>& array, Shape shape) {
  if (array.ndim() != 3 || array.shape(1) != shape.features || array.shape(2) != shape.batch ||
      array.shape(0) < 1)
    throw ShapeError("expected an array (time, " + std::to_string(shape.features) + ", " +
                     std::to_string(shape.batch) + "), got shape " + shape_of(array));
  constexpr Index bytes = sizeof(S);
  return {array.data(),
          array.shape(0),
          shape,
          array.strides(0) / bytes,
          array.strides(1) / bytes,
          array.strides(2) / bytes};
}

/// A packed array (time, batch) of yes and no; it must outlive the flags.
using FlagArray = py::array_t<bool, static_cast<int>(py::array::c_style)>;
inline Flags flags(const std::optional<FlagArray>& array, Index lanes) {
  if (!array) return {};
  if (array->ndim() != 2 || array->shape(0) < 1 || array->shape(1) != lanes)
    throw ShapeError("expected an array (time, " + std::to_string(lanes) + "), got shape " +
                     shape_of(*array));
  return {array->data(), array->shape(0), lanes};
}

/// An uninitialised (time, features, batch) array in the core's layout: features fastest.
template <class S>
py::array_t<S> window(Index frames, Shape shape) {
  constexpr Index bytes = sizeof(S);
  return py::array_t<S>({frames, shape.features, shape.batch},
                        {bytes * shape.size(), bytes, bytes * shape.features});
}

/// A copy as (features, batch).
template <class S, class M>
py::array_t<S> to_numpy(const M& values) {
  py::array_t<S> array({values.rows(), values.cols()}, {Index{sizeof(S)}, Index{sizeof(S)} * values.rows()});
  Eigen::Map<Matrix<S>>(array.mutable_data(), values.rows(), values.cols()) = values;
  return array;
}

/// All frames of a value as (time, features, batch), a constant at each of them; a window value as (features,
/// batch).
template <class S>
py::array_t<S> to_numpy(const Tensor<S>& tensor, Index frames) {
  if (tensor.extent == Extent::Window) return to_numpy<S>(tensor.values(0));
  py::array_t<S> array = window<S>(frames, tensor.shape);
  Tensor<S> copy{array.mutable_data(), nullptr, tensor.shape, Extent::Frame, tensor.shape.features};
  for (Index t = 0; t < frames; ++t) copy.values(t) = tensor.values(t);
  return array;
}

/// Sets the Python error that a C++ exception stands for, if it is one of the core's; throws it again, if not.
void set_error(std::exception_ptr);

/// For functions that pybind11 does not wrap: what f returns, or null and the Python error for what it throws.
template <class F>
PyObject* guarded(F&& f) {
  try {
    try {
      return f();
    } catch (...) {
      set_error(std::current_exception());
    }
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc& error) {
    PyErr_SetString(PyExc_MemoryError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

/// A pulse at which Python's signal handlers run: Ctrl-C stops a long call. For use without the GIL.
Pulse signals();

/// A window in segments that was fed arrays, one by one; they are looked at as long as it is.
template <class S>
class Fed : public Segments<S> {
 public:
  using Segments<S>::Segments;

  void feed(Value placeholder, const Array<S>& array) {
    const std::vector<Value>& all = this->placeholders();
    const auto place = static_cast<std::size_t>(std::ranges::find(all, placeholder) - all.begin());
    const Tensor<S>& tensor = this->tensor(placeholder);
    if (place == all.size()) throw UsageError("value " + std::to_string(placeholder) + " is no placeholder");
    Sequence<S> frames = sequence(array, tensor.shape);
    require(frames.frames, array);
    for (Index t = 0; t < frames.frames; ++t) {
      frames.copy(t, 1, tensor.value);
      require_finite(tensor.values(0), "a feed");
    }
    arrays_.resize(all.size());
    data_.sequences.resize(all.size());
    arrays_[place] = array;
    data_.sequences[place] = frames;
  }

  void mark(const std::optional<FlagArray>& resets, const std::optional<FlagArray>& masks) {
    const auto rows = [&](const std::optional<FlagArray>& given, std::optional<FlagArray>& kept) {
      kept = given;
      Flags found = flags(kept, this->program().marks().lanes());
      if (kept) require(found.frames, *kept);
      return found;
    };
    data_.resets = rows(resets, resets_);
    data_.valid = rows(masks, masks_);
    Segments<S>::feed(data_, 0, 0);
  }

 private:
  void require(Index frames, const py::array& array) const {
    if (frames != this->frames())
      throw ShapeError("expected " + std::to_string(this->frames()) + " frames, got an array of shape " +
                       shape_of(array));
  }

  Data<S> data_;
  std::vector<Array<S>> arrays_;
  std::optional<FlagArray> resets_, masks_;
};

/// What a program and a window in segments have in common.
template <class S, class P>
void define_runs(py::class_<P>& c) {
  c.def_property_readonly("placeholders", &P::placeholders)
      .def_property_readonly("pasts", &P::pasts)
      .def_property_readonly("frames", &P::frames)
      .def_property_readonly("memory", &P::memory)
      .def(
          "set_past",
          [](P& p, const std::string& name, const Array<S>& array) {
            assign(p.first(name), array, "the state '" + name + "'");
            require_finite(p.first(name), "a fed state");
          },
          py::arg("name"), py::arg("array"))
      .def(
          "forward",
          [](P& p, std::uint64_t frame) {
            Pulse pulse = signals();
            p.forward(frame, pulse);
          },
          py::arg("frame"), py::call_guard<py::gil_scoped_release>())
      .def(
          "backward",
          [](P& p) {
            Pulse pulse = signals();
            p.backward(pulse);
          },
          py::call_guard<py::gil_scoped_release>())
      .def(
          "value",
          [](const P& p, Value v) {
            const Tensor<S>& from = p.tensor(v);
            if (from.extent == Extent::Window) return to_numpy<S>(from.values(0));
            py::array_t<S> array = window<S>(p.frames(), from.shape);
            p.copy(v, array.mutable_data());
            return array;
          },
          py::arg("value"),
          "(time, features, batch), a constant at each frame; a window value as (features, batch).")
      .def("last", [](P& p, const std::string& name) { return to_numpy<S>(p.last(name)); }, py::arg("name"));
}

void bind_operations(py::module_&);
void bind_graph(py::module_&);
void bind_exclusive(py::module_&);
void bind_team(py::module_&);
template <class S>
void bind_weights(py::module_&);
template <class S>
void bind_state(py::module_&);
template <class S>
void bind_program(py::module_&);
template <class S>
void bind_segments(py::module_&);
template <class S>
void bind_training(py::module_&);
void bind_stepper(py::module_&);

}  // namespace bptt::bind
