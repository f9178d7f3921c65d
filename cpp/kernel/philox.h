// Philox4x32-10: a counter-based generator, so that any number of a random sequence can be had without the
// ones before it. Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include <array>
#include <cstdint>

namespace bptt {

using PhiloxCounter = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

inline PhiloxCounter philox4x32(PhiloxCounter counter, PhiloxKey key) {
  constexpr int rounds = 10;
  for (int round = 0; round < rounds; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * counter[2];
    const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
    const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
    counter = {high(b) ^ counter[1] ^ key[0], low(b), high(a) ^ counter[3] ^ key[1], low(a)};
    key[0] += 0x9E3779B9u;  // the golden ratio
    key[1] += 0xBB67AE85u;  // sqrt(3) - 1
  }
  return counter;
}

/// The stream of one random call: its own key, drawn from the net's seed and the call's place in the trace.
inline PhiloxKey stream_key(std::uint64_t seed, std::uint32_t ordinal) {
  const PhiloxCounter drawn = philox4x32(
      {ordinal, 0, 0, 0}, {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  return {drawn[0], drawn[1]};
}

/// Four words for features 4q ... 4q+3 of one lane at one frame of the sequence.
inline PhiloxCounter noise_words(PhiloxKey key, std::uint64_t frame, std::uint32_t quad, std::uint32_t lane) {
  return philox4x32({static_cast<std::uint32_t>(frame), static_cast<std::uint32_t>(frame >> 32), quad, lane},
                    key);
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
