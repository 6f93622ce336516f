// Tiles of the maps of Winograd's convolution, and buffers for a block of tiles.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <type_traits>

#include "../cpu/capability.h"
#include "../cpu/range.h"
#include "../data_type_of.h"
#include "row_product_kernels.h"
#include "winograd_kernels.h"

namespace cnngraph {

// With tiles of 2x2 or 4x4 results.
inline const WinogradKernels& winograd_kernels(int64_t tile) {
  return tile == 2 ? CNNGRAPH_KERNELS_IN_USE(winograd_2x2) : CNNGRAPH_KERNELS_IN_USE(winograd_4x4);
}
inline const RowProductKernels& row_product() { return CNNGRAPH_KERNELS_IN_USE(row_product); }

// The pixels of a map by row and column; all pixels outside of it are `outside`.
template <class Memory>
class Pixels {
 public:
  // Starts at the map's channel `channel`.
  Pixels(const at::Tensor& map, Memory* data, Memory* outside, int64_t channel = 0)
      : data_(static_cast<Byte*>(data) + channel * map.element_size()),
        outside_(outside),
        height_(map.size(2)),
        width_(map.size(3)),
        bytes_(map.size(1) * map.element_size()) {}

  using Square =
      std::array<Memory*, WinogradKernels::largest_patch * WinogradKernels::largest_patch>;

  // The `size` x `size` pixels with this upper left corner.
  Square square(int64_t size, int64_t image, int64_t top, int64_t left) const {
    Square result;
    for (int64_t y = top; y < top + size; ++y) {
      for (int64_t x = left; x < left + size; ++x) {
        const bool inside = y >= 0 && y < height_ && x >= 0 && x < width_;
        result[(y - top) * size + x - left] =
            inside ? data_ + ((image * height_ + y) * width_ + x) * bytes_ : outside_;
      }
    }
    return result;
  }

 private:
  using Byte = std::conditional_t<std::is_const_v<Memory>, const char, char>;

  Byte* data_;
  Memory* outside_;
  int64_t height_, width_, bytes_;
};

// The tiles of `size` x `size` pixels that cover a map.
struct Tiles {
  int64_t size, rows, columns, count;

  Tiles(int64_t size, int64_t images, int64_t height, int64_t width)
      : size(size),
        rows(ceil_div(height, size)),
        columns(ceil_div(width, size)),
        count(images * rows * columns) {}

  template <class Body>
  void each(Range range, Body body) const {
    for (int64_t tile = range.begin; tile < range.end; ++tile) {
      const int64_t row = tile / columns;
      body(tile - range.begin, row / rows, row % rows * size, tile % columns * size);
    }
  }
};

// The places of the tiles of a block, tile by tile.
struct Places {
  int64_t tile_stride, stride;
  std::unique_ptr<float[]> values;

  // Channel counts are mostly powers of two; as strides these map to few cache lines.
  Places(int64_t places, int64_t tiles, int64_t channels)
      : tile_stride(round_up(channels, row_product().width) + 16),
        stride(tiles * tile_stride),
        values(new float[places * stride]) {}

  float* tile(int64_t index) const { return values.get() + index * tile_stride; }
  float* of_place(int64_t place) const { return values.get() + place * stride; }
};

}  // namespace cnngraph
