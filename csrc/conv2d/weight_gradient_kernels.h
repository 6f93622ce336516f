// The interface of the loops of a convolution's weight gradient: plain numbers and pointers, so
// that they compile without torch, once per CPU capability.
#pragma once

#include <stdint.h>

#include "../data_type.h"

namespace cnngraph {

// One row of a channels_last map, to be packed into panels: panel p has the channels
// [p * width, (p + 1) * width) of every position, position after position, padded with zeros.
// Position j begins at element `first + j * step` of the row; elements outside of it are zero.
struct RowOfMap {
  int64_t elements;  // 0 for a row that is all padding
  int64_t first, step, positions;
  int64_t channels;
};

// The positions that a tile is summed over: `rows` rows of `positions` each, at these offsets in a
// panel of each operand and a step apart. A register sums `together` of them and is then added to
// the tile's memory: rounding errors grow with the number of terms, so both sums should have about
// the same number.
struct SummedPositions {
  int64_t rows, positions, together;
  const int64_t *a_offsets, *b_offsets;
  int64_t a_step, b_step;
};

struct WeightGradientKernels {
  // A tile has `height` channels of operand a and `width` of operand b; panels of a and b are as
  // wide. Each panel must be followed by `overrun` writable floats.
  static constexpr int64_t overrun = 16;
  int64_t height, width;

  // Of float32 or bfloat16.
  void (*pack_a)(DataType, const void* row, RowOfMap, float* panels, int64_t panel_stride);
  void (*pack_b)(DataType, const void* row, RowOfMap, float* panels, int64_t panel_stride);
  // tile[i][j] = sum over positions of a[i] * b[j], or that added to it
  void (*multiply)(const float* a, const float* b, SummedPositions, bool add, float* tile);
};

CNNGRAPH_DECLARE_KERNELS(WeightGradientKernels, weight_gradient)

}  // namespace cnngraph
