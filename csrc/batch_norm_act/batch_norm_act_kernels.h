// The interface of batch_norm_act's kernels: plain numbers and pointers, so that they compile
// without torch, once per CPU capability, and with nvcc alone.
#pragma once

#include <stdint.h>

#include "../data_type.h"

namespace cnngraph {

enum class Activation {
  identity,
  relu,
  hardtanh,
  leaky_relu,
  elu,
  silu,
  gelu,
  gelu_tanh,
  sigmoid,
  tanh,
  hardsigmoid,
  hardswish,
  mish,
};

struct ActivationArguments {
  double first = 0, second = 0;
};

// Part of tensors viewed as [outer][channels][inner]. inner == 1 is channels_last (outer counts
// pixels); else outer counts samples. The distance between outer indices is `x_stride` elements in
// the input and `y_stride` in the output and its gradient; each may be a slice of the channels of
// a larger tensor. In all others (input gradient, residual, dz) it is `dense_stride`.
struct Block {
  int64_t outer, channels, inner, x_stride, y_stride, dense_stride;

  struct Offset {  // of the same element in each of them
    int64_t x, y, dense;
    CNNGRAPH_ELEMENTWISE Offset operator+(int64_t i) const { return {x + i, y + i, dense + i}; }
  };
  CNNGRAPH_ELEMENTWISE Offset offset(int64_t outer_index, int64_t channel) const {
    const int64_t within = channel * inner;
    return {outer_index * x_stride + within, outer_index * y_stride + within,
            outer_index * dense_stride + within};
  }
};

// Per channel, in the type of computation (double for float64, else float). Forward and backward
// use the same formula z = (x - mean) * scale + shift, and so are on the same side of every kink.
// dx = dz * scale + (x - mean) * slope + offset. See coefficients.h.
struct Coefficients {
  const void *mean, *scale, *shift, *slope, *offset;
};

struct BatchNormActKernels {
  // `scratch` always has scratch_per_channel doubles per channel of the block.
  static constexpr int64_t scratch_per_channel = 4;

  // `streams`: stores bypass the caches. The tensor, its rows or planes, and their sizes are then
  // multiples of this many bytes.
  static constexpr int64_t streams_by = 64;

  // Mean and sum of squared deviations of a block, per channel.
  void (*statistics)(DataType, const void* x, Block, double* mean, double* m2, double* scratch);
  // Merges `parts` rows of statistics (Chan et al.), `stride` apart; row p covers counts[p] values.
  void (*merge_statistics)(int64_t parts, int64_t channels, int64_t stride, const double* counts,
                           const double* means, const double* m2s, double* mean, double* m2);
  // `residual` is added before the activation; it may be null.
  void (*forward)(DataType, Activation, ActivationArguments, const void* x, const void* residual,
                  Coefficients, void* y, Block, bool streams);
  // Per channel: the sums of dz and of dz * (x - mean), where dz is the gradient before the
  // activation. With a residual dz is also written, as the residual's gradient. The `output` of a
  // ReLU, with the layout of the residual, may be given instead of the residual.
  void (*backward_sums)(DataType, Activation, ActivationArguments, const void* x,
                        const void* residual, const void* output, const void* dy, Coefficients,
                        void* dz, Block, double* sum_dz, double* sum_dz_x, double* scratch,
                        bool streams);
  // If dz was written, `dy` is dz, the activation is the identity and y_stride is dense_stride.
  void (*backward)(DataType, Activation, ActivationArguments, const void* x, const void* dy,
                   Coefficients, void* dx, Block, bool streams);
};

CNNGRAPH_DECLARE_KERNELS(BatchNormActKernels, batch_norm_act)

}  // namespace cnngraph
