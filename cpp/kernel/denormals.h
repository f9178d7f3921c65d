// Numbers nearer to zero than the smallest normal one. Processors take a hundred cycles and more for each.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace bptt {

/// While one of these lives, this thread takes such numbers for zero, and makes zero of results that would be such.
/// States and gradients that fade through time end there, and so do the moments of weights that have none left.
class FlushDenormals {
 public:
  explicit FlushDenormals(bool wanted = true) : before_(wanted ? get() : flush) {
    if ((before_ & flush) != flush) set(before_ | flush);
  }
  ~FlushDenormals() {
    if ((before_ & flush) != flush) set(before_);
  }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__x86_64__) || defined(_M_X64)
  using Register = unsigned;
  static constexpr Register flush = 0x8040;  // MXCSR: results (FTZ) and operands (DAZ)
  static Register get() { return _mm_getcsr(); }
  static void set(Register to) { _mm_setcsr(to); }
#elif defined(__aarch64__) && !defined(_MSC_VER)
  using Register = std::uint64_t;
  static constexpr Register flush = Register{1} << 24;  // FPCR.FZ: both
  static Register get() {
    Register now;
    asm volatile("mrs %0, fpcr" : "=r"(now));
    return now;
  }
  static void set(Register to) { asm volatile("msr fpcr, %0" : : "r"(to)); }
#else
  using Register = unsigned;  // no switch is known: they stay, and take their time
  static constexpr Register flush = 0;
  static Register get() { return 0; }
  static void set(Register) {}
#endif

  Register before_;
};

}  // namespace bptt
