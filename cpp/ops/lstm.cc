// Long short-term memory as in Graves, "Generating sequences with recurrent neural networks", 2013
// (arXiv:1308.0850), equations 7-11, fused:
//
//   i_t = sigmoid(W_xi x_t + W_hi h_{t-1} + W_ci c_{t-1} + b_i)
//   f_t = sigmoid(W_xf x_t + W_hf h_{t-1} + W_cf c_{t-1} + b_f)
//   g_t = tanh   (W_xc x_t + W_hc h_{t-1}                + b_c)
//   c_t = f_t c_{t-1} + i_t g_t
//   o_t = sigmoid(W_xo x_t + W_ho h_{t-1} + W_co c_t     + b_o)
//   h_t = o_t tanh(c_t)
#include "ops/lstm.h"

namespace bptt {
namespace {

struct Plain {
  static constexpr auto name = "lstm";
  static constexpr bool coupled = false, projected = false;
};

template <class S>
using PlainLstm = Lstm<S, Plain>;
const Register<PlainLstm> lstm{lstm_type<Plain>()};

}  // namespace
}  // namespace bptt
