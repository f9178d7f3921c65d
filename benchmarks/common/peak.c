/* What a core can do at most: independent multiply-adds in registers, and reading memory in order.
 * Compiled with -O3 -march=native when a benchmark begins; the widest vectors that the processor has. */
#include <stddef.h>

#if defined(__AVX512F__)
#define BYTES 64
#define REGISTER "+v"
#elif defined(__AVX__)
#define BYTES 32
#define REGISTER "+x"
#elif defined(__aarch64__)
#define BYTES 16
#define REGISTER "+w"
#else
#define BYTES 16
#define REGISTER "+x"
#endif
typedef float vec __attribute__((vector_size(BYTES)));
#define UNROLLED _Pragma("GCC unroll 24") /* so that every chain has a register of its own */
enum { LANES = BYTES / sizeof(float), CHAINS = BYTES == 64 ? 24 : 12 };

/* Floating point operations of so many rounds, all of them made: a multiply-add is two. The chains are
 * enough for the latency of both units; each tends to 2, so that no number is slow. */
double multiply_adds(long rounds, float *result) {
  vec chain[CHAINS], half = {0}, one = {0}, sum = {0};
  for (int lane = 0; lane < LANES; ++lane) half[lane] = 0.5F, one[lane] = 1.0F;
  UNROLLED for (int n = 0; n < CHAINS; ++n) chain[n] = one;
  for (long round = 0; round < rounds; ++round) {
    UNROLLED for (int n = 0; n < CHAINS; ++n) {
      chain[n] = chain[n] * half + one;
      __asm__ volatile("" : REGISTER(chain[n])); /* stays in its register, and is not worked out beforehand */
    }
  }
  UNROLLED for (int n = 0; n < CHAINS; ++n) sum += chain[n];
  *result = sum[0];
  return 2.0 * LANES * CHAINS * rounds;
}

/* Reads `count` floats, a multiple of 8 vectors, so many times. */
void read_all(const float *data, size_t count, long times, float *result) {
  vec sum[8] = {{0}};
  for (long time = 0; time < times; ++time) {
    for (size_t at = 0; at < count; at += 8 * LANES) {
      UNROLLED for (int n = 0; n < 8; ++n) {
        vec value;
        __builtin_memcpy(&value, data + at + n * LANES, BYTES);
        sum[n] += value;
      }
    }
    __asm__ volatile("" ::: "memory");
  }
  vec total = {0};
  UNROLLED for (int n = 0; n < 8; ++n) total += sum[n];
  *result = total[0];
}
