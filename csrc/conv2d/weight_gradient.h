// The gradient of a convolution's weight over channels_last maps.
#pragma once

#include <array>

#include <ATen/core/Tensor.h>

namespace cnngraph {

struct ConvGeometry {
  std::array<int64_t, 2> stride, padding, dilation;
  int64_t groups;
};

// Whether `weight_gradient` takes these, and is the faster way: else torch's own must do.
bool weight_gradient_pays(const at::Tensor& grad_output, const at::Tensor& input,
                          at::IntArrayRef weight_sizes, const ConvGeometry& geometry);

// Of weight_sizes, laid out channels last, in the type of the input.
at::Tensor weight_gradient(const at::Tensor& grad_output, const at::Tensor& input,
                           at::IntArrayRef weight_sizes, const ConvGeometry& geometry);

}  // namespace cnngraph
