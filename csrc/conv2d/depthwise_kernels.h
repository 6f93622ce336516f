// The interface of the loops of a depthwise convolution: plain numbers and pointers, so that they
// compile without torch, once per CPU capability.
#pragma once

#include "../data_type.h"

namespace cnngraph {

struct DepthwiseKernels {
  // result[c] = clamp(bias[c] + addends[c] + sum over taps of pixels[tap][c] * weights[tap][c]) of
  // one pixel, where NaN stays. Bias and addends may be null.
  void (*convolve)(const float* const* pixels, const float* const* weights, int64_t taps,
                   int64_t channels, const float* bias, const float* addends, float low, float high,
                   float* result);
};

CNNGRAPH_DECLARE_KERNELS(DepthwiseKernels, depthwise)

}  // namespace cnngraph
