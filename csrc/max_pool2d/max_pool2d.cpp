// The operator's schema and autograd. It keeps one byte per value of the output, where torch keeps
// the input and eight bytes: the position of the largest value in its window, or no_index where a
// ReLU blocks the gradient. With `relu`, the maximum of relu(input), the input of the ReLU is not
// kept either.
//
// The backward is linear in the gradient; its derivative gathers by the indices with torch's
// operators. Forward-mode derivatives are refused; cnngraph.nn runs torch's modules instead.
#include "max_pool2d.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "../autograd.h"

namespace cnngraph {
namespace {

using at::IntArrayRef;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::tuple<Tensor, Tensor> call_forward(const Tensor& input, IntArrayRef kernel_size,
                                        IntArrayRef stride, IntArrayRef padding,
                                        IntArrayRef dilation, bool ceil_mode, bool relu,
                                        bool return_indices) {
  static const auto op = find_operator<decltype(call_forward)>("cnngraph::max_pool2d");
  return op.call(input, kernel_size, stride, padding, dilation, ceil_mode, relu, return_indices);
}

Tensor call_backward(const Tensor& grad_output, const Tensor& indices, c10::SymInt height,
                     c10::SymInt width, IntArrayRef kernel_size, IntArrayRef stride,
                     IntArrayRef padding, IntArrayRef dilation) {
  static const auto op = find_operator<decltype(call_backward)>("cnngraph::max_pool2d_backward");
  return op.call(grad_output, indices, std::move(height), std::move(width), kernel_size, stride,
                 padding, dilation);
}

// The values of `input` at the indices, by torch's operators.
Tensor gather(const Tensor& input, const Tensor& indices, IntArrayRef kernel_size,
              IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation) {
  const auto height = input.sym_size(2), width = input.sym_size(3);
  const Tensor position = indices.to(at::kLong);
  const auto places = [&](int axis, const Tensor& offset, const c10::SymInt& size) {
    Tensor windows = at::arange(indices.sym_size(2 + axis), position.options());
    if (axis == 0) windows = windows.unsqueeze(1);
    return (windows * stride[axis] - padding[axis] + offset * dilation[axis])
        .clamp(at::Scalar(0), at::Scalar(size - 1));
  };
  const Tensor row = places(0, position.floor_divide(kernel_size[1]), height);
  const Tensor column = places(1, position.remainder(kernel_size[1]), width);
  const Tensor place = row * at::Scalar(width) + column;
  const Tensor values = input.flatten(2).gather(2, place.flatten(2)).view_as(place);
  return values.masked_fill(indices == no_index, 0);
}

class MaxPool2dGradient : public torch::autograd::Function<MaxPool2dGradient> {
 public:
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* context, const Tensor& grad_output, const Tensor& indices,
                        c10::SymInt height, c10::SymInt width, IntArrayRef kernel_size,
                        IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({indices});
    context->saved_data["kernel_size"] = kernel_size;
    context->saved_data["stride"] = stride;
    context->saved_data["padding"] = padding;
    context->saved_data["dilation"] = dilation;
    return call_backward(grad_output, indices, std::move(height), std::move(width), kernel_size,
                         stride, padding, dilation);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(8);
    if (!grads[0].defined()) return result;
    result[0] = gather(grads[0], context->get_saved_variables()[0],
                       context->saved_data["kernel_size"].toIntVector(),
                       context->saved_data["stride"].toIntVector(),
                       context->saved_data["padding"].toIntVector(),
                       context->saved_data["dilation"].toIntVector());
    return result;
  }
};

class MaxPool2d : public torch::autograd::Function<MaxPool2d> {
 public:
  static constexpr bool is_traceable = true;

  // The indices are returned through a pointer: see batch_norm_act.
  static Tensor forward(AutogradContext* context, const Tensor& input, IntArrayRef kernel_size,
                        IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                        bool ceil_mode, bool relu, Tensor* indices) {
    at::AutoDispatchBelowADInplaceOrView guard;
    Tensor output;
    std::tie(output, *indices) = call_forward(input, kernel_size, stride, padding, dilation,
                                              ceil_mode, relu, /*return_indices=*/true);
    context->save_for_backward({*indices});
    context->saved_data["height"] = input.sym_size(2);
    context->saved_data["width"] = input.sym_size(3);
    context->saved_data["kernel_size"] = kernel_size;
    context->saved_data["stride"] = stride;
    context->saved_data["padding"] = padding;
    context->saved_data["dilation"] = dilation;
    return output;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(8);
    if (!grads[0].defined()) return result;
    result[0] = call_backward(
        grads[0], context->get_saved_variables()[0], context->saved_data["height"].toSymInt(),
        context->saved_data["width"].toSymInt(), context->saved_data["kernel_size"].toIntVector(),
        context->saved_data["stride"].toIntVector(), context->saved_data["padding"].toIntVector(),
        context->saved_data["dilation"].toIntVector());
    return result;
  }
};

std::tuple<Tensor, Tensor> max_pool2d_autograd(const Tensor& input, IntArrayRef kernel_size,
                                               IntArrayRef stride, IntArrayRef padding,
                                               IntArrayRef dilation, bool ceil_mode, bool relu,
                                               bool return_indices) {
  refuse_tangents("max_pool2d", input);
  if (!differentiated(input)) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_forward(input, kernel_size, stride, padding, dilation, ceil_mode, relu,
                        return_indices);
  }
  const PoolWindow window = check_window(kernel_size, stride, padding, dilation);
  Tensor indices;
  const Tensor output = MaxPool2d::apply(input, IntArrayRef(window.kernel_size),
                                         IntArrayRef(window.stride), IntArrayRef(window.padding),
                                         IntArrayRef(window.dilation), ceil_mode, relu, &indices);
  return {output, return_indices ? indices : indices.new_empty({0})};
}

Tensor max_pool2d_backward_autograd(const Tensor& grad_output, const Tensor& indices,
                                    c10::SymInt height, c10::SymInt width, IntArrayRef kernel_size,
                                    IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation) {
  refuse_tangents("max_pool2d", grad_output);
  if (differentiated(grad_output)) {
    const PoolWindow window = check_window(kernel_size, stride, padding, dilation);
    return MaxPool2dGradient::apply(grad_output, indices, std::move(height), std::move(width),
                                    IntArrayRef(window.kernel_size), IntArrayRef(window.stride),
                                    IntArrayRef(window.padding), IntArrayRef(window.dilation));
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return call_backward(grad_output, indices, std::move(height), std::move(width), kernel_size,
                       stride, padding, dilation);
}

TORCH_LIBRARY_FRAGMENT(cnngraph, library) {
  library.def(
      "max_pool2d(Tensor input, int[2] kernel_size, int[2] stride, int[2] padding, "
      "int[2] dilation, bool ceil_mode, bool relu, bool return_indices) "
      "-> (Tensor output, Tensor indices)",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "max_pool2d_backward(Tensor grad_output, Tensor indices, SymInt height, SymInt width, "
      "int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation) -> Tensor dinput",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(cnngraph, Autograd, library) {
  library.impl("max_pool2d", &max_pool2d_autograd);
  library.impl("max_pool2d_backward", &max_pool2d_backward_autograd);
}

}  // namespace
}  // namespace cnngraph
