// Philox4x32-10: a counter-based generator, so that any number of a random sequence can be had without the
// ones before it. Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include <array>
#include <cstdint>

namespace bptt {

using PhiloxCounter = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

inline constexpr int philox_rounds = 10;

inline void philox_round(std::uint32_t& c0, std::uint32_t& c1, std::uint32_t& c2, std::uint32_t& c3,
                         PhiloxKey key) {
  const std::uint64_t a = std::uint64_t{0xD2511F53u} * c0;
  const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * c2;
  c0 = static_cast<std::uint32_t>(b >> 32) ^ c1 ^ key[0];
  c1 = static_cast<std::uint32_t>(b);
  c2 = static_cast<std::uint32_t>(a >> 32) ^ c3 ^ key[1];
  c3 = static_cast<std::uint32_t>(a);
}

inline PhiloxKey next_key(PhiloxKey key) {
  return {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};  // the golden ratio, and sqrt(3) - 1
}

inline PhiloxCounter philox4x32(PhiloxCounter c, PhiloxKey key) {
  for (int round = 0; round < philox_rounds; ++round, key = next_key(key))
    philox_round(c[0], c[1], c[2], c[3], key);
  return c;
}

/// Several counters side by side, word by word.
template <std::size_t N>
using PhiloxCounters = std::array<std::array<std::uint32_t, N>, 4>;

/// The same for each of them, in a loop that compilers turn into vector instructions.
template <std::size_t N>
void philox4x32_each(PhiloxCounters<N>& c, PhiloxKey key) {
  for (int round = 0; round < philox_rounds; ++round, key = next_key(key))
    for (std::size_t i = 0; i < N; ++i) philox_round(c[0][i], c[1][i], c[2][i], c[3][i], key);
}

/// The stream of one random call: its own key, drawn from the net's seed and the call's place in the trace.
inline PhiloxKey stream_key(std::uint64_t seed, std::uint32_t ordinal) {
  const PhiloxCounter drawn = philox4x32(
      {ordinal, 0, 0, 0}, {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  return {drawn[0], drawn[1]};
}

/// A word as a number strictly between 0 and 1. Float keeps 23 bits, so that the half added stays exact.
template <class S>
S unit(std::uint32_t word);

template <>
inline float unit<float>(std::uint32_t word) {
  return (static_cast<float>(word >> 9) + 0.5f) * 0x1p-23f;
}

template <>
inline double unit<double>(std::uint32_t word) {
  return (static_cast<double>(word) + 0.5) * 0x1p-32;
}

}  // namespace bptt
