// The CPU implementation around the loops: rows and planes are independent, and run in parallel.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <memory>

#include "../cpu/capability.h"
#include "max_pool2d.h"

namespace cnngraph {
namespace {

using at::Tensor;

const MaxPool2dKernels& kernels() { return CNNGRAPH_KERNELS_IN_USE(max_pool2d); }

constexpr int64_t elements_of_task = 32 * 1024;

// Calls body(begin, end) over `count` rows or planes of `elements` elements each.
template <class Body>
void in_parallel(int64_t count, int64_t elements, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, elements_of_task / std::max<int64_t>(1, elements));
  at::parallel_for(0, count, grain, body);
}

std::tuple<Tensor, Tensor> max_pool2d_cpu(const Tensor& input, at::IntArrayRef kernel_size,
                                          at::IntArrayRef stride, at::IntArrayRef padding,
                                          at::IntArrayRef dilation, bool ceil_mode, bool relu,
                                          bool return_indices) {
  MaxPool2dForward call(input, check_window(kernel_size, stride, padding, dilation), ceil_mode,
                        relu, return_indices);
  const Pool& pool = call.pool;
  const int64_t maps = pool.channels_last ? pool.samples : pool.samples * pool.channels;
  const void* x = call.input.const_data_ptr();
  void* y = call.output.mutable_data_ptr();
  auto* indices = return_indices ? call.indices.mutable_data_ptr<uint8_t>() : nullptr;
  in_parallel(maps * pool.height.out_size,
              pool.width.out_size * (pool.channels_last ? pool.channels : 1),
              [&](int64_t begin, int64_t end) {
                kernels().forward(call.data_type, pool, begin, end, x, y, indices);
              });
  return {call.output, call.indices};
}

Tensor max_pool2d_backward_cpu(const Tensor& grad_output, const Tensor& indices, int64_t height,
                               int64_t width, at::IntArrayRef kernel_size, at::IntArrayRef stride,
                               at::IntArrayRef padding, at::IntArrayRef dilation) {
  MaxPool2dBackward call(grad_output, indices, height, width,
                         check_window(kernel_size, stride, padding, dilation));
  const Pool& pool = call.pool;
  const int64_t pixels = height * width;
  const void* dy = call.grad_output.const_data_ptr();
  const auto* index = call.indices.const_data_ptr<uint8_t>();
  void* dx = call.grad_input.mutable_data_ptr();
  const bool rows = pool.channels_last;
  in_parallel(rows ? pool.samples * height : pool.samples * pool.channels,
              rows ? width * pool.channels : pixels, [&](int64_t begin, int64_t end) {
                std::unique_ptr<double[]> scratch(rows ? nullptr : new double[pixels]);
                kernels().backward(call.data_type, pool, begin, end, dy, index, dx, scratch.get());
              });
  return call.grad_input;
}

TORCH_LIBRARY_IMPL(cnngraph, CPU, library) {
  library.impl("max_pool2d", &max_pool2d_cpu);
  library.impl("max_pool2d_backward", &max_pool2d_backward_cpu);
}

}  // namespace
}  // namespace cnngraph
