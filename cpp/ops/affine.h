// Sums of products with weights, several at once: what passes make of a user's W x + U h + b.
//
//   y_j = e_j + sum over k of W_jk x_k + b_j,    y = [y_0; y_1; ...]
//
// The y_j are row blocks of one value, so that all of it is one product: of the matrix of all W_jk, with zeros where one
// is absent, and the x_k one below the other. e, the base, is a value of y's shape.
#pragma once

#include "ops/operation.h"

namespace bptt {

/// Inputs: x_0 ... x_{terms - 1}, the base if there is one, then for each row block its weights in the order of the x_k,
/// and its bias. Attributes: `terms`; `base`, 0 or 1; `weights`, for each row block, with a space between two, a digit
/// for each x_k and one for the bias: 1 if it is there, else 0.
const Registered& affine();

}  // namespace bptt
