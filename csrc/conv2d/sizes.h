// The sizes of a convolution.
#pragma once

#include <array>
#include <cstdint>

namespace cnngraph {

struct ConvGeometry {
  std::array<int64_t, 2> stride, padding, dilation;
  int64_t groups;
};

struct ConvSizes {
  int64_t images, in_channels, out_channels;
  std::array<int64_t, 2> input, output, kernel;  // heights and widths
  ConvGeometry geometry;

  int64_t positions() const { return images * output[0] * output[1]; }  // of the results
  int64_t macs() const {
    return positions() * out_channels * (in_channels / geometry.groups) * kernel[0] * kernel[1];
  }
};

}  // namespace cnngraph
