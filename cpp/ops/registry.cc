#include "ops/operation.h"

namespace bptt {

std::map<std::string, Registered>& registry() {
  static std::map<std::string, Registered> list;  // made at first use: registration runs before main
  return list;
}

const Registered& operation(const std::string& name) {
  const auto found = registry().find(name);
  if (found == registry().end()) throw UsageError("there is no operation '" + name + "'");
  return found->second;
}

}  // namespace bptt
