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
#include "../checks.h"
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

bool is_defined(const OptionalTensor& tensor) { return tensor.has_value() && tensor->defined(); }

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

// Second derivatives are torch's.
ConvGradients conv2d_backward_autograd(const Tensor& grad_output, const Tensor& input,
                                       const Tensor& weight, IntArrayRef stride,
                                       IntArrayRef padding, IntArrayRef dilation, int64_t groups,
                                       std::array<bool, 3> output_mask) {
  if (differentiated(grad_output, input, weight)) {
    const char* op = "conv2d_backward";
    auto gradients = at::convolution_backward(
        grad_output, input, weight, IntArrayRef{weight.size(0)},
        check_pair(op, "stride", stride, 1), check_pair(op, "padding", padding, 0),
        check_pair(op, "dilation", dilation, 1),
        /*transposed=*/false, /*output_padding=*/{0, 0}, groups, output_mask);
    const auto define = [&](Tensor& gradient) {
      if (!gradient.defined()) gradient = at::empty({0}, input.options());
    };
    std::apply([&](auto&... each) { (define(each), ...); }, gradients);
    return gradients;
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

Tensor winograd_weight_autograd(const Tensor& weight) {
  refuse_gradients("winograd_weight", weight);
  static const auto op =
      find_operator<decltype(winograd_weight_autograd)>("cnngraph::winograd_weight");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(weight);
}

Tensor winograd_conv2d_autograd(const Tensor& input, const Tensor& transformed_weight,
                                int64_t channels, const OptionalTensor& bias, IntArrayRef padding,
                                const OptionalTensor& residual, bool relu) {
  refuse_gradients("winograd_conv2d", input, transformed_weight, bias, residual);
  static const auto op =
      find_operator<decltype(winograd_conv2d_autograd)>("cnngraph::winograd_conv2d");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(input, transformed_weight, channels, bias, padding, residual, relu);
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
      check_convolution(input, weight, {}, stride, padding, dilation, groups);
  check_sizes("conv2d_backward", "a gradient", grad_output,
              sizes_of_results(input, weight, geometry));
  check_kind("conv2d_backward", "a gradient", grad_output, input);
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
  library.def("winograd_weight(Tensor weight) -> Tensor", {at::Tag::pt2_compliant_tag});
  library.def(
      "winograd_conv2d(Tensor input, Tensor transformed_weight, int channels, Tensor? bias, "
      "int[2] padding, Tensor? residual, bool relu) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(cnngraph, CPU, library) {
  library.impl("conv2d", &conv2d);
  library.impl("conv2d_backward", &conv2d_backward);
  library.impl("winograd_weight", &winograd_weight);
  library.impl("winograd_conv2d", &winograd_folded_convolution);
}

TORCH_LIBRARY_IMPL(cnngraph, AutocastCPU, library) { library.impl("conv2d", &conv2d_autocast); }

TORCH_LIBRARY_IMPL(cnngraph, Autograd, library) {
  library.impl("conv2d", &conv2d_autograd);
  library.impl("conv2d_backward", &conv2d_backward_autograd);
  library.impl("winograd_weight", &winograd_weight_autograd);
  library.impl("winograd_conv2d", &winograd_conv2d_autograd);
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
  if (winograd_is_faster(input, weight, geometry)) {
    return winograd_convolution(input, weight, bias, geometry);
  }
  if (pointwise_is_faster(input, weight, geometry) && !is_defined(bias)) {
    return pointwise_convolution(input, weight);
  }
  if (is_defined(bias) && input.is_cpu() && may_read_only_padding(input, geometry)) {
    return convolution(input, weight, {}, stride, padding, dilation, groups)
        .add_(bias->view({-1, 1, 1}));
  }
  const auto convolve = [&](const Tensor& x, const Tensor& w, const OptionalTensor& b) {
    return at::convolution(x, w, b, stride, padding, dilation, /*transposed=*/false,
                           /*output_padding=*/{0, 0}, groups);
  };
  if (!computes_in_float(input)) return convolve(input, weight, bias);
  OptionalTensor wide_bias;
  if (is_defined(bias)) wide_bias = bias->to(at::kFloat);
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
  std::array<bool, 3> rest = {output_mask[0] && !winograd && !pointwise, output_mask[1] && !ours,
                              output_mask[2] && !ours};
  ConvGradients gradients;
  auto& [dinput, dweight, dbias] = gradients;
  if (rest[1] && strides_few_channels(input, weight, geometry)) {
    std::tie(std::ignore, dweight, dbias) =
        convolution_backward(grad_output, strided_pixels(input, geometry), weight, {1, 1}, {0, 0},
                             {1, 1}, groups, {false, rest[1], rest[2]});
    rest[1] = rest[2] = false;
  }
  if (rest[0] || rest[1] || rest[2]) {
    const bool wide = computes_in_float(input);
    const auto widen = [&](const Tensor& tensor) { return wide ? tensor.to(at::kFloat) : tensor; };
    const Tensor values =  // the input's own gradient only depends on its size
        wide && !rest[1] && !rest[2] ? at::empty_like(input, at::kFloat) : widen(input);
    const auto [x, w, b] = at::convolution_backward(
        widen(grad_output), values, widen(weight), IntArrayRef{weight.size(0)}, stride, padding,
        dilation, /*transposed=*/false, /*output_padding=*/{0, 0}, groups, rest);
    const auto take = [&](const Tensor& gradient, Tensor& to) {
      if (gradient.defined()) to = gradient.to(input.scalar_type());
    };
    take(x, dinput), take(w, dweight), take(b, dbias);
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
