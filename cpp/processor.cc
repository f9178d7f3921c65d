// What this processor can run: a module compiled for any processor, so that it can ask before one of the others is loaded.
//
// The levels are those of the x86-64 psABI, https://gitlab.com/x86-psABIs/x86-64-ABI, chapter 3.1.1. An instruction set
// with wide registers also needs an operating system that saves them (Intel's Software Developer's Manual, volume 1,
// 13.3 and 14.3).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#ifdef _MSC_VER
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif

namespace {

struct Registers {
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
};

/// CPUID; all zero for a leaf that the processor does not have.
Registers cpuid(std::uint32_t leaf) {
  Registers r;
#ifdef _MSC_VER
  int all[4];
  __cpuidex(all, static_cast<int>(leaf & 0x80000000), 0);
  if (static_cast<std::uint32_t>(all[0]) < leaf) return r;
  __cpuidex(all, static_cast<int>(leaf), 0);
  r = {static_cast<std::uint32_t>(all[0]), static_cast<std::uint32_t>(all[1]),
       static_cast<std::uint32_t>(all[2]), static_cast<std::uint32_t>(all[3])};
#else
  __get_cpuid_count(leaf, 0, &r.a, &r.b, &r.c, &r.d);
#endif
  return r;
}

/// XCR0: which registers the operating system saves. To be asked only if CPUID says OSXSAVE.
std::uint64_t saved_registers() {
#ifdef _MSC_VER
  return _xgetbv(0);
#else
  std::uint32_t low,
      high;  // by its own name, since _xgetbv is compiled only for processors that surely have it
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
#endif
}

std::uint32_t bits(std::initializer_list<int> numbers) {
  std::uint32_t all = 0;
  for (const int n : numbers) all |= std::uint32_t{1} << n;
  return all;
}

std::vector<std::string> levels() {
  const Registers one = cpuid(1), seven = cpuid(7), extended = cpuid(0x80000001);
  const auto has = [](std::uint64_t of, std::uint64_t all) { return (of & all) == all; };
  constexpr int osxsave = 27;
  const std::uint64_t saved = has(one.c, bits({osxsave})) ? saved_registers() : 0;

  std::vector<std::string> found;
  // SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT; LAHF
  if (!has(one.c, bits({0, 9, 13, 19, 20, 23})) || !has(extended.c, bits({0}))) return found;
  found.emplace_back("v2");
  // FMA, MOVBE, AVX, F16C; BMI1, AVX2, BMI2; LZCNT; registers xmm and ymm
  if (!has(one.c, bits({12, 22, osxsave, 28, 29})) || !has(seven.b, bits({3, 5, 8})) ||
      !has(extended.c, bits({5})) || !has(saved, 0x6))
    return found;
  found.emplace_back("v3");
  // AVX512 F, DQ, CD, BW, VL; mask registers, and zmm in both halves
  if (!has(seven.b, bits({16, 17, 28, 30, 31})) || !has(saved, 0xe6)) return found;
  found.emplace_back("v4");
  return found;
}

}  // namespace

#else

namespace {

std::vector<std::string> levels() {
  return {};
}

}  // namespace

#endif

PYBIND11_MODULE(_processor, m, pybind11::mod_gil_not_used()) {
  m.doc() = "What this processor can run.";
  m.def("levels", &levels,
        "The levels of x86-64 beyond the first, \"v2\", \"v3\", \"v4\", that processor and operating system\n"
        "both have, in this order; empty on processors of another kind.");
}
