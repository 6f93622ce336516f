// The launches of dense_block_cuda.cu: the passes that batch_norm_act lacks. All pointers are to
// device memory; launches are asynchronous.
#pragma once

#include "../batch_norm_act/batch_norm_act_cuda.h"
#include "dense_block_kernels.h"

namespace cnngraph {
namespace cuda {

// sum = addend + dz * scale, where dz is the gradient before the activation; `addend` may be
// `sum`. Adds to `slope` and `offset` as finish_sums does, and writes dweight and dbias.
cudaError_t add_gradient(const BatchNormAct& norm, const void* dy, Strided addend,
                         MutableStrided sum, void* slope, void* offset, void* dweight, void* dbias);

// dx = partial + (x - mean) * slope + offset. The block's strides are ignored.
cudaError_t finish_gradient(DataType data_type, const Block& block, Strided x, Strided partial,
                            const void* mean, const void* slope, const void* offset,
                            MutableStrided dx, cudaStream_t stream);

}  // namespace cuda
}  // namespace cnngraph
