// Depthwise convolutions over channels_last maps, for inference.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <optional>

namespace cnngraph {

// `weight` is (kernel height, kernel width, C) in float32, and results are between `low` and
// `high`.
at::Tensor depthwise_folded_convolution(const at::Tensor& input, const at::Tensor& weight,
                                        const std::optional<at::Tensor>& bias,
                                        at::IntArrayRef stride, at::IntArrayRef padding,
                                        at::IntArrayRef dilation,
                                        const std::optional<at::Tensor>& residual, double low,
                                        double high);

}  // namespace cnngraph
