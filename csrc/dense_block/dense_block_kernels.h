// The interface of dense_block's loops: plain numbers and pointers, so that they compile without
// torch, once per CPU capability.
#pragma once

#include "../batch_norm_act/batch_norm_act_kernels.h"

namespace cnngraph {

// The start of a block in a tensor, and the distance between its outer indices in elements. The
// tensors of one call have the same channels and pixels but different strides.
struct Strided {
  const void* data;
  int64_t stride;
};

struct MutableStrided {
  void* data;
  int64_t stride;
};

// Blocks are batch_norm_act's; their strides are ignored. z = (x - mean) * scale + shift.
struct DenseBlockKernels {
  // sum = addend + dz * scale, where dz is the gradient before the activation; `addend` may be
  // `sum`. Per channel, also the sums of dz and of dz * (x - mean).
  void (*backward)(DataType, Activation, ActivationArguments, Strided x, Strided dy, Strided addend,
                   Coefficients, MutableStrided sum, Block, double* sum_dz, double* sum_dz_x,
                   double* scratch);
  // dx = partial + (x - mean) * slope + offset.
  void (*finish)(DataType, Strided x, Strided partial, const void* mean, const void* slope,
                 const void* offset, MutableStrided dx, Block);
};

CNNGRAPH_DECLARE_KERNELS(DenseBlockKernels, dense_block)

}  // namespace cnngraph
