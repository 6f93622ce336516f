// A convolution and its gradients, for operators that contain one.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <tuple>

namespace cnngraph {

using OptionalTensor = std::optional<at::Tensor>;
// Of the input, the weight and the bias; undefined unless the mask requests it.
using ConvGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight,
                       const OptionalTensor& bias, at::IntArrayRef stride, at::IntArrayRef padding,
                       at::IntArrayRef dilation, int64_t groups);

ConvGradients convolution_backward(const at::Tensor& grad_output, const at::Tensor& input,
                                   const at::Tensor& weight, at::IntArrayRef stride,
                                   at::IntArrayRef padding, at::IntArrayRef dilation,
                                   int64_t groups, std::array<bool, 3> output_mask);

}  // namespace cnngraph
