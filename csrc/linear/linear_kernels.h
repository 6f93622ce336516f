// What the loops of linear layers agree on with their caller: plain numbers and pointers, so that
// they compile without torch, once per CPU capability.
#pragma once

#include <stdint.h>

#include "../cpu/range.h"
#include "../data_type.h"

namespace cnngraph {

// A matrix: where it begins, and the elements from one row, or column, to the next.
struct Factor {
  const float* data;
  int64_t row_stride, column_stride;
};

// Matrices of few rows times one that is too large for the cache, and is read or written once. All
// lie row after row, but for a Factor; all are float32 but for those with a DataType, which may be
// bfloat16 as well.
struct LinearKernels {
  // to[n][o] += sum over i of x[n][i] * weight[o][i], for some of the outputs.
  void (*multiply_transposed)(DataType, const float* x, const void* weight, int64_t rows,
                              int64_t inputs, int64_t outputs, Range some_outputs, float* to);
  // to[r][c] += sum over k of factor[r][k] * matrix[k][c], for some of the columns.
  void (*multiply)(DataType, Factor, const void* matrix, int64_t rows, int64_t terms,
                   int64_t columns, Range some_columns, float* to);
  // to[r][c] = sum over k of factor[r][k] * matrix[k][c], for some of the rows.
  void (*outer_product)(DataType, Factor, const float* matrix, Range some_rows, int64_t terms,
                        int64_t columns, void* to);
};

#define CNNGRAPH_DECLARE_LINEAR(capability) \
  namespace capability {                    \
  extern const LinearKernels linear;        \
  }
CNNGRAPH_DECLARE_LINEAR(baseline)
CNNGRAPH_DECLARE_LINEAR(avx2)
CNNGRAPH_DECLARE_LINEAR(avx512)
#undef CNNGRAPH_DECLARE_LINEAR

}  // namespace cnngraph
