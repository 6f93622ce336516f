// The interface of the loops of a depthwise convolution: plain numbers and pointers, so that they
// compile without torch, once per CPU capability.
#pragma once

#include "../data_type.h"

namespace cnngraph {

// Results that are next to each other in a row and read the same taps of the kernel.
struct DepthwiseRow {
  const float* const* inputs;   // per tap: the pixel that the first result reads
  const float* const* weights;  // per tap: one per channel
  int64_t taps;
  int64_t step;  // from the input of a result to that of the next
  int64_t pixels, channels;
  const float* bias;     // one per channel, or null
  const float* addends;  // like the results, or null
  float low, high;
  float* results;  // dense
};

struct DepthwiseKernels {
  // clamp(bias[c] + addends[p][c] + sum over taps of inputs[p][c] * weights[c], low, high), where
  // NaN stays.
  void (*convolve)(const DepthwiseRow& row);
};

CNNGRAPH_DECLARE_KERNELS(DepthwiseKernels, depthwise)

}  // namespace cnngraph
