// Long short-term memory whose output is a projection to fewer numbers, which is what all gates see a frame later: Sak, Senior
// & Beaufays, "Long short-term memory recurrent neural network architectures for large scale acoustic modeling", 2014
// (arXiv:1402.1128, the LSTMP of section 2.1; proj_size in PyTorch), fused:
//
//   i_t = sigmoid(W_xi x_t + W_hi h_{t-1} + W_ci c_{t-1} + b_i)
//   f_t = sigmoid(W_xf x_t + W_hf h_{t-1} + W_cf c_{t-1} + b_f)
//   g_t = tanh   (W_xc x_t + W_hc h_{t-1}                + b_c)
//   c_t = f_t c_{t-1} + i_t g_t
//   o_t = sigmoid(W_xo x_t + W_ho h_{t-1} + W_co c_t     + b_o)
//   h_t = W_rm (o_t tanh(c_t))
#include "ops/lstm.h"

namespace bptt {
namespace {

struct Projected {
  static constexpr auto name = "lstm_projected";
  static constexpr bool coupled = false, projected = true;
};

template <class S>
using ProjectedLstm = Lstm<S, Projected>;
const Register<ProjectedLstm> lstm_projected{lstm_type<Projected>()};

}  // namespace
}  // namespace bptt
