// A convolution by the fastest kernel for its sizes, for operators that contain one.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <tuple>

#include "../checks.h"
#include "choice.h"

namespace cnngraph {

// Of the input, the weight and the bias; undefined unless the mask requests it.
using ConvGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight,
                       const OptionalTensor& bias, at::IntArrayRef stride, at::IntArrayRef padding,
                       at::IntArrayRef dilation, int64_t groups);

ConvGradients convolution_backward(const at::Tensor& grad_output, const at::Tensor& input,
                                   const at::Tensor& weight, at::IntArrayRef stride,
                                   at::IntArrayRef padding, at::IntArrayRef dilation,
                                   int64_t groups, std::array<bool, 3> output_mask);

// One result by a given kernel, to measure and test the choice. The tensors are channels_last, on
// the CPU and of one type. Raises if the kernel does not support them.
at::Tensor convolution_by(ConvKernel kernel, ConvResult result, const at::Tensor& grad_output,
                          const at::Tensor& input, const at::Tensor& weight,
                          const ConvGeometry& geometry);

}  // namespace cnngraph
