// Convolutions of 3x3 kernels over channels_last maps by Winograd's minimal filtering: tiles of
// 2x2 results take 16 multiplications instead of 36, tiles of 4x4 results 36 instead of 144.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>

#include "weight_gradient.h"

namespace cnngraph {

// Whether these functions support the convolution and are faster than the library.
bool winograd_is_faster(const at::Tensor& input, const at::Tensor& weight,
                        const ConvGeometry& geometry);
// The size of the tiles, 2 or 4, for a result of this size and this number of summed channels.
int64_t winograd_tile(int64_t height, int64_t width, int64_t channels);
bool winograd_weight_gradient_is_faster(const at::Tensor& input, const at::Tensor& weight,
                                        const ConvGeometry& geometry);

at::Tensor winograd_convolution(const at::Tensor& input, const at::Tensor& weight,
                                const std::optional<at::Tensor>& bias,
                                const ConvGeometry& geometry);

at::Tensor winograd_input_gradient(const at::Tensor& grad_output, const at::Tensor& weight,
                                   const ConvGeometry& geometry);

// For evaluation: with a weight transformed in advance, a residual and a ReLU.
at::Tensor winograd_weight(const at::Tensor& weight);
at::Tensor winograd_folded_convolution(const at::Tensor& input,
                                       const at::Tensor& transformed_weight, int64_t channels,
                                       const std::optional<at::Tensor>& bias,
                                       at::IntArrayRef padding,
                                       const std::optional<at::Tensor>& residual, bool relu);

at::Tensor winograd_weight_gradient(const at::Tensor& grad_output, const at::Tensor& input,
                                    const ConvGeometry& geometry);

}  // namespace cnngraph
