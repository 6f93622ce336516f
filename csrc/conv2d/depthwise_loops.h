// The loops of a depthwise convolution over vectors of channels, compiled once per capability.
#pragma once

#include "../cpu/vector.h"
#include "depthwise_kernels.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {
namespace {

constexpr int lanes = Memory<float>::lanes;
constexpr int vectors_together = 4;  // whose sums hide the latency of an addition

void convolve(const float* const* pixels, const float* const* weights, int64_t taps,
              int64_t channels, const float* bias, const float* addends, float low, float high,
              float* result) {
  int64_t channel = 0;
  for (; channel + vectors_together * lanes <= channels; channel += vectors_together * lanes) {
    Floats sums[vectors_together] = {};
    for (int64_t tap = 0; tap < taps; ++tap) {
      const float* pixel = pixels[tap] + channel;
      const float* weight = weights[tap] + channel;
#pragma GCC unroll 4
      for (int v = 0; v < vectors_together; ++v) {
        sums[v] += Memory<float>::load(pixel + v * lanes) * Memory<float>::load(weight + v * lanes);
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < vectors_together; ++v) {
      const int64_t at = channel + v * lanes;
      if (bias) sums[v] += Memory<float>::load(bias + at);
      if (addends) sums[v] += Memory<float>::load(addends + at);
      Memory<float>::store(result + at, clamp(sums[v], low, high));
    }
  }
  const int64_t first = channel;
  for_each_vector_of_channels<float>(
      channels - first, [&](auto extent, int64_t rest) CNNGRAPH_LAMBDA_INLINE {
        const int64_t at = first + rest;
        Floats sum{};
        for (int64_t tap = 0; tap < taps; ++tap) {
          sum += extent.load(pixels[tap] + at) * extent.load(weights[tap] + at);
        }
        if (bias) sum += extent.load(bias + at);
        if (addends) sum += extent.load(addends + at);
        extent.store(result + at, clamp(sum, low, high));
      });
}

}  // namespace

extern const DepthwiseKernels depthwise = {convolve};

}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
