// Long short-term memory that forgets as much as it takes in: the coupled input and forget gate (CIFG) of Greff, Srivastava,
// Koutnik, Steunebrink & Schmidhuber, "LSTM: a search space odyssey", 2017 (arXiv:1503.04069), fused:
//
//   i_t = sigmoid(W_xi x_t + W_hi h_{t-1} + W_ci c_{t-1} + b_i)
//   g_t = tanh   (W_xc x_t + W_hc h_{t-1}                + b_c)
//   c_t = (1 - i_t) c_{t-1} + i_t g_t
//   o_t = sigmoid(W_xo x_t + W_ho h_{t-1} + W_co c_t     + b_o)
//   h_t = o_t tanh(c_t)
#include "ops/lstm.h"

namespace bptt {
namespace {

struct Coupled {
  static constexpr auto name = "lstm_coupled";
  static constexpr bool coupled = true, projected = false;
};

template <class S>
using CoupledLstm = Lstm<S, Coupled>;
const Register<CoupledLstm> lstm_coupled{lstm_type<Coupled>()};

}  // namespace
}  // namespace bptt
