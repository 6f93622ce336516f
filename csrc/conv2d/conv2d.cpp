// A convolution that computes its result and each gradient by the fastest implementation: 3x3
// kernels by Winograd's minimal filtering, 1x1 kernels as products of rows of pixels, other weight
// gradients as matrix products (oneDNN's reach little more than half of the speed of its other
// products), and everything else by torch.
//
// bfloat16 is computed in float if the processor has no instructions for it: oneDNN would fall back
// to code that is ten times slower.
#include "conv2d.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "../autograd.h"
#include "../cpu/capability.h"
#include "../linear/linear.h"
#include "pointwise.h"
#include "weight_gradient.h"
#include "winograd.h"

namespace cnngraph {
namespace {

using at::IntArrayRef;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call_conv2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                   IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  static const auto op = find_operator<decltype(call_conv2d)>("cnngraph::conv2d");
  return op.call(input, weight, bias, stride, padding, dilation, groups);
}

ConvGradients call_conv2d_backward(const Tensor& grad_output, const Tensor& input,
                                   const Tensor& weight, IntArrayRef stride, IntArrayRef padding,
                                   IntArrayRef dilation, int64_t groups,
                                   std::array<bool, 3> output_mask) {
  static const auto op = find_operator<decltype(call_conv2d_backward)>("cnngraph::conv2d_backward");
  return op.call(grad_output, input, weight, stride, padding, dilation, groups, output_mask);
}

bool computes_in_float(const Tensor& input) {
  return input.is_cpu() && input.scalar_type() == at::kBFloat16 && bfloat16_is_slow();
}

// Whether the convolution is a linear layer: maps and kernels of one pixel.
bool is_linear(const Tensor& input, IntArrayRef weight, IntArrayRef padding, int64_t groups) {
  return input.dim() == 4 && input.size(2) == 1 && input.size(3) == 1 && weight[2] == 1 &&
         weight[3] == 1 && padding[0] == 0 && padding[1] == 0 && groups == 1 &&
         input.size(1) == weight[1];
}

ConvGeometry geometry_of(IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                         int64_t groups) {
  return {{stride[0], stride[1]}, {padding[0], padding[1]}, {dilation[0], dilation[1]}, groups};
}

// Whether a bias fits this weight; torch reports what is wrong with others.
bool fits(const OptionalTensor& bias, const Tensor& weight) {
  return !bias.has_value() || !bias->defined() ||
         (bias->sizes() == IntArrayRef{weight.size(0)} && bias->device() == weight.device() &&
          bias->scalar_type() == weight.scalar_type());
}

// Conversions between a matrix and maps of one pixel.
Tensor as_matrix(const Tensor& maps) { return maps.reshape({maps.size(0), maps.size(1)}); }
Tensor as_maps(const Tensor& matrix) {
  return matrix.reshape({matrix.size(0), matrix.size(1), 1, 1});
}

class Conv2d : public torch::autograd::Function<Conv2d> {
 public:
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& weight,
                        const OptionalTensor& bias, IntArrayRef stride, IntArrayRef padding,
                        IntArrayRef dilation, int64_t groups) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({input, weight});
    context->saved_data["stride"] = stride.vec();
    context->saved_data["padding"] = padding.vec();
    context->saved_data["dilation"] = dilation.vec();
    context->saved_data["groups"] = groups;
    context->saved_data["has_bias"] = bias.has_value() && bias->defined();
    context->set_materialize_grads(false);
    return call_conv2d(input, weight, bias, stride, padding, dilation, groups);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(7);
    if (!grads[0].defined()) return result;
    const auto saved = context->get_saved_variables();
    // An undefined bias has no edge.
    const bool has_bias = context->saved_data["has_bias"].toBool();
    const std::array<bool, 3> mask = {context->needs_input_grad(0), context->needs_input_grad(1),
                                      has_bias && context->needs_input_grad(2)};
    std::array<Tensor, 3> gradients;
    std::tie(gradients[0], gradients[1], gradients[2]) = call_conv2d_backward(
        grads[0], saved[0], saved[1], context->saved_data["stride"].toIntVector(),
        context->saved_data["padding"].toIntVector(), context->saved_data["dilation"].toIntVector(),
        context->saved_data["groups"].toInt(), mask);
    for (size_t i = 0; i < mask.size(); ++i) {
      if (mask[i]) result[i] = gradients[i];
    }
    return result;
  }
};

Tensor conv2d_autograd(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                       IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                       int64_t groups) {
  refuse_tangents("conv2d", input, weight, bias);
  if (!differentiated(input, weight, bias)) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_conv2d(input, weight, bias, stride, padding, dilation, groups);
  }
  return Conv2d::apply(input, weight, bias, stride, padding, dilation, groups);
}

// Second derivatives are torch's.
ConvGradients conv2d_backward_autograd(const Tensor& grad_output, const Tensor& input,
                                       const Tensor& weight, IntArrayRef stride,
                                       IntArrayRef padding, IntArrayRef dilation, int64_t groups,
                                       std::array<bool, 3> output_mask) {
  if (differentiated(grad_output, input, weight)) {
    return at::convolution_backward(grad_output, input, weight, IntArrayRef{weight.size(0)}, stride,
                                    padding, dilation, /*transposed=*/false,
                                    /*output_padding=*/{0, 0}, groups, output_mask);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return call_conv2d_backward(grad_output, input, weight, stride, padding, dilation, groups,
                              output_mask);
}

Tensor conv2d_autocast(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                       IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                       int64_t groups) {
  using namespace at::autocast;
  const auto device = input.device().type();
  const c10::impl::ExcludeDispatchKeyGuard guard(
      get_autocast_dispatch_key_from_device_type(device));
  const auto type = get_autocast_dtype(device);
  const auto cast = [&](const auto& tensor) { return cached_cast(type, tensor, device); };
  return call_conv2d(cast(input), cast(weight), cast(bias), stride, padding, dilation, groups);
}

// The gradient with the strides of `tensor`, as the operator's fake function promises, or an empty
// tensor if it was not requested.
Tensor in_layout_of(const Tensor& tensor, const Tensor& gradient, bool wanted) {
  if (!wanted) return at::empty({0}, tensor.options());
  if (gradient.strides() == tensor.strides()) return gradient;
  const Tensor result = at::empty_like(tensor);
  return result.strides() == gradient.strides() ? gradient : result.copy_(gradient);
}

ConvGradients conv2d_backward(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                              IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                              int64_t groups, std::array<bool, 3> output_mask) {
  const auto [dinput, dweight, dbias] = convolution_backward(
      grad_output, input, weight, stride, padding, dilation, groups, output_mask);
  return {in_layout_of(input, dinput, output_mask[0]),
          in_layout_of(weight, dweight, output_mask[1]),
          output_mask[2] ? dbias : at::empty({0}, weight.options())};
}

TORCH_LIBRARY_FRAGMENT(cnngraph, library) {
  library.def(
      "conv2d(Tensor input, Tensor weight, Tensor? bias, int[2] stride, int[2] padding, "
      "int[2] dilation, int groups) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "conv2d_backward(Tensor grad_output, Tensor input, Tensor weight, int[2] stride, "
      "int[2] padding, int[2] dilation, int groups, bool[3] output_mask) "
      "-> (Tensor dinput, Tensor dweight, Tensor dbias)",
      {at::Tag::pt2_compliant_tag});
  library.def("winograd_weight(Tensor weight) -> Tensor", {at::Tag::pt2_compliant_tag});
  library.def(
      "winograd_conv2d(Tensor input, Tensor transformed_weight, int channels, Tensor? bias, "
      "int[2] padding, Tensor? residual, bool relu) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(cnngraph, CPU, library) {
  library.impl("conv2d", &convolution);
  library.impl("conv2d_backward", &conv2d_backward);
  library.impl("winograd_weight", &winograd_weight);
  library.impl("winograd_conv2d", &winograd_folded_convolution);
}

TORCH_LIBRARY_IMPL(cnngraph, AutocastCPU, library) { library.impl("conv2d", &conv2d_autocast); }

TORCH_LIBRARY_IMPL(cnngraph, Autograd, library) {
  library.impl("conv2d", &conv2d_autograd);
  library.impl("conv2d_backward", &conv2d_backward_autograd);
}

// A dense copy of channels_last maps with gaps between pixels, such as slices of the channels: our
// implementations need dense pixels, and the library would make its own copy.
Tensor with_dense_pixels(const Tensor& map) {
  const bool pixels = map.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  return pixels ? map.contiguous(at::MemoryFormat::ChannelsLast) : map;
}

}  // namespace

Tensor convolution(const Tensor& given_input, const Tensor& weight, const OptionalTensor& bias,
                   IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  const Tensor input = with_dense_pixels(given_input);
  if (is_linear(input, weight.sizes(), padding, groups)) {
    return as_maps(cnngraph::linear(as_matrix(input), as_matrix(weight), bias));
  }
  const ConvGeometry geometry = geometry_of(stride, padding, dilation, groups);
  if (winograd_is_faster(input, weight, geometry) && fits(bias, weight)) {
    return winograd_convolution(input, weight, bias, geometry);
  }
  if (pointwise_is_faster(input, weight, geometry) && !(bias.has_value() && bias->defined())) {
    return pointwise_convolution(input, weight);
  }
  const auto convolve = [&](const Tensor& x, const Tensor& w, const OptionalTensor& b) {
    return at::convolution(x, w, b, stride, padding, dilation, /*transposed=*/false,
                           /*output_padding=*/{0, 0}, groups);
  };
  if (!computes_in_float(input)) return convolve(input, weight, bias);
  OptionalTensor wide_bias;
  if (bias.has_value() && bias->defined()) wide_bias = bias->to(at::kFloat);
  return convolve(input.to(at::kFloat), weight.to(at::kFloat), wide_bias).to(input.scalar_type());
}

ConvGradients convolution_backward(const Tensor& grad_output, const Tensor& given_input,
                                   const Tensor& weight, IntArrayRef stride, IntArrayRef padding,
                                   IntArrayRef dilation, int64_t groups,
                                   std::array<bool, 3> output_mask) {
  const Tensor input = with_dense_pixels(given_input);
  if (is_linear(input, weight.sizes(), padding, groups)) {
    const Tensor grad = as_matrix(grad_output);
    return {output_mask[0] ? as_maps(linear_input_gradient(grad, as_matrix(weight))) : Tensor(),
            output_mask[1] ? as_maps(linear_weight_gradient(grad, as_matrix(input))) : Tensor(),
            output_mask[2] ? grad.sum(0) : Tensor()};
  }
  const ConvGeometry geometry = geometry_of(stride, padding, dilation, groups);
  const bool winograd = winograd_is_faster(input, weight, geometry);
  const bool pointwise = pointwise_is_faster(input, weight, geometry);
  const bool winograd_weight =
      output_mask[1] && winograd_weight_gradient_is_faster(input, weight, geometry);
  const bool ours =
      winograd_weight ||
      (output_mask[1] && weight_gradient_is_faster(grad_output, input, weight.sizes(), geometry));
  // The library computes both gradients if either the weight's or the bias's is requested.
  const std::array<bool, 3> rest = {output_mask[0] && !winograd && !pointwise,
                                    output_mask[1] && !ours, output_mask[2] && !ours};
  ConvGradients gradients;
  auto& [dinput, dweight, dbias] = gradients;
  if (rest[0] || rest[1] || rest[2]) {
    const bool wide = computes_in_float(input);
    const auto widen = [&](const Tensor& tensor) { return wide ? tensor.to(at::kFloat) : tensor; };
    const Tensor values =  // the input's own gradient only depends on its size
        wide && !rest[1] && !rest[2] ? at::empty_like(input, at::kFloat) : widen(input);
    gradients = at::convolution_backward(
        widen(grad_output), values, widen(weight), IntArrayRef{weight.size(0)}, stride, padding,
        dilation, /*transposed=*/false, /*output_padding=*/{0, 0}, groups, rest);
    for (Tensor* gradient : {&dinput, &dweight, &dbias}) {
      if (wide && gradient->defined()) *gradient = gradient->to(input.scalar_type());
    }
  }
  if (output_mask[0] && winograd) dinput = winograd_input_gradient(grad_output, weight, geometry);
  if (output_mask[0] && pointwise) dinput = pointwise_input_gradient(grad_output, weight);
  if (ours) {
    dweight = winograd_weight ? winograd_weight_gradient(grad_output, input, geometry)
                              : weight_gradient(grad_output, input, weight.sizes(), geometry);
  }
  if (ours && output_mask[2]) dbias = grad_output.sum(IntArrayRef{0, 2, 3});
  return gradients;
}

}  // namespace cnngraph
