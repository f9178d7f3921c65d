// The streaming call: one frame, through CPython's vectorcall protocol (PEP 590) and a type of its own, since
// calling what pybind11 binds takes longer than a small net's frame does.
#include <pybind11/pybind11.h>
#include <structmember.h>

#include <cmath>
#include <cstddef>

#include "bind/bind.h"
#include "unroll/carry.h"
#include "unroll/exclusive.h"

namespace bptt::bind {
namespace {

/// What arrays and numbers have to be, to be taken without numpy's help. Set once, never released.
struct Known {
  PyObject *array, *float32;    // types
  PyObject *dtype32, *dtype64;  // in the machine's byte order
} known;

/// Frames of a program one after another, in either precision.
class Frames {
 public:
  virtual ~Frames() = default;
  virtual Index inputs() const = 0;  // how many
  virtual Index outputs() const = 0;
  /// Copies an array or a number of Python's or numpy's to an input; false if it is none of the usual ones.
  virtual bool take(Index input, PyObject* value) = 0;
  /// Computes one frame and carries the state. Throws NonFiniteError, with nothing done, for the inputs.
  virtual void step() = 0;
  /// A new array (features, batch).
  virtual py::object copy(Index output) const = 0;
};

template <class S>
class FramesOf final : public Frames {
 public:
  /// Each input with what an error calls it.
  FramesOf(Program<S>& program, State<S>& state, const std::vector<std::pair<Value, std::string>>& inputs,
           const std::vector<Value>& outputs)
      : program_(program), carry_(program, state) {
    for (const Value v : outputs) outputs_.push_back(program.tensor(v));
    for (const auto& [value, what] : inputs) {
      const Tensor<S>& tensor = program.tensor(value);
      inputs_.push_back({tensor.value, tensor.shape, what});
    }
  }

  Index inputs() const override { return static_cast<Index>(inputs_.size()); }
  Index outputs() const override { return static_cast<Index>(outputs_.size()); }

  bool take(Index input, PyObject* value) override {
    const Input& to = inputs_[static_cast<std::size_t>(input)];
    PyObject* const type = reinterpret_cast<PyObject*>(Py_TYPE(value));
    if (type == known.array) return take_array(to, py::reinterpret_borrow<py::array>(value));
    if (to.shape.size() != 1 || !(PyFloat_Check(value) || type == known.float32)) return false;
    *to.data = static_cast<S>(PyFloat_AsDouble(value));
    return true;
  }

  void step() override {
    for (const Input& input : inputs_) {
      const Eigen::Map<const Eigen::Array<S, Eigen::Dynamic, 1>> all(input.data, input.shape.size());
      if (!((all * S(0)).sum() == S(0))) refuse(input);  // 0 times infinity or NaN is NaN
    }
    carry_.load();
    program_.forward(carry_.frame(), pulse_);
    carry_.store();
  }

  py::object copy(Index output) const override {
    const auto& numpy = py::detail::npy_api::get();  // py::array asks for memory for its shape and strides
    const auto from = outputs_[static_cast<std::size_t>(output)].values(0);
    const Py_intptr_t shape[] = {from.rows(), from.cols()};
    PyObject* const type = sizeof(S) == 4 ? known.dtype32 : known.dtype64;
    PyObject* const array = numpy.PyArray_NewFromDescr_(numpy.PyArray_Type_, Py_NewRef(type), 2, shape,
                                                        nullptr, nullptr, 0, nullptr);
    if (!array) throw py::error_already_set();
    auto result = py::reinterpret_steal<py::array>(array);
    using RowMajor = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::Map<RowMajor>(static_cast<S*>(result.mutable_data()), from.rows(), from.cols()) = from;
    return result;
  }

 private:
  struct Input {
    S* data;  // features x batch
    Shape shape;
    std::string what;
  };

  bool take_array(const Input& to, const py::array& array) {
    const auto& [features, batch] = to.shape;
    Index feature_stride = 0, batch_stride = 0;  // in bytes
    if (array.ndim() == 2 && array.shape(0) == features && array.shape(1) == batch) {
      feature_stride = array.strides(0);
      batch_stride = array.strides(1);
    } else if (array.ndim() == 1 && array.shape(0) == to.shape.size() && (features == 1 || batch == 1)) {
      (batch == 1 ? feature_stride : batch_stride) = array.strides(0);
    } else if (array.ndim() != 0 || to.shape.size() != 1) {
      return false;
    }
    const auto* from = static_cast<const std::byte*>(array.data());
    const auto* own = reinterpret_cast<const std::byte*>(to.data);
    const bool overlap = from >= own && from < own + to.shape.size() * Index{sizeof(S)};
    if (overlap || !(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) return false;
    if (array.dtype().ptr() == known.dtype32)
      copy<float>(to, from, feature_stride, batch_stride);
    else if (array.dtype().ptr() == known.dtype64)
      copy<double>(to, from, feature_stride, batch_stride);
    else
      return false;
    return true;
  }

  template <class From>
  static void copy(const Input& to, const std::byte* from, Index feature_stride, Index batch_stride) {
    S* place = to.data;
    for (Index b = 0; b < to.shape.batch; ++b)
      for (Index f = 0; f < to.shape.features; ++f)
        *place++ =
            static_cast<S>(*reinterpret_cast<const From*>(from + f * feature_stride + b * batch_stride));
  }

  /// The first number that is not finite, in the order of numpy.
  [[noreturn]] static void refuse(const Input& input) {
    const auto& [features, batch] = input.shape;
    const Eigen::Map<const Matrix<S>> all(input.data, features, batch);
    for (Index f = 0; f < features; ++f)
      for (Index b = 0; b < batch; ++b)
        if (const S x = all(f, b); !std::isfinite(x))
          throw NonFiniteError(input.what + " holds " +
                               (std::isnan(x) ? "nan"
                                : x > 0       ? "inf"
                                              : "-inf") +
                               " at (" + std::to_string(f) + ", " + std::to_string(b) +
                               "); expected finite numbers");
    throw std::logic_error("a sum that is not finite, of finite numbers");
  }

  Program<S>& program_;
  Carry<S> carry_;
  std::vector<Input> inputs_;
  std::vector<Tensor<S>> outputs_;
  Pulse pulse_;  // a frame is short
};

/// The Python object. What is Python's own about it (attributes, docs, the careful way in) is in a class derived from it.
struct Stepper {
  PyObject_HEAD vectorcallfunc call;  // all of these are null before `open`
  Frames* frames;
  Exclusive* exclusive;
  PyObject* kept;  // program, state and exclusive
};

Stepper& stepper(PyObject* self) {
  Stepper& it = *reinterpret_cast<Stepper*>(self);
  if (!it.frames) throw UsageError("steppers are made by bp.stepper()");
  return it;
}

struct Inside {
  explicit Inside(Exclusive& e) : exclusive(e) { exclusive.enter(); }
  ~Inside() { exclusive.leave(); }
  Exclusive& exclusive;
};

PyObject* call(PyObject* self, PyObject* const*, std::size_t count, PyObject* names) {
  return guarded([&] {
    if (PyVectorcall_NARGS(count) != 0 || names)
      throw UsageError(
          "a stepper is called without arguments: fill stepper.inputs or call stepper.feed([...]) first");
    const Stepper& it = stepper(self);
    const Inside inside{*it.exclusive};
    it.frames->step();
    return Py_NewRef(Py_None);
  });
}

bool take_all(const Stepper& it, PyObject* values) {
  const bool tuple = PyTuple_CheckExact(values);
  if (!tuple && !PyList_CheckExact(values)) return false;
  if ((tuple ? PyTuple_GET_SIZE(values) : PyList_GET_SIZE(values)) != it.frames->inputs()) return false;
  for (Index i = 0; i < it.frames->inputs(); ++i)
    if (!it.frames->take(i, tuple ? PyTuple_GET_ITEM(values, i) : PyList_GET_ITEM(values, i))) return false;
  return true;
}

PyObject* take(PyObject* self, PyObject* values) {
  return guarded([&] { return PyBool_FromLong(take_all(stepper(self), values)); });
}

/// One frame from these values to the outputs.
const Frames& run(PyObject* self, PyObject* values) {
  const Stepper& it = stepper(self);
  if (!take_all(it, values)) py::handle(self).attr("feed")(py::handle(values));
  it.frames->step();
  return *it.frames;
}

PyObject* next(PyObject* self, PyObject* values) {
  return guarded([&] {
    const Inside inside{*stepper(self).exclusive};
    const Frames& frames = run(self, values);
    return frames.copy(frames.outputs() - 1).release().ptr();
  });
}

PyObject* next_all(PyObject* self, PyObject* values) {
  return guarded([&] {
    const Inside inside{*stepper(self).exclusive};
    const Frames& frames = run(self, values);
    py::list copies;
    for (Index i = 0; i < frames.outputs(); ++i) copies.append(frames.copy(i));
    return copies.release().ptr();
  });
}

/// Live (features, batch) views of values, that keep the program alive.
template <class S>
py::tuple views(const Program<S>& program, const std::vector<Value>& values, const py::handle& owner,
                bool writable) {
  py::tuple all(values.size());
  constexpr Index bytes = sizeof(S);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Tensor<S>& t = program.tensor(values[i]);
    py::array_t<S> view({t.shape.features, t.shape.batch}, {bytes, bytes * t.outer}, t.value, owner);
    if (!writable) view.attr("setflags")(py::arg("write") = false);
    all[i] = view;
  }
  return all;
}

template <class S>
py::tuple open_in(Stepper& it, const py::handle& program, const py::handle& state, const py::handle& inputs,
                  const py::handle& outputs) {
  auto& p = program.cast<Program<S>&>();
  const auto named = inputs.cast<std::vector<std::pair<Value, std::string>>>();
  const auto read = outputs.cast<std::vector<Value>>();
  std::vector<Value> fed;
  for (const auto& input : named) fed.push_back(input.first);
  py::tuple both = py::make_tuple(views(p, fed, program, true), views(p, read, program, false));
  it.frames = new FramesOf<S>(p, state.cast<State<S>&>(), named, read);
  return both;
}

PyObject* open(PyObject* self, PyObject* args) {
  return guarded([&]() -> PyObject* {
    PyObject *program, *state, *exclusive, *inputs, *outputs;
    if (!PyArg_ParseTuple(args, "OOOOO", &program, &state, &exclusive, &inputs, &outputs)) return nullptr;
    Stepper& it = *reinterpret_cast<Stepper*>(self);
    if (it.kept) throw UsageError("a stepper is opened once");
    it.exclusive = &py::handle(exclusive).cast<Exclusive&>();
    it.kept = py::make_tuple(py::handle(program), py::handle(state), py::handle(exclusive)).release().ptr();
    it.call = call;
    const bool single = py::isinstance<Program<float>>(program);
    return (single ? open_in<float> : open_in<double>)(it, program, state, inputs, outputs).release().ptr();
  });
}

void destroy(PyObject* self) {
  Stepper& it = *reinterpret_cast<Stepper*>(self);
  delete it.frames;
  Py_XDECREF(it.kept);
  PyTypeObject* const type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

}  // namespace

void bind_stepper(py::module_& m) {
  const py::module_ numpy = py::module_::import("numpy");
  known = {numpy.attr("ndarray").cast<py::object>().release().ptr(),
           numpy.attr("float32").cast<py::object>().release().ptr(), py::dtype::of<float>().release().ptr(),
           py::dtype::of<double>().release().ptr()};

  static PyMethodDef methods[] = {
      // the stubs are made of these first lines, as of pybind11's own
      {"open", open, METH_VARARGS,
       "open(self: bptt._core.Stepper, program: bptt._core.Program32, state: bptt._core.State32, exclusive: "
       "bptt._core.Exclusive, inputs: list[tuple[int, str]], outputs: list[int]) -> "
       "tuple[tuple[numpy.typing.NDArray[numpy.float32], ...], tuple[numpy.typing.NDArray[numpy.float32], "
       "...]]"
       "\n\nBegins: inputs, each with what an error calls it, and outputs become live arrays. Programs of "
       "either precision."},
      {"take", take, METH_O,
       "take(self: bptt._core.Stepper, values: object) -> bool\n\n"
       "Copies a list or tuple of one value for each input, if all are the usual arrays and numbers."},
      {"next", next, METH_O,
       "next(self: bptt._core.Stepper, values: object) -> numpy.typing.NDArray[numpy.float32]\n\n"
       "One frame: takes the values, or has them fed by the method `feed`; returns a copy of the last "
       "output."},
      {"next_all", next_all, METH_O,
       "next_all(self: bptt._core.Stepper, values: object) -> list[numpy.typing.NDArray[numpy.float32]]\n\n"
       "The same; returns copies of all outputs."},
      {nullptr, nullptr, 0, nullptr}};
  static PyMemberDef members[] = {
      {"__vectorcalloffset__", T_PYSSIZET, offsetof(Stepper, call), READONLY, nullptr},
      {nullptr, 0, 0, 0, nullptr}};
  static PyType_Slot slots[] = {{Py_tp_doc, const_cast<char*>("One frame a call.")},
                                {Py_tp_dealloc, reinterpret_cast<void*>(destroy)},
                                {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                                {Py_tp_methods, methods},
                                {Py_tp_members, members},
                                {0, nullptr}};
  static PyType_Spec spec = {"bptt._core.Stepper", sizeof(Stepper), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_VECTORCALL, slots};
  PyObject* const type = PyType_FromSpec(&spec);
  if (!type) throw py::error_already_set();
  m.attr("Stepper") = py::reinterpret_steal<py::object>(type);
}

}  // namespace bptt::bind
