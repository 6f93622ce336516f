// The loops of a product of rows, compiled once per capability; sums of a tile are in registers.
#pragma once

#include "row_product_kernels.h"
#include "tile_of_sums.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {
namespace {

// As many as the registers can sum, with two vectors of a panel and a value of a row: 15 of 16
// registers are used, and 27 of the 32 of AVX-512. More rows would need more addresses than there
// are general registers.
constexpr int tile_height = CNNGRAPH_VECTOR_BYTES == 64 ? 12 : 6;

template <int height>
struct Sums {
  Floats values[height][vectors_of_tile] = {};

  CNNGRAPH_INLINE void write(bool add, float* results, int64_t stride) {
#pragma GCC unroll 12
    for (int i = 0; i < height; ++i, results += stride) {
#pragma GCC unroll 2
      for (int v = 0; v < vectors_of_tile; ++v) {
        if (add) values[i][v] += Memory<float>::load(results + v * lanes);
        Memory<float>::store(results + v * lanes, values[i][v]);
      }
    }
  }
};

// Writes the first columns of a tile.
void write_columns(const float* tile, int64_t height, int64_t columns, bool add, float* results,
                   int64_t stride) {
  for (; height > 0; --height, tile += tile_width, results += stride) {
    for (int64_t i = 0; i < columns; ++i) results[i] = add ? results[i] + tile[i] : tile[i];
  }
}

template <int height>
void multiply_tile(const float* rows, int64_t row_stride, const float* panel, int64_t depth,
                   bool add, float* results, int64_t result_stride, int64_t columns) {
  Sums<height> sums;
  for (int64_t d = 0; d < depth; ++d, ++rows, panel += tile_width) {
    Floats right[vectors_of_tile];
#pragma GCC unroll 2
    for (int v = 0; v < vectors_of_tile; ++v) right[v] = Memory<float>::load(panel + v * lanes);
#pragma GCC unroll 12
    for (int i = 0; i < height; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < vectors_of_tile; ++v)
        sums.values[i][v] += rows[i * row_stride] * right[v];
    }
  }
  if (columns == tile_width) return sums.write(add, results, result_stride);
  float tile[height * tile_width];
  sums.write(/*add=*/false, tile, tile_width);
  write_columns(tile, height, columns, add, results, result_stride);
}

// The remaining rows, fewer than a tile.
template <int height, class... Arguments>
void multiply_rest(int64_t count, Arguments... arguments) {
  if constexpr (height > 0) {
    if (count == height) return multiply_tile<height>(arguments...);
    multiply_rest<height - 1>(count, arguments...);
  }
}

void multiply_rows(const float* rows, int64_t count, int64_t row_stride, const float* panel,
                   int64_t depth, bool add, float* results, int64_t result_stride,
                   int64_t columns) {
  for (; count >= tile_height; count -= tile_height) {
    multiply_tile<tile_height>(rows, row_stride, panel, depth, add, results, result_stride,
                               columns);
    rows += tile_height * row_stride;
    results += tile_height * result_stride;
  }
  multiply_rest<tile_height - 1>(count, rows, row_stride, panel, depth, add, results, result_stride,
                                 columns);
}

void normalise_rows(const float* rows, int64_t count, int64_t row_stride, int64_t columns,
                    const float* scale, const float* shift, float* normalised,
                    int64_t normalised_stride) {
  for (int64_t row = 0; row < count; ++row, rows += row_stride, normalised += normalised_stride) {
    for_each_vector_of_channels<float>(
        columns, [&](auto extent, int64_t column) CNNGRAPH_LAMBDA_INLINE {
          const Floats value = extent.load(rows + column) * extent.load(scale + column) +
                               extent.load(shift + column);
          extent.store(normalised + column, clamp(value, 0, __builtin_inff()));
        });
  }
}

void finish_rows(float* results, int64_t count, int64_t stride, int64_t columns, const float* bias,
                 const float* addends, float low, float high) {
  for (int64_t row = 0; row < count; ++row, results += stride) {
    for_each_vector_of_channels<float>(columns,
                                       [&](auto extent, int64_t column) CNNGRAPH_LAMBDA_INLINE {
                                         Floats value = extent.load(results + column);
                                         if (bias) value += extent.load(bias + column);
                                         if (addends)
                                           value += extent.load(addends + row * stride + column);
                                         extent.store(results + column, clamp(value, low, high));
                                       });
  }
}

}  // namespace

extern const RowProductKernels row_product = {tile_height, tile_width, multiply_rows,
                                              normalise_rows, finish_rows};

}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
