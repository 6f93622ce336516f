// Convolutions of 3x3 kernels over channels_last maps by Winograd's minimal filtering: tiles of
// 2x2 results take 16 multiplications instead of 36, tiles of 4x4 results 36 instead of 144.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "sizes.h"

namespace cnngraph {

// `tile` is the height and width of a tile of results, 2 or 4.
at::Tensor winograd_convolution(const at::Tensor& input, const at::Tensor& weight,
                                const std::optional<at::Tensor>& bias, const ConvGeometry& geometry,
                                int64_t tile);

at::Tensor winograd_input_gradient(const at::Tensor& grad_output, const at::Tensor& weight,
                                   const ConvGeometry& geometry, int64_t tile);

// For evaluation: with a weight transformed in advance, a residual, and results between `low` and
// `high`. The number of values of the transformed weight determines its tile.
at::Tensor winograd_weight(const at::Tensor& weight, int64_t tile);
at::Tensor winograd_folded_convolution(const at::Tensor& input,
                                       const at::Tensor& transformed_weight, int64_t channels,
                                       const std::optional<at::Tensor>& bias,
                                       at::IntArrayRef padding,
                                       const std::optional<at::Tensor>& residual, double low,
                                       double high);

at::Tensor winograd_weight_gradient(const at::Tensor& grad_output, const at::Tensor& input,
                                    const ConvGeometry& geometry, int64_t tile);

}  // namespace cnngraph
