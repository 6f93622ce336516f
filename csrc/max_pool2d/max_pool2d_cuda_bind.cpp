// The CUDA implementation of the operators: allocates with torch and launches the kernels of
// max_pool2d_cuda.cu on torch's current stream. Not yet run on a GPU.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "max_pool2d.h"
#include "max_pool2d_cuda.h"

namespace cnngraph {
namespace {

using at::Tensor;

std::tuple<Tensor, Tensor> max_pool2d_cuda(const Tensor& input, at::IntArrayRef kernel_size,
                                           at::IntArrayRef stride, at::IntArrayRef padding,
                                           at::IntArrayRef dilation, bool ceil_mode, bool relu,
                                           bool return_indices) {
  const c10::cuda::CUDAGuard guard(input.device());
  MaxPool2dForward call(input, check_window(kernel_size, stride, padding, dilation), ceil_mode,
                        relu, return_indices);
  if (call.output.numel() > 0) {
    C10_CUDA_CHECK(cuda::max_pool2d(
        call.data_type, call.pool, call.input.const_data_ptr(), call.output.mutable_data_ptr(),
        return_indices ? call.indices.mutable_data_ptr<uint8_t>() : nullptr,
        c10::cuda::getCurrentCUDAStream().stream()));
  }
  return {call.output, call.indices};
}

Tensor max_pool2d_backward_cuda(const Tensor& grad_output, const Tensor& indices, int64_t height,
                                int64_t width, at::IntArrayRef kernel_size, at::IntArrayRef stride,
                                at::IntArrayRef padding, at::IntArrayRef dilation) {
  const c10::cuda::CUDAGuard guard(grad_output.device());
  MaxPool2dBackward call(grad_output, indices, height, width,
                         check_window(kernel_size, stride, padding, dilation));
  if (call.grad_input.numel() > 0) {
    C10_CUDA_CHECK(cuda::max_pool2d_backward(
        call.data_type, call.pool, call.grad_output.const_data_ptr(),
        call.indices.const_data_ptr<uint8_t>(), call.grad_input.mutable_data_ptr(),
        c10::cuda::getCurrentCUDAStream().stream()));
  }
  return call.grad_input;
}

TORCH_LIBRARY_IMPL(cnngraph, CUDA, library) {
  library.impl("max_pool2d", &max_pool2d_cuda);
  library.impl("max_pool2d_backward", &max_pool2d_backward_cuda);
}

}  // namespace
}  // namespace cnngraph
