// The operators of a convolution and their autograd and autocast.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "../autograd.h"
#include "../checks.h"
#include "arguments.h"
#include "convolution.h"
#include "depthwise.h"
#include "library.h"
#include "pointwise.h"
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

Tensor conv2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
              IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  const ConvGeometry geometry =
      check_convolution(input, weight, bias, stride, padding, dilation, groups);
  return convolution(input, weight, bias, geometry.stride, geometry.padding, geometry.dilation,
                     groups);
}

ConvGradients conv2d_backward_autograd(const Tensor& grad_output, const Tensor& input,
                                       const Tensor& weight, IntArrayRef stride,
                                       IntArrayRef padding, IntArrayRef dilation, int64_t groups,
                                       std::array<bool, 3> output_mask) {
  if (differentiated(grad_output, input, weight)) {
    const ConvGeometry geometry =
        check_backward(grad_output, input, weight, stride, padding, dilation, groups);
    return differentiable_convolution_backward(grad_output, input, weight, geometry, output_mask);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return call_conv2d_backward(grad_output, input, weight, stride, padding, dilation, groups,
                              output_mask);
}

template <class... Tensors>
void refuse_gradients(const char* op, const Tensors&... tensors) {
  TORCH_CHECK_NOT_IMPLEMENTED(!differentiated(tensors...), "cnngraph::", op,
                              " has no gradient: it is for evaluation without gradients");
}

Tensor winograd_weight_autograd(const Tensor& weight, int64_t tile) {
  refuse_gradients("winograd_weight", weight);
  static const auto op =
      find_operator<decltype(winograd_weight_autograd)>("cnngraph::winograd_weight");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(weight, tile);
}

Tensor winograd_conv2d_autograd(const Tensor& input, const Tensor& transformed_weight,
                                int64_t channels, const OptionalTensor& bias, IntArrayRef padding,
                                const OptionalTensor& residual, double low, double high) {
  refuse_gradients("winograd_conv2d", input, transformed_weight, bias, residual);
  static const auto op =
      find_operator<decltype(winograd_conv2d_autograd)>("cnngraph::winograd_conv2d");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(input, transformed_weight, channels, bias, padding, residual, low, high);
}

Tensor pointwise_weight_autograd(const Tensor& weight) {
  refuse_gradients("pointwise_weight", weight);
  static const auto op =
      find_operator<decltype(pointwise_weight_autograd)>("cnngraph::pointwise_weight");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(weight);
}

Tensor pointwise_conv2d_autograd(const Tensor& input, const Tensor& packed_weight, int64_t channels,
                                 const OptionalTensor& bias, const OptionalTensor& residual,
                                 double low, double high) {
  refuse_gradients("pointwise_conv2d", input, packed_weight, bias, residual);
  static const auto op =
      find_operator<decltype(pointwise_conv2d_autograd)>("cnngraph::pointwise_conv2d");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(input, packed_weight, channels, bias, residual, low, high);
}

Tensor batch_norm_relu_pointwise_autograd(const Tensor& input, const Tensor& mean,
                                          const Tensor& var, const OptionalTensor& gamma,
                                          const OptionalTensor& beta, double eps,
                                          const Tensor& packed_weight, int64_t channels,
                                          const OptionalTensor& bias, double low, double high) {
  const char* name = "batch_norm_relu_pointwise_conv2d";
  refuse_gradients(name, input, mean, var, gamma, beta, packed_weight, bias);
  static const auto op = find_operator<decltype(batch_norm_relu_pointwise_autograd)>(
      "cnngraph::batch_norm_relu_pointwise_conv2d");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(input, mean, var, gamma, beta, eps, packed_weight, channels, bias, low, high);
}

Tensor depthwise_conv2d_autograd(const Tensor& input, const Tensor& weight,
                                 const OptionalTensor& bias, IntArrayRef stride,
                                 IntArrayRef padding, IntArrayRef dilation,
                                 const OptionalTensor& residual, double low, double high) {
  refuse_gradients("depthwise_conv2d", input, weight, bias, residual);
  static const auto op =
      find_operator<decltype(depthwise_conv2d_autograd)>("cnngraph::depthwise_conv2d");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(input, weight, bias, stride, padding, dilation, residual, low, high);
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
  const ConvGeometry geometry =
      check_backward(grad_output, input, weight, stride, padding, dilation, groups);
  const auto [dinput, dweight, dbias] =
      convolution_backward(grad_output, input, weight, geometry.stride, geometry.padding,
                           geometry.dilation, groups, output_mask);
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
  library.def("winograd_weight(Tensor weight, int tile) -> Tensor", {at::Tag::pt2_compliant_tag});
  library.def(
      "winograd_conv2d(Tensor input, Tensor transformed_weight, int channels, Tensor? bias, "
      "int[2] padding, Tensor? residual, float low, float high) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  library.def("pointwise_weight(Tensor weight) -> Tensor", {at::Tag::pt2_compliant_tag});
  library.def(
      "pointwise_conv2d(Tensor input, Tensor packed_weight, int channels, Tensor? bias, "
      "Tensor? residual, float low, float high) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "batch_norm_relu_pointwise_conv2d(Tensor input, Tensor mean, Tensor var, Tensor? gamma, "
      "Tensor? beta, float eps, Tensor packed_weight, int channels, Tensor? bias, float low, "
      "float high) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "depthwise_conv2d(Tensor input, Tensor weight, Tensor? bias, int[2] stride, int[2] padding, "
      "int[2] dilation, Tensor? residual, float low, float high) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(cnngraph, CPU, library) {
  library.impl("conv2d", &conv2d);
  library.impl("conv2d_backward", &conv2d_backward);
  library.impl("winograd_weight", &winograd_weight);
  library.impl("winograd_conv2d", &winograd_folded_convolution);
  library.impl("pointwise_weight", &pointwise_weight);
  library.impl("pointwise_conv2d", &pointwise_folded_convolution);
  library.impl("batch_norm_relu_pointwise_conv2d", &batch_norm_relu_pointwise_convolution);
  library.impl("depthwise_conv2d", &depthwise_folded_convolution);
}

TORCH_LIBRARY_IMPL(cnngraph, AutocastCPU, library) { library.impl("conv2d", &conv2d_autocast); }

TORCH_LIBRARY_IMPL(cnngraph, Autograd, library) {
  library.impl("conv2d", &conv2d_autograd);
  library.impl("conv2d_backward", &conv2d_backward_autograd);
  library.impl("winograd_weight", &winograd_weight_autograd);
  library.impl("winograd_conv2d", &winograd_conv2d_autograd);
  library.impl("pointwise_weight", &pointwise_weight_autograd);
  library.impl("pointwise_conv2d", &pointwise_conv2d_autograd);
  library.impl("batch_norm_relu_pointwise_conv2d", &batch_norm_relu_pointwise_autograd);
  library.impl("depthwise_conv2d", &depthwise_conv2d_autograd);
}

}  // namespace
}  // namespace cnngraph
