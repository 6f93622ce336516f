// What the loops of a product of rows agree on with their callers: plain numbers and pointers, so
// that they compile without torch, once per CPU capability.
#pragma once

#include <stdint.h>

namespace cnngraph {

// result[r][c] = sum over d of rows[r][d] * panel[d][c], for one panel of columns.
struct RowProductKernels {
  // A panel holds `width` columns, and `height` rows are multiplied at a time. `room` is a multiple
  // of the width on every processor.
  static constexpr int64_t room = 32;
  int64_t height, width;

  // Of the panel's columns the first `columns` are written, all of which are read.
  void (*multiply)(const float* rows, int64_t count, int64_t row_stride, const float* panel,
                   int64_t depth, float* results, int64_t result_stride, int64_t columns);
};

#define CNNGRAPH_DECLARE_ROW_PRODUCT(capability) \
  namespace capability {                         \
  extern const RowProductKernels row_product;    \
  }
CNNGRAPH_DECLARE_ROW_PRODUCT(baseline)
CNNGRAPH_DECLARE_ROW_PRODUCT(avx2)
CNNGRAPH_DECLARE_ROW_PRODUCT(avx512)
#undef CNNGRAPH_DECLARE_ROW_PRODUCT

}  // namespace cnngraph
