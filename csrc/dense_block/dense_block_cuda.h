// The launches of dense_block_cuda.cu: the passes that batch_norm_act has not. All pointers are to
// the device's memory; nothing waits for it.
#pragma once

#include "../batch_norm_act/batch_norm_act_cuda.h"
#include "dense_block_kernels.h"

namespace cnngraph {
namespace cuda {

// sum = addend + dz * scale, with dz the gradient before the activation; `addend` may be where
// `sum` is. Adds to `slope` and `offset` as finish_sums does, and writes dweight and dbias.
cudaError_t add_gradient(const BatchNormAct& norm, const void* dy, Strided addend,
                         MutableStrided sum, void* slope, void* offset, void* dweight, void* dbias);

// dx = partial + (x - mean) * slope + offset. The block's strides are not read.
cudaError_t finish_gradient(DataType data_type, const Block& block, Strided x, Strided partial,
                            const void* mean, const void* slope, const void* offset,
                            MutableStrided dx, cudaStream_t stream);

}  // namespace cuda
}  // namespace cnngraph
