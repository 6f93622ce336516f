// The interface of the loops of linear layers: plain numbers and pointers, so that they compile
// without torch, once per CPU capability.
#pragma once

#include <stdint.h>

#include "../cpu/range.h"
#include "../data_type.h"

namespace cnngraph {

// A matrix of float32 with strides in elements.
struct Factor {
  const float* data;
  int64_t row_stride, column_stride;
};

// Products of matrices of few rows with one that is too large for the cache and is read or written
// once. Matrices are row-major, except a Factor. The one with a DataType is float32 or bfloat16;
// the others are float32.
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

CNNGRAPH_DECLARE_KERNELS(LinearKernels, linear)

}  // namespace cnngraph
