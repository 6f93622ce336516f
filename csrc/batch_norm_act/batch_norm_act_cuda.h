// The launches of batch_norm_act_cuda.cu. All pointers are to device memory; launches are
// asynchronous.
#pragma once

#include <cuda_runtime_api.h>

#include "batch_norm_act_kernels.h"

namespace cnngraph {
namespace cuda {

struct BatchNormAct {
  DataType data_type;
  Activation activation;
  ActivationArguments arguments;
  double eps;
  Block block;
  const void* input;
  const void* residual;       // like the input, or null
  const void* output;         // likewise: for `backward`, a ReLU's output instead of the residual
  const void *weight, *bias;  // in the type of computation, or null
  const void *mean, *var;     // likewise, given or written by `statistics`
  void* workspace;            // workspace_bytes of it
  cudaStream_t stream;
};

int64_t workspace_bytes(const Block& block);

cudaError_t statistics(const BatchNormAct& call, void* mean, void* var);
cudaError_t forward(const BatchNormAct& call, void* output);
// Writes dinput, dweight and dbias where they are not null, the latter two in the type of
// computation. With a residual or an output, dresidual must not be null and is written too.
cudaError_t backward(const BatchNormAct& call, const void* grad_output, bool batch_statistics,
                     void* dinput, void* dweight, void* dbias, void* dresidual);

// For other operators. The workspace contains the table of coefficients, with rows in the order of
// Coefficients (slope and offset are zero until they are added to), followed by a row of sums for
// each part of plan_to_reduce.
void make_table(const BatchNormAct& call);
void* partials_of(const BatchNormAct& call);
// Adds up the sums of dz and dz * (x - mean), and adds the terms of dx to `slope` and `offset`.
// dweight and dbias may be null; if the statistics are fixed, `slope` and `offset` may be too.
void finish_sums(const BatchNormAct& call, int64_t parts, void* slope, void* offset, void* dweight,
                 void* dbias);

}  // namespace cuda
}  // namespace cnngraph
