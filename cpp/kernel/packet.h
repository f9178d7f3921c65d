// Packets, Eigen's name for the processor's vectors: which there are, and how to touch only a part of one.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cstddef>
#include <utility>

#include "kernel/unrolled.h"

namespace bptt {

using Index = std::ptrdiff_t;

template <class P>
using ScalarOf = typename Eigen::internal::unpacket_traits<P>::type;

/// How many numbers a packet holds.
template <class P>
inline constexpr Index width_of = Eigen::internal::unpacket_traits<P>::size;

/// The widest packet of the instruction set that is compiled for, and those that are half and a quarter as wide, where
/// there are any.
template <class S>
using FullPacket = typename Eigen::internal::packet_traits<S>::type;
template <class P>
using HalfOf = typename Eigen::internal::unpacket_traits<P>::half;

/// The first n numbers of a packet: no number beyond the n-th is touched. To be made once for packets that are cut alike.
template <class P>
class First {
  using S = ScalarOf<P>;
  static constexpr Index width = width_of<P>;

 public:
  explicit First(Index n = width) : n_(std::min(n, width)), mask_((1u << n_) - 1) {}

  /// The rest of the packet is zero.
  P load(const S* from) const {
    using namespace Eigen::internal;
#ifdef EIGEN_VECTORIZE_AVX512
    if constexpr (std::is_same_v<P, Packet16f>) return _mm512_maskz_loadu_ps(mask<__mmask16>(), from);
    if constexpr (std::is_same_v<P, Packet8d>) return _mm512_maskz_loadu_pd(mask<__mmask8>(), from);
#endif
#ifdef __AVX512VL__
    if constexpr (std::is_same_v<P, Packet8f>) return _mm256_maskz_loadu_ps(mask<__mmask8>(), from);
    if constexpr (std::is_same_v<P, Packet4d>) return _mm256_maskz_loadu_pd(mask<__mmask8>(), from);
    if constexpr (std::is_same_v<P, Packet4f>) return _mm_maskz_loadu_ps(mask<__mmask8>(), from);
#endif
    if (n_ == width) return ploadu<P>(from);
    S numbers[width] = {};
    for (Index i = 0; i < n_; ++i) numbers[i] = from[i];
    return ploadu<P>(numbers);
  }

  void store(S* to, const P& packet) const {
    using namespace Eigen::internal;
#ifdef EIGEN_VECTORIZE_AVX512
    if constexpr (std::is_same_v<P, Packet16f>) return _mm512_mask_storeu_ps(to, mask<__mmask16>(), packet);
    if constexpr (std::is_same_v<P, Packet8d>) return _mm512_mask_storeu_pd(to, mask<__mmask8>(), packet);
#endif
#ifdef __AVX512VL__
    if constexpr (std::is_same_v<P, Packet8f>) return _mm256_mask_storeu_ps(to, mask<__mmask8>(), packet);
    if constexpr (std::is_same_v<P, Packet4d>) return _mm256_mask_storeu_pd(to, mask<__mmask8>(), packet);
    if constexpr (std::is_same_v<P, Packet4f>) return _mm_mask_storeu_ps(to, mask<__mmask8>(), packet);
#endif
    if (n_ == width) return pstoreu(to, packet);
    S numbers[width];
    pstoreu(numbers, packet);
    for (Index i = 0; i < n_; ++i) to[i] = numbers[i];
  }

 private:
  template <class M>
  M mask() const {
    return static_cast<M>(mask_);
  }

  Index n_;
  unsigned mask_;
};

/// The same for one packet.
template <class P>
P load_first(const ScalarOf<P>* from, Index n) {
  return First<P>(n).load(from);
}
template <class P>
void store_first(ScalarOf<P>* to, const P& packet, Index n) {
  First<P>(n).store(to, packet);
}

/// The first n numbers, of which there are mostly as many as a packet holds: a load that follows waits for what a mask wrote.
template <class P>
BPTT_INLINED inline void store_most(ScalarOf<P>* to, const P& packet, Index n) {
  if (n >= width_of<P>) return Eigen::internal::pstoreu(to, packet);
  store_first(to, packet, n);
}

/// All numbers of a packet, in the place of the first.
template <class P>
struct Whole {
  P load(const ScalarOf<P>* from) const { return Eigen::internal::ploadu<P>(from); }
  void store(ScalarOf<P>* to, const P& packet) const { Eigen::internal::pstoreu(to, packet); }
};

/// Calls f(i, first) for the packets of n numbers, each from number i on; of the last, the `first` are there.
template <class P, class F>
BPTT_INLINED inline void each_packet(Index n, F&& f) {
  Index i = 0;
  for (; i + width_of<P> < n; i += width_of<P>) f(i, Whole<P>());
  f(i, First<P>(n - i));
}

/// Copies n numbers, in line: there are often fewer than a call is long.
template <class S>
BPTT_INLINED inline void copy_in_packets(const S* from, S* to, Index n) {
  each_packet<FullPacket<S>>(
      n, [&](Index i, auto first) BPTT_INLINED { first.store(to + i, first.load(from + i)); });
}

/// Calls f with a null pointer to each kind of packet there is for S, the widest first. (Two numbers are none worth a
/// name, but for double on the smallest instruction set.)
template <class S, class F>
void for_each_packet(F&& f) {
  using P = FullPacket<S>;
  f(static_cast<P*>(nullptr));
  if constexpr (width_of<P> >= 8) f(static_cast<HalfOf<P>*>(nullptr));
  if constexpr (width_of<P> >= 16) f(static_cast<HalfOf<HalfOf<P>>*>(nullptr));
}

/// Whether packets of 512 bits take this processor two turns: AMD's Zen 4.
inline bool halves_widest() {
#if defined(EIGEN_VECTORIZE_AVX512) && defined(__GNUC__)
  static const bool halves = __builtin_cpu_is("amdfam19h");
  return halves;
#else
  return false;
#endif
}

/// How wide packets should be for so many rows: those that take the fewest turns; of these as few packets as there can be,
/// no wider than they need to be.
template <class S>
Index packet_width(Index rows) {
  Index best = 0;
  std::pair<Index, Index> least;  // turns and packets
  for_each_packet<S>([&]<class P>(P*) {
    const Index packets = (rows + width_of<P> - 1) / width_of<P>;
    const std::pair cost(sizeof(P) == 64 && halves_widest() ? 2 * packets : packets, packets);
    if (best && cost > least) return;
    best = width_of<P>;
    least = cost;
  });
  return best;
}

/// f<P>() for the packet of this width.
template <class S, class F>
auto with_packet(Index width, F&& f) {
  using P = FullPacket<S>;
  if constexpr (width_of<P> >= 16)
    if (width == width_of<P> / 4) return f(static_cast<HalfOf<HalfOf<P>>*>(nullptr));
  if constexpr (width_of<P> >= 8)
    if (width == width_of<P> / 2) return f(static_cast<HalfOf<P>*>(nullptr));
  return f(static_cast<P*>(nullptr));
}

}  // namespace bptt
