// The launches of max_pool2d_cuda.cu. All pointers are to the device's memory; nothing waits
// for it.
#pragma once

#include <cuda_runtime_api.h>

#include "max_pool2d_kernels.h"

namespace cnngraph {
namespace cuda {

// `indices` may be null.
cudaError_t max_pool2d(DataType data_type, const Pool& pool, const void* input, void* output,
                       uint8_t* indices, cudaStream_t stream);
cudaError_t max_pool2d_backward(DataType data_type, const Pool& pool, const void* grad_output,
                                const uint8_t* indices, void* grad_input, cudaStream_t stream);

}  // namespace cuda
}  // namespace cnngraph
