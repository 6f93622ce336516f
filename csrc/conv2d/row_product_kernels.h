// The interface of the loops of a product of rows: plain numbers and pointers, so that they compile
// without torch, once per CPU capability.
#pragma once

#include "../data_type.h"

namespace cnngraph {

// result[r][c] = sum over d of rows[r][d] * panel[d][c], or that added to it, for one panel of
// columns.
struct RowProductKernels {
  // A panel has `width` columns, and `height` rows are multiplied at a time. width_multiple is a
  // multiple of the width for every capability.
  static constexpr int64_t width_multiple = 32;
  int64_t height, width;

  // Reads all columns of the panel and writes the first `columns`.
  void (*multiply)(const float* rows, int64_t count, int64_t row_stride, const float* panel,
                   int64_t depth, bool add, float* results, int64_t result_stride, int64_t columns);

  // normalised = max(rows * scale + shift, 0), where NaN stays.
  void (*normalise)(const float* rows, int64_t count, int64_t row_stride, int64_t columns,
                    const float* scale, const float* shift, float* normalised,
                    int64_t normalised_stride);

  // results = clamp(results + bias + addends, low, high), where NaN stays. Bias and addends may be
  // null; addends are laid out as the results.
  void (*finish)(float* results, int64_t count, int64_t stride, int64_t columns, const float* bias,
                 const float* addends, float low, float high);
};

CNNGRAPH_DECLARE_KERNELS(RowProductKernels, row_product)

}  // namespace cnngraph
