// The mistakes a caller can make. The binding turns each into the Python class of the same name.
#pragma once

#include <stdexcept>
#include <string>

namespace bptt {

struct ShapeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct NonFiniteError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// No mistake of this process: another that trains the same net left.
struct RankError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace bptt
