// What the kernels of batch_norm_act agree on with their callers: plain numbers and pointers, so
// that they compile without torch, once per CPU capability, and with nvcc alone.
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

// Part of tensors seen as [outer][channels][inner]. inner == 1 is channels_last (outer counts
// pixels); else outer counts samples. From one outer index to the next are `x_stride` elements in
// the input, `y_stride` in the output and its gradient: each may be a slice of the channels of a
// larger tensor. In all else (the input's gradient, the residual, dz) they are `dense_stride`.
struct Block {
  int64_t outer, channels, inner, x_stride, y_stride, dense_stride;

  struct Offset {  // where the same element lies in each
    int64_t x, y, dense;
    CNNGRAPH_ELEMENTWISE Offset operator+(int64_t i) const { return {x + i, y + i, dense + i}; }
  };
  CNNGRAPH_ELEMENTWISE Offset offset(int64_t outer_index, int64_t channel) const {
    const int64_t within = channel * inner;
    return {outer_index * x_stride + within, outer_index * y_stride + within,
            outer_index * dense_stride + within};
  }
};

// Per channel, in the type of computation (double for float64, else float). z = (x - mean) * scale
// + shift, by one formula in forward and backward, so that both see the same side of every kink.
// dx = dz * scale + (x - mean) * slope + offset.
struct Coefficients {
  const void *mean, *scale, *shift, *slope, *offset;
};

struct BatchNormActKernels {
  // `scratch` everywhere: room for scratch_per_channel doubles per channel of the block.
  static constexpr int64_t scratch_per_channel = 4;

  // `streams` everywhere: what is written goes past the caches. It begins at multiples of this many
  // bytes then, its rows or planes do too, and they are whole multiples of it.
  static constexpr int64_t streams_by = 64;

  // Mean and sum of squared deviations of a block, per channel.
  void (*statistics)(DataType, const void* x, Block, double* mean, double* m2, double* scratch);
  // Folds the `parts` rows of statistics into one (Chan et al.); row p stands for counts[p] values.
  // Rows are `stride` apart.
  void (*merge_statistics)(int64_t parts, int64_t channels, int64_t stride, const double* counts,
                           const double* means, const double* m2s, double* mean, double* m2);
  // `residual` is added before the activation; null where there is none.
  void (*forward)(DataType, Activation, ActivationArguments, const void* x, const void* residual,
                  Coefficients, void* y, Block, bool streams);
  // Per channel: sum of dz, and of dz * (x - mean), with dz the gradient before the activation.
  // With a residual dz itself is written too: it is the residual's gradient. The `output` of a
  // ReLU, laid out as the residual, may be given in the residual's place.
  void (*backward_sums)(DataType, Activation, ActivationArguments, const void* x,
                        const void* residual, const void* output, const void* dy, Coefficients,
                        void* dz, Block, double* sum_dz, double* sum_dz_x, double* scratch,
                        bool streams);
  // For a dz that was written: `dy` is it, the activation the identity, y_stride dense_stride.
  void (*backward)(DataType, Activation, ActivationArguments, const void* x, const void* dy,
                   Coefficients, void* dx, Block, bool streams);
};

#define CNNGRAPH_DECLARE_BATCH_NORM_ACT(capability) \
  namespace capability {                            \
  extern const BatchNormActKernels batch_norm_act;  \
  }
CNNGRAPH_DECLARE_BATCH_NORM_ACT(baseline)
CNNGRAPH_DECLARE_BATCH_NORM_ACT(avx2)
CNNGRAPH_DECLARE_BATCH_NORM_ACT(avx512)
#undef CNNGRAPH_DECLARE_BATCH_NORM_ACT

}  // namespace cnngraph
