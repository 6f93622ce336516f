// bfloat16 is computed in float if the processor has no instructions for it: oneDNN would fall back
// to code that is ten times slower.
#include "convolution.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "../cpu/capability.h"
#include "../linear/linear.h"
#include "arguments.h"
#include "pointwise.h"
#include "weight_gradient.h"
#include "winograd.h"

namespace cnngraph {
namespace {

using at::IntArrayRef;
using at::Tensor;

constexpr auto channels_last = at::MemoryFormat::ChannelsLast;

bool computes_in_float(const Tensor& input) {
  return input.is_cpu() && input.scalar_type() == at::kBFloat16 && bfloat16_is_slow();
}

bool is_defined(const OptionalTensor& tensor) { return tensor.has_value() && tensor->defined(); }

// Whether the convolution is a linear layer: maps and kernels of one pixel.
bool is_linear(const Tensor& input, const Tensor& weight, const ConvGeometry& geometry) {
  return input.dim() == 4 && input.size(2) == 1 && input.size(3) == 1 && weight.size(2) == 1 &&
         weight.size(3) == 1 && geometry.padding == std::array<int64_t, 2>{0, 0} &&
         geometry.groups == 1 && input.size(1) == weight.size(1);
}

// Whether oneDNN's weight gradient in channels_last writes past its memory: a strided 1x1 kernel
// over fewer channels (per group) than a vector has
// (https://github.com/uxlfoundation/oneDNN/issues/6035).
bool strides_few_channels(const Tensor& input, const Tensor& weight, const ConvGeometry& geometry) {
  return input.is_cpu() && weight.size(2) == 1 && weight.size(3) == 1 && weight.size(1) < 16 &&
         (geometry.stride[0] != 1 || geometry.stride[1] != 1);
}

// The pixels that a strided 1x1 kernel reads.
Tensor strided_pixels(const Tensor& input, const ConvGeometry& geometry) {
  const auto [vertical, horizontal] = geometry.padding;
  return at::constant_pad_nd(input, {horizontal, horizontal, vertical, vertical})
      .slice(2, 0, std::nullopt, geometry.stride[0])
      .slice(3, 0, std::nullopt, geometry.stride[1]);
}

// Whether no window may reach a pixel along an axis: oneDNN segfaults if it adds a bias then.
bool may_read_only_padding(const Tensor& input, const ConvGeometry& geometry) {
  for (int axis = 0; axis < 2; ++axis) {
    if (geometry.padding[axis] > 0 &&
        input.size(2 + axis) < std::max(geometry.stride[axis], geometry.dilation[axis])) {
      return true;
    }
  }
  return false;
}

ConvGeometry geometry_of(IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                         int64_t groups) {
  return {{stride[0], stride[1]}, {padding[0], padding[1]}, {dilation[0], dilation[1]}, groups};
}

// Conversions between a matrix and maps of one pixel.
Tensor as_matrix(const Tensor& maps) { return maps.reshape({maps.size(0), maps.size(1)}); }
Tensor as_maps(const Tensor& matrix) {
  return matrix.reshape({matrix.size(0), matrix.size(1), 1, 1});
}

// A dense copy of channels_last maps with gaps between pixels, such as slices of the channels: our
// kernels need dense pixels, and the library would make its own copy.
Tensor with_dense_pixels(const Tensor& map) {
  return map.suggest_memory_format() == channels_last ? map.contiguous(channels_last) : map;
}

ConvKernel kernel_for(ConvResult result, const Tensor& input, const Tensor& weight,
                      const ConvGeometry& geometry) {
  const auto type = input.scalar_type();
  if (!input.is_cpu() || input.dim() != 4 || weight.dim() != 4 || weight.scalar_type() != type ||
      input.size(1) != weight.size(1) * geometry.groups) {
    return ConvKernel::library;
  }
  return choose_kernel(
      result, sizes_of(input.sizes(), weight.sizes(), geometry), type,
      input.suggest_memory_format() == channels_last && input.is_contiguous(channels_last));
}

int64_t tile_of(ConvKernel kernel) { return kernel == ConvKernel::winograd_4x4 ? 4 : 2; }

Tensor output_by(ConvKernel kernel, const Tensor& input, const Tensor& weight,
                 const OptionalTensor& bias, const ConvGeometry& geometry) {
  switch (kernel) {
    case ConvKernel::rows:
      return as_maps(rows_linear(as_matrix(input), as_matrix(weight), bias));
    case ConvKernel::winograd_2x2:
    case ConvKernel::winograd_4x4:
      return winograd_convolution(input, weight, bias, geometry, tile_of(kernel));
    case ConvKernel::pointwise:
      return pointwise_convolution(input, weight);
    default:
      break;
  }
  if (is_linear(input, weight, geometry)) {
    return as_maps(at::linear(as_matrix(input), as_matrix(weight), bias));
  }
  const auto convolve = [&](const Tensor& x, const Tensor& w, const OptionalTensor& b) {
    return at::convolution(x, w, b, geometry.stride, geometry.padding, geometry.dilation,
                           /*transposed=*/false, /*output_padding=*/{0, 0}, geometry.groups);
  };
  if (!computes_in_float(input)) return convolve(input, weight, bias);
  OptionalTensor wide_bias;
  if (is_defined(bias)) wide_bias = bias->to(at::kFloat);
  return convolve(input.to(at::kFloat), weight.to(at::kFloat), wide_bias).to(input.scalar_type());
}

Tensor input_gradient_by(ConvKernel kernel, const Tensor& grad_output, const Tensor& weight,
                         const ConvGeometry& geometry) {
  switch (kernel) {
    case ConvKernel::rows:
      return as_maps(rows_input_gradient(as_matrix(grad_output), as_matrix(weight)));
    case ConvKernel::pointwise:
      return pointwise_input_gradient(grad_output, weight);
    default:
      return winograd_input_gradient(grad_output, weight, geometry, tile_of(kernel));
  }
}

Tensor weight_gradient_by(ConvKernel kernel, const Tensor& grad_output, const Tensor& input,
                          const Tensor& weight, const ConvGeometry& geometry) {
  switch (kernel) {
    case ConvKernel::rows:
      return as_maps(rows_weight_gradient(as_matrix(grad_output), as_matrix(input)));
    case ConvKernel::packed:
      return weight_gradient(grad_output, input, weight.sizes(), geometry);
    default:
      return winograd_weight_gradient(grad_output, input, geometry, tile_of(kernel));
  }
}

// The library computes both gradients if either the weight's or the bias's is requested.
ConvGradients gradients_by_library(const Tensor& grad_output, const Tensor& input,
                                   const Tensor& weight, const ConvGeometry& geometry,
                                   std::array<bool, 3> wanted) {
  ConvGradients gradients;
  auto& [dinput, dweight, dbias] = gradients;
  if (is_linear(input, weight, geometry)) {
    const Tensor grad = as_matrix(grad_output);
    if (wanted[0]) dinput = as_maps(grad.mm(as_matrix(weight)));
    if (wanted[1]) dweight = as_maps(grad.t().mm(as_matrix(input)));
    if (wanted[2]) dbias = grad.sum(0);
    return gradients;
  }
  if (wanted[1] && strides_few_channels(input, weight, geometry)) {
    std::tie(std::ignore, dweight, dbias) =
        convolution_backward(grad_output, strided_pixels(input, geometry), weight, {1, 1}, {0, 0},
                             {1, 1}, geometry.groups, {false, true, wanted[2]});
    wanted[1] = wanted[2] = false;
  }
  if (!(wanted[0] || wanted[1] || wanted[2])) return gradients;
  const bool wide = computes_in_float(input);
  const auto widen = [&](const Tensor& tensor) { return wide ? tensor.to(at::kFloat) : tensor; };
  const Tensor values =  // the input's own gradient only depends on its size
      wide && !wanted[1] && !wanted[2] ? at::empty_like(input, at::kFloat) : widen(input);
  const auto [x, w, b] = at::convolution_backward(
      widen(grad_output), values, widen(weight), IntArrayRef{weight.size(0)}, geometry.stride,
      geometry.padding, geometry.dilation, /*transposed=*/false, /*output_padding=*/{0, 0},
      geometry.groups, wanted);
  const auto take = [&](const Tensor& gradient, Tensor& to) {
    if (gradient.defined()) to = gradient.to(input.scalar_type());
  };
  take(x, dinput), take(w, dweight), take(b, dbias);
  return gradients;
}

}  // namespace

Tensor convolution(const Tensor& given_input, const Tensor& weight, const OptionalTensor& bias,
                   IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  const Tensor input = with_dense_pixels(given_input);
  const ConvGeometry geometry = geometry_of(stride, padding, dilation, groups);
  ConvKernel kernel = kernel_for(ConvResult::output, input, weight, geometry);
  if (kernel == ConvKernel::pointwise && is_defined(bias)) kernel = ConvKernel::library;
  if (kernel == ConvKernel::library && is_defined(bias) && input.is_cpu() &&
      may_read_only_padding(input, geometry)) {
    return output_by(kernel, input, weight, {}, geometry).add_(bias->view({-1, 1, 1}));
  }
  return output_by(kernel, input, weight, bias, geometry);
}

ConvGradients convolution_backward(const Tensor& grad_output, const Tensor& given_input,
                                   const Tensor& weight, IntArrayRef stride, IntArrayRef padding,
                                   IntArrayRef dilation, int64_t groups,
                                   std::array<bool, 3> output_mask) {
  const Tensor input = with_dense_pixels(given_input);
  const ConvGeometry geometry = geometry_of(stride, padding, dilation, groups);
  const auto chosen = [&](ConvResult result, bool wanted) {
    const bool computes = wanted && grad_output.scalar_type() == input.scalar_type();
    return computes ? kernel_for(result, input, weight, geometry) : ConvKernel::library;
  };
  const ConvKernel for_input = chosen(ConvResult::input_gradient, output_mask[0]);
  const ConvKernel for_weight = chosen(ConvResult::weight_gradient, output_mask[1]);
  const bool own_input = for_input != ConvKernel::library;
  const bool own_weight = for_weight != ConvKernel::library;
  auto gradients = gradients_by_library(
      grad_output, input, weight, geometry,
      {output_mask[0] && !own_input, output_mask[1] && !own_weight, output_mask[2] && !own_weight});
  auto& [dinput, dweight, dbias] = gradients;
  if (own_input) dinput = input_gradient_by(for_input, grad_output, weight, geometry);
  if (own_weight) {
    dweight = weight_gradient_by(for_weight, grad_output, input, weight, geometry);
    if (output_mask[2]) dbias = grad_output.sum(IntArrayRef{0, 2, 3});
  }
  return gradients;
}

ConvGradients differentiable_convolution_backward(const Tensor& grad_output, const Tensor& input,
                                                  const Tensor& weight,
                                                  const ConvGeometry& geometry,
                                                  std::array<bool, 3> output_mask) {
  const auto backward = [&](const Tensor& x, IntArrayRef stride, IntArrayRef padding,
                            IntArrayRef dilation, std::array<bool, 3> mask) {
    return at::convolution_backward(grad_output, x, weight, IntArrayRef{weight.size(0)}, stride,
                                    padding, dilation, /*transposed=*/false,
                                    /*output_padding=*/{0, 0}, geometry.groups, mask);
  };
  const bool apart = output_mask[1] && strides_few_channels(input, weight, geometry);
  auto gradients = backward(input, geometry.stride, geometry.padding, geometry.dilation,
                            {output_mask[0], output_mask[1] && !apart, output_mask[2] && !apart});
  auto& [dinput, dweight, dbias] = gradients;
  if (apart) {
    std::tie(std::ignore, dweight, dbias) = backward(strided_pixels(input, geometry), {1, 1},
                                                     {0, 0}, {1, 1}, {false, true, output_mask[2]});
  }
  for (Tensor* gradient : {&dinput, &dweight, &dbias}) {
    if (!gradient->defined()) *gradient = at::empty({0}, input.options());
  }
  return gradients;
}

Tensor convolution_by(ConvKernel kernel, ConvResult result, const Tensor& grad_output,
                      const Tensor& input, const Tensor& weight, const ConvGeometry& geometry) {
  const ConvSizes sizes = sizes_of(input.sizes(), weight.sizes(), geometry);
  TORCH_CHECK(
      result != ConvResult::constant_output && supports(kernel, result, sizes, input.scalar_type()),
      "the kernel ", name_of(kernel), " does not compute this");
  const std::array<bool, 3> wanted = {result == ConvResult::input_gradient,
                                      result == ConvResult::weight_gradient, false};
  if (!wanted[0] && !wanted[1]) return output_by(kernel, input, weight, {}, geometry);
  if (kernel == ConvKernel::library) {
    const auto gradients = gradients_by_library(grad_output, input, weight, geometry, wanted);
    return wanted[0] ? std::get<0>(gradients) : std::get<1>(gradients);
  }
  return wanted[0] ? input_gradient_by(kernel, grad_output, weight, geometry)
                   : weight_gradient_by(kernel, grad_output, input, weight, geometry);
}

}  // namespace cnngraph
