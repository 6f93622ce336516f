// The checked arguments of a convolution.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>

#include "convolution.h"

namespace cnngraph {

// Raises unless these are a convolution of (N, C, H, W) with at least one result per map.
ConvGeometry check_convolution(const at::Tensor& input, const at::Tensor& weight,
                               const OptionalTensor& bias, at::IntArrayRef stride,
                               at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups);

ConvSizes sizes_of(at::IntArrayRef input, at::IntArrayRef weight, const ConvGeometry& geometry);
std::array<int64_t, 4> sizes_of_results(const at::Tensor& input, const at::Tensor& weight,
                                        const ConvGeometry& geometry);

// Raises unless these are a convolution and a gradient of its results.
ConvGeometry check_backward(const at::Tensor& grad_output, const at::Tensor& input,
                            const at::Tensor& weight, at::IntArrayRef stride,
                            at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups);

}  // namespace cnngraph
