// Linear layers: products of a few rows with a weight too large for the cache. The library reads it
// at a fraction of the memory bandwidth, and far less in bfloat16 without hardware support.
#pragma once

#include <ATen/core/Tensor.h>

#include "../checks.h"

namespace cnngraph {

// Conversions between a matrix and maps of one pixel.
inline at::Tensor as_matrix(const at::Tensor& maps) {
  return maps.reshape({maps.size(0), maps.size(1)});
}
inline at::Tensor as_maps(const at::Tensor& matrix) {
  return matrix.reshape({matrix.size(0), matrix.size(1), 1, 1});
}

// input (N, I), weight (O, I), bias (O): the result is (N, O) in the type of the weight.
at::Tensor rows_linear(const at::Tensor& input, const at::Tensor& weight,
                       const OptionalTensor& bias);

// The gradients of the input and of the weight.
at::Tensor rows_input_gradient(const at::Tensor& grad_output, const at::Tensor& weight);
at::Tensor rows_weight_gradient(const at::Tensor& grad_output, const at::Tensor& input);

}  // namespace cnngraph
