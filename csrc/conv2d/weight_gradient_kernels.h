// What the loops of a convolution's weight gradient agree on with their caller: plain numbers and
// pointers, so that they compile without torch, once per CPU capability.
#pragma once

#include <stdint.h>

#include "../data_type.h"

namespace cnngraph {

// One row of a channels_last map, taken apart into panels: panel p holds the channels
// [p * width, (p + 1) * width) of every position, position after position, padded with zeros.
// Position j begins at element `first + j * step` of the row; what lies outside it is zero.
struct RowOfMap {
  int64_t elements;  // 0 for a row that is all padding
  int64_t first, step, positions;
  int64_t channels;
};

// The positions that a tile is summed over: `rows` rows of `positions`, at these offsets in a panel
// of each operand, a step apart. A register sums `together` of them and then joins the tile's
// memory: rounding errors grow with the number of terms, so both sums should have about as many.
struct SummedPositions {
  int64_t rows, positions, together;
  const int64_t *a_offsets, *b_offsets;
  int64_t a_step, b_step;
};

struct WeightGradientKernels {
  // A tile has `height` channels of operand a, and `width` of operand b. Panels of a are `height`
  // wide, those of b `width`. After each panel there must be room for `overrun` more floats.
  static constexpr int64_t overrun = 16;
  int64_t height, width;

  // Of float32 or bfloat16.
  void (*pack_a)(DataType, const void* row, RowOfMap, float* panels, int64_t panel_stride);
  void (*pack_b)(DataType, const void* row, RowOfMap, float* panels, int64_t panel_stride);
  // tile[i][j] = sum over positions of a[i] * b[j], or that added to it
  void (*multiply)(const float* a, const float* b, SummedPositions, bool add, float* tile);
};

#define CNNGRAPH_DECLARE_WEIGHT_GRADIENT(capability)  \
  namespace capability {                              \
  extern const WeightGradientKernels weight_gradient; \
  }
CNNGRAPH_DECLARE_WEIGHT_GRADIENT(baseline)
CNNGRAPH_DECLARE_WEIGHT_GRADIENT(avx2)
CNNGRAPH_DECLARE_WEIGHT_GRADIENT(avx512)
#undef CNNGRAPH_DECLARE_WEIGHT_GRADIENT

}  // namespace cnngraph
