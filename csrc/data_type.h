// What kernels and their callers agree on, with and without torch: element types, tables of kernels
// compiled once per CPU capability, and integer arithmetic.
#pragma once

#include <stdint.h>

#include "platform.h"

#if defined(__CUDACC__)
#define CNNGRAPH_ELEMENTWISE __host__ __device__ __forceinline__
#else
#define CNNGRAPH_ELEMENTWISE inline __attribute__((always_inline))
#endif

// Declares the table `name` of every capability; CNNGRAPH_KERNELS_IN_USE chooses one of them.
#define CNNGRAPH_DECLARE_KERNELS(Table, name) \
  namespace baseline {                        \
  extern const Table name;                    \
  }                                           \
  namespace avx2 {                            \
  extern const Table name;                    \
  }                                           \
  namespace avx512 {                          \
  extern const Table name;                    \
  }

namespace cnngraph {

enum class DataType { float32, float64, bfloat16, float16 };

CNNGRAPH_ELEMENTWISE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
CNNGRAPH_ELEMENTWISE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
CNNGRAPH_ELEMENTWISE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
CNNGRAPH_ELEMENTWISE int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

}  // namespace cnngraph
