// The launches of batch_norm_act_cuda.cu. All pointers are to the device's memory; nothing waits
// for it.
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
  const void* output;         // likewise: a ReLU's, for `backward`, in the residual's place
  const void *weight, *bias;  // in the type of computation, or null
  const void *mean, *var;     // likewise, given or written by `statistics`
  void* workspace;            // workspace_bytes of it
  cudaStream_t stream;
};

int64_t workspace_bytes(const Block& block);

cudaError_t statistics(const BatchNormAct& call, void* mean, void* var);
cudaError_t forward(const BatchNormAct& call, void* output);
// Writes those of dinput, dweight and dbias that are not null, the latter two in the type of
// computation. With a residual, or the output in its place, dresidual is written too: not null.
cudaError_t backward(const BatchNormAct& call, const void* grad_output, bool batch_statistics,
                     void* dinput, void* dweight, void* dbias, void* dresidual);

}  // namespace cuda
}  // namespace cnngraph
