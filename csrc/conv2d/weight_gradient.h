// The gradient of a convolution's weight over channels_last maps.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <functional>

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

// Writes all channels of `count` pixels, from the `first` of all images' on.
using MakePixels = std::function<void(int64_t first, int64_t count, float* pixels)>;

// Of a 1x1 convolution in float32 whose input is made as it is read. The convolution's result is
// as large as its input.
at::Tensor pointwise_weight_gradient(const at::Tensor& grad_output, const MakePixels& input,
                                     const at::Tensor& weight);

}  // namespace cnngraph
