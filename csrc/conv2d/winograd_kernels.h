// The interface of the loops of Winograd's convolution: plain numbers and pointers, so that they
// compile without torch, once per CPU capability.
#pragma once

#include <stdint.h>

#include "../data_type.h"

namespace cnngraph {

// F(tile x tile, 3x3): a tile of results is computed from a patch of (tile + 2)^2 pixels by a
// product for each of the places of the transformed patch, which has as many places as the patch
// has pixels. `place_stride` is the distance between places.
struct WinogradKernels {
  static constexpr int64_t largest_patch = 6;
  int64_t tile;
  int64_t patch() const { return tile + 2; }
  int64_t places() const { return patch() * patch(); }

  // Transforms a patch to its places; pixels[patch * y + x] is a row of channels.
  void (*transform_patch)(DataType, const void* const* pixels, int64_t channels, float* places,
                          int64_t place_stride);
  // Transforms the gradients of a tile's pixels to places: the transpose of `transform_result`.
  void (*transform_gradient)(DataType, const void* const* pixels, int64_t channels, float* places,
                             int64_t place_stride);
  // Transforms places to the pixels of a tile and writes clamp(pixels + bias + addends, low, high),
  // where NaN stays. Bias and addends may be null.
  void (*transform_result)(DataType, const float* places, int64_t place_stride, int64_t channels,
                           const float* bias, const void* const* addends, float low, float high,
                           void* const* pixels);
  // Transforms the 3x3 taps of one output channel, `tap_stride` apart, rotated by 180 degrees if
  // `turned`; `channel_stride` is the distance between the results of channels.
  void (*transform_weight)(DataType, const void* taps, int64_t tap_stride, int64_t channels,
                           bool turned, float* places, int64_t place_stride,
                           int64_t channel_stride);
  // Transforms the places of a weight gradient to its 3x3 taps: the transpose of
  // `transform_weight`.
  void (*transform_weight_gradient)(const float* places, int64_t place_stride, int64_t channels,
                                    float* taps, int64_t tap_stride);
};

CNNGRAPH_DECLARE_KERNELS(WinogradKernels, winograd_2x2)
CNNGRAPH_DECLARE_KERNELS(WinogradKernels, winograd_4x4)

}  // namespace cnngraph
