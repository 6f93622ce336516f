#include "library.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "../cpu/capability.h"
#include "../linear/linear.h"

namespace cnngraph {
namespace {

using at::IntArrayRef;
using at::Tensor;

// Whether bfloat16 is computed in float: oneDNN would fall back to code that is ten times slower.
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

}  // namespace

Tensor library_convolution(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                           const ConvGeometry& geometry) {
  if (is_defined(bias) && input.is_cpu() && may_read_only_padding(input, geometry)) {
    return library_convolution(input, weight, {}, geometry).add_(bias->view({-1, 1, 1}));
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

ConvGradients library_gradients(const Tensor& grad_output, const Tensor& input,
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

}  // namespace cnngraph
