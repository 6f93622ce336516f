// Convolutions by torch's operators, without the faults of oneDNN and its slow bfloat16.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>

#include "convolution.h"

namespace cnngraph {

at::Tensor library_convolution(const at::Tensor& input, const at::Tensor& weight,
                               const OptionalTensor& bias, const ConvGeometry& geometry);

// The library computes both gradients if either the weight's or the bias's is requested.
ConvGradients library_gradients(const at::Tensor& grad_output, const at::Tensor& input,
                                const at::Tensor& weight, const ConvGeometry& geometry,
                                std::array<bool, 3> wanted);

// The gradients as a function that can be differentiated. What the mask does not request is empty.
ConvGradients differentiable_convolution_backward(const at::Tensor& grad_output,
                                                  const at::Tensor& input, const at::Tensor& weight,
                                                  const ConvGeometry& geometry,
                                                  std::array<bool, 3> output_mask);

}  // namespace cnngraph
