// The recurrent state of one mode between runs, by name, and how many frames of its sequence have gone by.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ops/operation.h"
#include "unroll/arena.h"

namespace bptt {

template <class S>
class State {
 public:
  explicit State(const std::map<std::string, Shape>& shapes) {
    for (const auto& [name, shape] : shapes) entries_.emplace(name, Entry{shape, Block<S>(shape.size())});
  }

  std::vector<std::string> names() const {  // sorted
    std::vector<std::string> all;
    for (const auto& entry : entries_) all.push_back(entry.first);
    return all;
  }

  /// features x batch. The memory stays where it is.
  Eigen::Map<Matrix<S>> at(const std::string& name) const {
    const auto found = entries_.find(name);
    if (found == entries_.end()) throw UsageError("there is no recurrent state '" + name + "'");
    const Entry& entry = found->second;
    return {entry.block.data(), entry.shape.features, entry.shape.batch};
  }

  std::uint64_t frame = 0;

 private:
  struct Entry {
    Shape shape;
    Block<S> block;
  };
  std::map<std::string, Entry> entries_;
};

}  // namespace bptt
