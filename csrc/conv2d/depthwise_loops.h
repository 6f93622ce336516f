// The loops of a depthwise convolution over vectors of channels, compiled once per capability.
#pragma once

#include "../cpu/vector.h"
#include "depthwise_kernels.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {
namespace {

constexpr int lanes = Memory<float>::lanes;

// A tile of 4x2 or 1x4 sums hides the latency of an addition, and one of 4 pixels reads a weight
// for 4 products.
constexpr int pixels_of_tile = 4;

template <int pixels, int vectors, class Extent>
CNNGRAPH_INLINE void convolve_tile(const DepthwiseRow& row, int64_t first, int64_t channel,
                                   Extent extent) {
  Floats sums[pixels][vectors] = {};
  for (int64_t tap = 0; tap < row.taps; ++tap) {
    const float* input = row.inputs[tap] + first * row.step + channel;
    const float* weight = row.weights[tap] + channel;
    Floats weights[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) weights[v] = extent.load(weight + v * lanes);
#pragma GCC unroll 4
    for (int p = 0; p < pixels; ++p) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        sums[p][v] += extent.load(input + p * row.step + v * lanes) * weights[v];
      }
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < pixels; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const int64_t at = channel + v * lanes, result = (first + p) * row.channels + at;
      Floats sum = sums[p][v];
      if (row.bias) sum += extent.load(row.bias + at);
      if (row.addends) sum += extent.load(row.addends + result);
      extent.store(row.results + result, clamp(sum, row.low, row.high));
    }
  }
}

template <int pixels, int vectors>
void convolve_pixels(const DepthwiseRow& row, int64_t first) {
  // Of the rows that a result reads, the last is the one that is not cached yet.
  constexpr int64_t line = 64 / sizeof(float);
  for (int64_t at = 0; at < pixels * row.step && row.taps > 0; at += line) {
    __builtin_prefetch(row.inputs[row.taps - 1] + (first + 2 * pixels) * row.step + at);
  }
  int64_t channel = 0;
  for (; channel + vectors * lanes <= row.channels; channel += vectors * lanes) {
    convolve_tile<pixels, vectors>(row, first, channel, Whole<float>{});
  }
  const int64_t rest = row.channels - channel;
  for_each_vector_of_channels<float>(rest, [&](auto extent, int64_t at) CNNGRAPH_LAMBDA_INLINE {
    convolve_tile<pixels, 1>(row, first, channel + at, extent);
  });
}

void convolve(const DepthwiseRow& row) {
  int64_t pixel = 0;
  for (; pixel + pixels_of_tile <= row.pixels; pixel += pixels_of_tile) {
    convolve_pixels<pixels_of_tile, 2>(row, pixel);
  }
  for (; pixel < row.pixels; ++pixel) convolve_pixels<1, 4>(row, pixel);
}

}  // namespace

extern const DepthwiseKernels depthwise = {convolve};

}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
