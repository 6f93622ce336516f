// The checks of max_pool2d, by torch's own function where there is one, and the layout.
#include <ATen/ATen.h>
#include <ATen/native/Pool.h>

#include "../checks.h"
#include "../data_type_of.h"
#include "max_pool2d.h"

namespace cnngraph {
namespace {

// Without results yet.
PoolAxis axis_of(const PoolWindow& window, int axis, int64_t size) {
  return {size,
          0,
          window.kernel_size[axis],
          window.stride[axis],
          window.padding[axis],
          window.dilation[axis]};
}

int64_t results_along(const PoolAxis& axis, bool ceil_mode) {
  return at::native::pooling_output_shape<int64_t>(axis.size, axis.kernel, axis.padding,
                                                   axis.stride, axis.dilation, ceil_mode);
}

Pool pool_of(const at::Tensor& tensor, const PoolWindow& window, int64_t height, int64_t width) {
  TORCH_CHECK(tensor.dim() == 4, "max_pool2d: expected an input of 4 dimensions, got ",
              tensor.dim());
  Pool pool = {axis_of(window, 0, height),
               axis_of(window, 1, width),
               tensor.size(0),
               tensor.size(1),
               false,
               false};
  TORCH_CHECK(pool.height.kernel <= most_positions / pool.width.kernel,
              "max_pool2d: a window may have ", most_positions, " positions, got ",
              at::IntArrayRef(window.kernel_size));
  pool.channels_last = tensor.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  return pool;
}

at::MemoryFormat format_of(const Pool& pool) {
  return pool.channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

}  // namespace

PoolWindow check_window(at::IntArrayRef kernel_size, at::IntArrayRef stride,
                        at::IntArrayRef padding, at::IntArrayRef dilation) {
  const char* op = "max_pool2d";
  const auto kernel = check_pair(op, "kernel_size", kernel_size, 1);
  return {kernel, stride.empty() ? kernel : check_pair(op, "stride", stride, 0),
          check_pair(op, "padding", padding, 0), check_pair(op, "dilation", dilation, 1)};
}

MaxPool2dForward::MaxPool2dForward(const at::Tensor& given, const PoolWindow& window,
                                   bool ceil_mode, bool relu, bool return_indices)
    : pool(pool_of(given, window, given.dim() == 4 ? given.size(2) : 0,
                   given.dim() == 4 ? given.size(3) : 0)),
      data_type(data_type_of(given, "max_pool2d")) {
  pool.relu = relu;
  for (PoolAxis* axis : {&pool.height, &pool.width}) {
    axis->out_size = results_along(*axis, ceil_mode);
  }
  const PoolAxis &height = pool.height, &width = pool.width;
  const auto format = format_of(pool);
  at::native::pool2d_shape_check(given, height.kernel, width.kernel, height.stride, width.stride,
                                 height.padding, width.padding, height.dilation, width.dilation,
                                 pool.channels, height.size, width.size, height.out_size,
                                 width.out_size, format);
  check_memory("max_pool2d", "the input", given);
  input = given.contiguous(format);
  const std::array<int64_t, 4> sizes = {pool.samples, pool.channels, height.out_size,
                                        width.out_size};
  output = at::empty(sizes, given.options(), format);
  const auto options = given.options().dtype(at::kByte);
  indices = return_indices ? at::empty(sizes, options, format) : at::empty({0}, options);
}

MaxPool2dBackward::MaxPool2dBackward(const at::Tensor& grad, const at::Tensor& given_indices,
                                     int64_t height, int64_t width, const PoolWindow& window)
    : pool(pool_of(given_indices, window, height, width)),
      data_type(data_type_of(grad, "max_pool2d_backward")) {
  TORCH_CHECK(height > 0 && width > 0 && height <= most_of_geometry && width <= most_of_geometry,
              "max_pool2d_backward: expected the size of the input, got ", height, "x", width);
  TORCH_CHECK(grad.sizes() == given_indices.sizes() && grad.device() == given_indices.device() &&
                  given_indices.scalar_type() == at::kByte,
              "max_pool2d_backward: the indices must be bytes, one for each of the gradient, got ",
              given_indices.sizes(), " ", given_indices.scalar_type(), " for ", grad.sizes());
  pool.height.out_size = grad.size(2);
  pool.width.out_size = grad.size(3);
  for (const PoolAxis& axis : {pool.height, pool.width}) {
    TORCH_CHECK(axis.padding <= axis.kernel / 2 && (axis.out_size == results_along(axis, false) ||
                                                    axis.out_size == results_along(axis, true)),
                "max_pool2d_backward: windows of ", at::IntArrayRef(window.kernel_size),
                " over an input of ", height, "x", width, " do not have results of ", grad.sizes());
  }
  check_memory("max_pool2d_backward", "the gradient", grad);
  check_memory("max_pool2d_backward", "the indices", given_indices);
  const auto format = format_of(pool);
  grad_output = grad.contiguous(format);
  indices = given_indices.contiguous(format);
  grad_input = at::empty({pool.samples, pool.channels, height, width}, grad.options(), format);
}

}  // namespace cnngraph
