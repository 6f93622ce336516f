// The gradient of a convolution's weight over channels_last maps.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "sizes.h"

namespace cnngraph {

// Whether less than a third of the multiplications of `weight_gradient` are padding, as for all but
// few channels.
bool weight_gradient_fills_tiles(const ConvSizes& sizes);

// A channels_last tensor of weight_sizes in the type of the input.
at::Tensor weight_gradient(const at::Tensor& grad_output, const at::Tensor& input,
                           at::IntArrayRef weight_sizes, const ConvGeometry& geometry);

// Writes all channels of pixels [first, first + count), counted over all images.
using MakePixels = std::function<void(int64_t first, int64_t count, float* pixels)>;

// For a 1x1 convolution in float32 whose input is computed as it is read, with stride 1 and without
// padding.
at::Tensor pointwise_weight_gradient(const at::Tensor& grad_output, const MakePixels& input,
                                     const at::Tensor& weight);

}  // namespace cnngraph
