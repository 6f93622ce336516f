// Shared by both backends of max_pool2d: argument checks and memory layouts.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <array>

#include "max_pool2d_kernels.h"

namespace cnngraph {

struct PoolWindow {
  std::array<int64_t, 2> kernel_size, stride, padding, dilation;
};

// One number stands for both axes; without a stride it is the kernel's size, as in torch.
PoolWindow check_window(at::IntArrayRef kernel_size, at::IntArrayRef stride,
                        at::IntArrayRef padding, at::IntArrayRef dilation);

// A checked call; its tensors are dense in the layout that the kernels walk.
struct MaxPool2dForward {
  Pool pool;
  DataType data_type;
  at::Tensor input, output;
  at::Tensor indices;  // empty unless requested

  MaxPool2dForward(const at::Tensor& input, const PoolWindow& window, bool ceil_mode, bool relu,
                   bool return_indices);
};

struct MaxPool2dBackward {
  Pool pool;
  DataType data_type;
  at::Tensor grad_output, indices, grad_input;

  MaxPool2dBackward(const at::Tensor& grad_output, const at::Tensor& indices, int64_t height,
                    int64_t width, const PoolWindow& window);
};

}  // namespace cnngraph
