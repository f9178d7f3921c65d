// tanh and the logistic sigmoid over Eigen packets of float or double, within 4 units in the last place of the
// true value for every input, with fused multiply-add and without; and, at the end, the exponential as softmax needs it.
//
// Both rest on one identity. With q(s) = s coth(s), which is 1 + s²/3 - ... and even,
//
//   tanh(s) = s/q    and so    exp(2s) = (q + s)/(q - s),
//
// exact for every s. x is split into a multiple of ln(2)/2 and a remainder |s| <= ln(2)/4, on which a short
// polynomial in s² gives q; the multiple is a power of two. What remains is one quotient whose numerator and
// denominator are positive sums, or, for tanh near 0, the numerator is s itself: nothing cancels, nothing is
// selected, nothing branches. For tanh the two sums share their first term, and its rounding nearly cancels.
//
//   tanh(x)    = (d (q + s) + s) / (d (q + s) + q),                2x = n ln(2) + 2s, d = (2ⁿ - 1)/2, x >= 0
//   sigmoid(x) = (q + s) / ((q + s) + 2ⁿ (q - s)),                         -x = n ln(2) - 2s
//
// Guaranteed, and tested in tests/test_activations.py: NaN gives NaN, infinities give the limits; tanh is odd to
// the bit, signed zero and denormal numbers included; sigmoid's small tail keeps its relative accuracy and goes
// over into denormal results, the last of them before 0 included.
//
// The order of the operations is fixed: what multiplies and adds says so (pmadd), and no other product is an
// operand of a sum, so a compiler has nothing to contract and every packet width gives the same bits.
#pragma once

#include <Eigen/Core>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>

namespace bptt {

/// The constants of one precision.
template <class S>
struct ActivationConstants;

template <>
struct ActivationConstants<float> {
  using Bits = std::uint32_t;
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float tanh_end = 10;                          // beyond it tanh is ±1
  static constexpr float sigmoid_low = -104, sigmoid_high = 18;  // beyond them sigmoid is 0, 1
  static constexpr int sigmoid_shift = 64;
  static constexpr float ln2_high = 0x1.62e4p-1f;  // few bits: its products with n are exact
  static constexpr float ln2_low = 0x1.7f7d1cp-20f;
  // q(s) / (s coth(s)) - 1 is at most 2^-28.7; minimax for |s| <= ln(2)/4, with q(0) = 1.
  static constexpr float q[] = {1, 0x1.55551ep-2f, -0x1.6aa362p-6f};
  // exp(r) to 2^-28.5 of it, minimax for |r| <= ln(2)/2, with exp(0) = 1.
  static constexpr float exp[] = {
      1, 0x1.000000p+0f, 0x1.000002p-1f, 0x1.5553c0p-3f, 0x1.55515ep-5f, 0x1.129052p-7f, 0x1.709ba2p-10f};
};

template <>
struct ActivationConstants<double> {
  using Bits = std::uint64_t;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double tanh_end = 20;
  static constexpr double sigmoid_low = -746, sigmoid_high = 38;
  static constexpr int sigmoid_shift = 512;
  static constexpr double ln2_high = 0x1.62e42fefap-1;
  static constexpr double ln2_low = 0x1.cf79abc9e3b3ap-40;
  // At most 2^-60.0.
  static constexpr double q[] = {1,
                                 0x1.555555555553ep-2,
                                 -0x1.6c16c16bebb93p-6,
                                 0x1.1566aaf1eac1cp-9,
                                 -0x1.bbd41b0f5e84ep-13,
                                 0x1.6375f19746b61p-16};
  // To 2^-55.7.
  static constexpr double exp[] = {1,
                                   0x1.0000000000003p+0,
                                   0x1.0000000000005p-1,
                                   0x1.5555555554825p-3,
                                   0x1.55555555520ebp-5,
                                   0x1.111111137a2adp-7,
                                   0x1.6c16c17f35f0ap-10,
                                   0x1.a019f62511e21p-13,
                                   0x1.a019a68f50085p-16,
                                   0x1.71f610458db1bp-19,
                                   0x1.28a29fa8b157fp-22,
                                   0x1.8ad0e46bf3af9p-26};
};

namespace activation {

using Eigen::internal::pabs;
using Eigen::internal::padd;
using Eigen::internal::pand;
using Eigen::internal::pdiv;
using Eigen::internal::pmadd;
using Eigen::internal::pmax;
using Eigen::internal::pmin;
using Eigen::internal::pmul;
using Eigen::internal::por;
using Eigen::internal::pset1;
using Eigen::internal::psub;

template <class Packet>
using ScalarIn = typename Eigen::internal::unpacket_traits<Packet>::type;

template <class Packet>
Packet clamp(const Packet& x, ScalarIn<Packet> low,
             ScalarIn<Packet> high) {  // NaN stays: x is the first operand
  return pmax(pmin(x, pset1<Packet>(high)), pset1<Packet>(low));
}

/// All bits moved up by the length of the mantissa. Eigen shifts no packets of 64-bit integers on x86.
template <class Packet>
Packet to_exponent(const Packet& x) {
  using C = ActivationConstants<ScalarIn<Packet>>;
#if defined(__GNUC__)
  using Bits [[gnu::vector_size(sizeof(Packet))]] = typename C::Bits;
  return std::bit_cast<Packet>(std::bit_cast<Bits>(x) << C::mantissa);
#else
  struct Bits {
    typename C::Bits at[sizeof(Packet) / sizeof(typename C::Bits)];
  } bits = std::bit_cast<Bits>(x);
  for (auto& word : bits.at) word <<= C::mantissa;
  return std::bit_cast<Packet>(bits);
#endif
}

/// An integer n and 2^(n + shift).
template <class Packet>
struct Whole {
  Packet n, power;
};

/// a * b rounded to an integer n. Added to a large enough number, the sum is rounded to whole units, and its last
/// bits hold n + shift + bias: moved to the place of the exponent they make the power.
template <int shift, class Packet>
Whole<Packet> whole(const Packet& a, ScalarIn<Packet> b) {
  using S = ScalarIn<Packet>;
  using C = ActivationConstants<S>;
  constexpr S large = S(typename C::Bits{3} << (C::mantissa - 1)) + S(C::bias + shift);
  const Packet sum = pmadd(a, pset1<Packet>(b), pset1<Packet>(large));
  return {psub(sum, pset1<Packet>(large)), to_exponent(sum)};
}

/// twice 0: q(s). twice 1: 2 q(s) as a function of 2s, by the same coefficients times powers of two.
template <int twice, class Packet>
Packet q(const Packet& s) {
  using S = ScalarIn<Packet>;
  using C = ActivationConstants<S>;
  const auto c = [](int k) {
    return pset1<Packet>(twice ? C::q[k] * S(2) / S(std::uint64_t{1} << (2 * k)) : C::q[k]);
  };
  const Packet u = pmul(s, s);
  const Packet low = pmadd(c(1), u, c(0));
  if constexpr (std::size(C::q) == 3) {
    return pmadd(pmadd(c(2), u, c(1)), u, c(0));
  } else {
    const Packet u2 = pmul(u, u);
    return pmadd(pmadd(pmadd(c(5), u, c(4)), u2, pmadd(c(3), u, c(2))), u2, low);
  }
}

}  // namespace activation

template <class Packet>
Packet packet_tanh(const Packet& input) {
  using namespace activation;
  using S = ScalarIn<Packet>;
  using C = ActivationConstants<S>;
  constexpr S half_ln2 = C::ln2_high / 2 + C::ln2_low / 2;
  const Packet x = pmin(pabs(input), pset1<Packet>(C::tanh_end));  // NaN stays: it is the first operand
  // The power is 2ⁿ/2. The error of half_ln2, n times, is small where n is, and where n is not tanh is flat.
  const auto [n, power] = whole<-1>(x, 1 / half_ln2);
  const Packet s = pmadd(n, pset1<Packet>(-half_ln2), x);
  const Packet even = q<0>(s), d = psub(power, pset1<Packet>(S(0.5)));
  const Packet both = padd(even, s);
  const Packet size = pdiv(pmadd(d, both, s), pmadd(d, both, even));
  return por(size, pand(input, pset1<Packet>(S(-0.0))));
}

template <class Packet>
Packet packet_sigmoid(const Packet& input) {
  using namespace activation;
  using S = ScalarIn<Packet>;
  using C = ActivationConstants<S>;
  constexpr S ln2 = C::ln2_high + C::ln2_low;
  const Packet x = clamp(input, C::sigmoid_low, C::sigmoid_high);
  const auto [n, power] = whole<-C::sigmoid_shift>(x, -1 / ln2);
  // r = 2s. Two steps: an error of r is one of the result, for every n.
  const Packet r = pmadd(n, pset1<Packet>(C::ln2_low), pmadd(n, pset1<Packet>(C::ln2_high), x));
  const Packet even = q<1>(r);
  // Numerator and denominator are both smaller by 2^shift than above: 2ⁿ alone would overflow before the quotient
  // has passed through the denormal numbers.
  constexpr S small = S(1) / S(C::sigmoid_shift == 64 ? 0x1p64 : 0x1p512);
  const Packet over = pmadd(even, pset1<Packet>(small), pmul(r, pset1<Packet>(small)));
  return pdiv(over, pmadd(power, psub(even, r), over));
}

/// exp(x) = 2ⁿ exp(r) of numbers that are not above 0, but for rounding: nothing there overflows, and no quotient is needed.
template <class Packet>
Packet packet_exp_below(const Packet& input) {
  using namespace activation;
  using S = ScalarIn<Packet>;
  using C = ActivationConstants<S>;
  constexpr S ln2 = C::ln2_high + C::ln2_low;
  const Packet x = pmax(input, pset1<Packet>(C::sigmoid_low));  // NaN stays: it is the first operand
  const auto [n, power] = whole<C::sigmoid_shift>(x, 1 / ln2);
  const Packet r = pmadd(n, pset1<Packet>(-C::ln2_low), pmadd(n, pset1<Packet>(-C::ln2_high), x));
  const Packet u = pmul(r, r);
  constexpr std::size_t size = std::size(C::exp), even_end = (size - 1) / 2 * 2,
                        odd_end = (size - 2) / 2 * 2 + 1;
  Packet even = pset1<Packet>(C::exp[even_end]), odd = pset1<Packet>(C::exp[odd_end]);
  for (std::size_t k = even_end; k >= 2; k -= 2) even = pmadd(even, u, pset1<Packet>(C::exp[k - 2]));
  for (std::size_t k = odd_end; k >= 3; k -= 2) odd = pmadd(odd, u, pset1<Packet>(C::exp[k - 2]));
  // The power is 2^shift too large, so that the last product passes through the denormal numbers.
  constexpr S small = S(1) / S(C::sigmoid_shift == 64 ? 0x1p64 : 0x1p512);
  return pmul(pmul(pmadd(odd, r, even), power), pset1<Packet>(small));
}

/// The smallest packet of a scalar type: what single numbers are computed in.
template <class Packet, class Half = typename Eigen::internal::unpacket_traits<Packet>::half>
struct SmallestPacket : SmallestPacket<Half> {};
template <class Packet>
struct SmallestPacket<Packet, Packet> {
  using type = Packet;
};

/// For unaryExpr. A single number goes the way of a packet, so that the tail of an array, or a stream of frames,
/// has the bits of the body.
template <class S>
struct TanhOf {
  using Packet = typename SmallestPacket<typename Eigen::internal::packet_traits<S>::type>::type;
  S operator()(S x) const { return Eigen::internal::pfirst(packet_tanh(Eigen::internal::pset1<Packet>(x))); }
  template <class P>
  P packetOp(const P& x) const {
    return packet_tanh(x);
  }
};

template <class S>
struct SigmoidOf {
  using Packet = typename SmallestPacket<typename Eigen::internal::packet_traits<S>::type>::type;
  S operator()(S x) const {
    return Eigen::internal::pfirst(packet_sigmoid(Eigen::internal::pset1<Packet>(x)));
  }
  template <class P>
  P packetOp(const P& x) const {
    return packet_sigmoid(x);
  }
};

}  // namespace bptt

namespace Eigen::internal {

template <class S>
struct functor_traits<bptt::TanhOf<S>> {
  enum { Cost = 20 * NumTraits<S>::MulCost, PacketAccess = packet_traits<S>::Vectorizable };
};

template <class S>
struct functor_traits<bptt::SigmoidOf<S>> {
  enum { Cost = 20 * NumTraits<S>::MulCost, PacketAccess = packet_traits<S>::Vectorizable };
};

}  // namespace Eigen::internal
