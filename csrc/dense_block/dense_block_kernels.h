// What the loops of dense_block agree on with their caller: plain numbers and pointers, so that
// they compile without torch, once per CPU capability.
#pragma once

#include "../batch_norm_act/batch_norm_act_kernels.h"

namespace cnngraph {

// Where a block begins in a tensor, and the elements from one of its outer indices to the next: the
// tensors of one call have the same channels and pixels, in rows of different lengths.
struct Strided {
  const void* data;
  int64_t stride;
};

struct MutableStrided {
  void* data;
  int64_t stride;
};

// Blocks are those of batch_norm_act, but for their strides, which are not read. z is normalised as
// there: (x - mean) * scale + shift.
struct DenseBlockKernels {
  // sum = addend + dz * scale, with dz the gradient before the activation; `addend` may be where
  // `sum` is. Per channel: the sums of dz, and of dz * (x - mean).
  void (*backward)(DataType, Activation, ActivationArguments, Strided x, Strided dy, Strided addend,
                   Coefficients, MutableStrided sum, Block, double* sum_dz, double* sum_dz_x,
                   double* scratch);
  // dx = partial + (x - mean) * slope + offset.
  void (*finish)(DataType, Strided x, Strided partial, const void* mean, const void* slope,
                 const void* offset, MutableStrided dx, Block);
};

#define CNNGRAPH_DECLARE_DENSE_BLOCK(capability) \
  namespace capability {                         \
  extern const DenseBlockKernels dense_block;    \
  }
CNNGRAPH_DECLARE_DENSE_BLOCK(baseline)
CNNGRAPH_DECLARE_DENSE_BLOCK(avx2)
CNNGRAPH_DECLARE_DENSE_BLOCK(avx512)
#undef CNNGRAPH_DECLARE_DENSE_BLOCK

}  // namespace cnngraph
