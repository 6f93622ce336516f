// What the loops of Winograd's convolution agree on with their caller: plain numbers and pointers,
// so that they compile without torch, once per CPU capability.
#pragma once

#include <stdint.h>

#include "../data_type.h"

namespace cnngraph {

// F(2x2, 3x3): a tile of 2x2 results comes from a patch of 4x4 pixels, through a product for each
// of the 16 places of the transformed patch. `place_stride` is from one place to the next.
struct WinogradKernels {
  static constexpr int64_t places = 16;
  // A patch to its places: pixels[4 * y + x] is a row of channels.
  void (*transform_patch)(DataType, const void* const* pixels, int64_t channels, float* places,
                          int64_t place_stride);
  // The places of 2x2 pixels to which these pixels are what the results of a tile are to its
  // product: the transpose of `transform_result`.
  void (*transform_gradient)(DataType, const void* const* pixels, int64_t channels, float* places,
                             int64_t place_stride);
  // Places to the 2x2 pixels of a tile, and what follows: plus a bias and other pixels, both of
  // which may be null, and not below zero.
  void (*transform_result)(DataType, const float* places, int64_t place_stride, int64_t channels,
                           const float* bias, const void* const* addends, bool relu,
                           void* const* pixels);
  // The 3x3 taps of channels of one output channel, from tap to tap `tap_stride` apart, or those
  // turned by 180 degrees; `channel_stride` is between the channels' results.
  void (*transform_weight)(DataType, const void* taps, int64_t tap_stride, int64_t channels,
                           bool turned, float* places, int64_t place_stride,
                           int64_t channel_stride);
  // The places of the gradient of channels' weights to their 3x3 taps: the transpose of
  // `transform_weight`.
  void (*transform_weight_gradient)(const float* places, int64_t place_stride, int64_t channels,
                                    float* taps, int64_t tap_stride);
};

#define CNNGRAPH_DECLARE_WINOGRAD(capability) \
  namespace capability {                      \
  extern const WinogradKernels winograd;      \
  }
CNNGRAPH_DECLARE_WINOGRAD(baseline)
CNNGRAPH_DECLARE_WINOGRAD(avx2)
CNNGRAPH_DECLARE_WINOGRAD(avx512)
#undef CNNGRAPH_DECLARE_WINOGRAD

}  // namespace cnngraph
