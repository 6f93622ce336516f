#include "convolution.h"

#include <ATen/ATen.h>

#include "../linear/linear.h"
#include "arguments.h"
#include "library.h"
#include "pointwise.h"
#include "weight_gradient.h"
#include "winograd.h"

namespace cnngraph {
namespace {

using at::IntArrayRef;
using at::Tensor;

constexpr auto channels_last = at::MemoryFormat::ChannelsLast;

ConvGeometry geometry_of(IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                         int64_t groups) {
  return {{stride[0], stride[1]}, {padding[0], padding[1]}, {dilation[0], dilation[1]}, groups};
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
      return library_convolution(input, weight, bias, geometry);
  }
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

}  // namespace

Tensor convolution(const Tensor& given_input, const Tensor& weight, const OptionalTensor& bias,
                   IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  const Tensor input = with_dense_pixels(given_input);
  const ConvGeometry geometry = geometry_of(stride, padding, dilation, groups);
  ConvKernel kernel = kernel_for(ConvResult::output, input, weight, geometry);
  const bool has_bias = bias.has_value() && bias->defined();
  if (kernel == ConvKernel::pointwise && has_bias) kernel = ConvKernel::library;
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
  auto gradients = library_gradients(
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
    const auto gradients = library_gradients(grad_output, input, weight, geometry, wanted);
    return wanted[0] ? std::get<0>(gradients) : std::get<1>(gradients);
  }
  return wanted[0] ? input_gradient_by(kernel, grad_output, weight, geometry)
                   : weight_gradient_by(kernel, grad_output, input, weight, geometry);
}

}  // namespace cnngraph
