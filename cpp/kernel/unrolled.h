// Loops that are none: what is indexed by constants can stay in registers.
#pragma once

#include <type_traits>
#include <utility>

// Where the first is not followed, sums lie in memory. What is rare, and long, stays out of a loop by the second.
#ifdef _MSC_VER
#define BPTT_INLINED [[msvc::forceinline]]
#define BPTT_APART [[msvc::noinline]]
#else
#define BPTT_INLINED __attribute__((always_inline))
#define BPTT_APART __attribute__((noinline))
#endif

namespace bptt {

/// Calls f with the constants 0 ... n - 1.
template <int n, class F>
BPTT_INLINED inline void unrolled(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>)
      BPTT_INLINED { (f(std::integral_constant<int, i>()), ...); }(std::make_integer_sequence<int, n>());
}

}  // namespace bptt
