// The operator's schema and its autograd. The backward is an operator too, so that a compiler
// sees both; it keeps only the input and per-channel numbers, and recomputes the rest.
//
//   output = activation((input - mean) / sqrt(var + eps) * weight + bias)
//
// With `mean` and `var` given (evaluation) they are constants; without, they are the batch's and
// are returned (var biased, in the type of computation), for the caller to update running
// statistics with. A residual would be one more optional tensor added before the activation.
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "batch_norm_act.h"

namespace cnngraph {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensors call_forward(const Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias,
                     const OptionalTensor& mean, const OptionalTensor& var, double eps,
                     c10::string_view activation, at::ArrayRef<double> activation_args) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("cnngraph::batch_norm_act", "")
                             .typed<decltype(call_forward)>();
  return op.call(input, weight, bias, mean, var, eps, activation, activation_args);
}

Tensors call_backward(const Tensor& grad_output, const Tensor& input, const OptionalTensor& weight,
                      const OptionalTensor& bias, const Tensor& mean, const Tensor& var,
                      bool batch_statistics, double eps, c10::string_view activation,
                      at::ArrayRef<double> activation_args, std::array<bool, 3> output_mask) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("cnngraph::batch_norm_act_backward", "")
                             .typed<decltype(call_backward)>();
  return op.call(grad_output, input, weight, bias, mean, var, batch_statistics, eps, activation,
                 activation_args, output_mask);
}

bool needs_grad(const OptionalTensor& tensor) {
  return tensor.has_value() && tensor->defined() && tensor->requires_grad();
}

class BatchNormAct : public torch::autograd::Function<BatchNormAct> {
 public:
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* context, const Tensor& input,
                               const OptionalTensor& weight, const OptionalTensor& bias,
                               const OptionalTensor& mean, const OptionalTensor& var, double eps,
                               c10::string_view activation,
                               at::ArrayRef<double> activation_args) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [output, batch_mean, batch_var] =
        call_forward(input, weight, bias, mean, var, eps, activation, activation_args);
    const bool batch_statistics = !mean.has_value() || !mean->defined();
    context->save_for_backward({input, weight.value_or(Tensor()), bias.value_or(Tensor()),
                                batch_statistics ? batch_mean : *mean,
                                batch_statistics ? batch_var : *var});
    context->saved_data["batch_statistics"] = batch_statistics;
    context->saved_data["eps"] = eps;
    context->saved_data["activation"] = std::string(activation);
    context->saved_data["activation_args"] = activation_args.vec();
    context->mark_non_differentiable({batch_mean, batch_var});
    context->set_materialize_grads(false);
    return {output, batch_mean, batch_var};
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(8);
    if (!grads[0].defined()) return result;
    const auto saved = context->get_saved_variables();
    const std::array<bool, 3> mask = {
        context->needs_input_grad(0),
        saved[1].defined() && context->needs_input_grad(1),
        saved[2].defined() && context->needs_input_grad(2),
    };
    auto [dinput, dweight, dbias] = call_backward(
        grads[0], saved[0], saved[1], saved[2], saved[3], saved[4],
        context->saved_data["batch_statistics"].toBool(), context->saved_data["eps"].toDouble(),
        context->saved_data["activation"].toStringView(),
        context->saved_data["activation_args"].toDoubleVector(), mask);
    if (mask[0]) result[0] = dinput;
    if (mask[1]) result[1] = dweight;
    if (mask[2]) result[2] = dbias;
    return result;
  }
};

Tensors batch_norm_act_autograd(const Tensor& input, const OptionalTensor& weight,
                                const OptionalTensor& bias, const OptionalTensor& mean,
                                const OptionalTensor& var, double eps, c10::string_view activation,
                                at::ArrayRef<double> activation_args) {
  if (!at::GradMode::is_enabled() ||
      !(input.requires_grad() || needs_grad(weight) || needs_grad(bias))) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_forward(input, weight, bias, mean, var, eps, activation, activation_args);
  }
  const auto results = BatchNormAct::apply(input, weight, bias, mean, var, eps, activation,
                                           activation_args);
  return {results[0], results[1], results[2]};
}

// Only there to say so when somebody differentiates a gradient.
class BatchNormActBackward : public torch::autograd::Function<BatchNormActBackward> {
 public:
  static variable_list forward(AutogradContext*, const Tensor& grad_output, const Tensor& input,
                               const OptionalTensor& weight, const OptionalTensor& bias,
                               const Tensor& mean, const Tensor& var, bool batch_statistics,
                               double eps, c10::string_view activation,
                               at::ArrayRef<double> activation_args,
                               std::array<bool, 3> output_mask) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [dinput, dweight, dbias] =
        call_backward(grad_output, input, weight, bias, mean, var, batch_statistics, eps,
                      activation, activation_args, output_mask);
    return {dinput, dweight, dbias};
  }

  static variable_list backward(AutogradContext*, variable_list) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        false,
        "cnngraph::batch_norm_act has no second derivative: gradients of gradients need the "
        "network compiled with backend=\"eager\"");
  }
};

Tensors batch_norm_act_backward_autograd(
    const Tensor& grad_output, const Tensor& input, const OptionalTensor& weight,
    const OptionalTensor& bias, const Tensor& mean, const Tensor& var, bool batch_statistics,
    double eps, c10::string_view activation, at::ArrayRef<double> activation_args,
    std::array<bool, 3> output_mask) {
  if (!at::GradMode::is_enabled() || !(grad_output.requires_grad() || input.requires_grad() ||
                                       needs_grad(weight) || needs_grad(bias))) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_backward(grad_output, input, weight, bias, mean, var, batch_statistics, eps,
                         activation, activation_args, output_mask);
  }
  const auto results = BatchNormActBackward::apply(grad_output, input, weight, bias, mean, var,
                                                   batch_statistics, eps, activation,
                                                   activation_args, output_mask);
  return {results[0], results[1], results[2]};
}

TORCH_LIBRARY(cnngraph, library) {
  library.def(
      "batch_norm_act(Tensor input, Tensor? weight, Tensor? bias, Tensor? mean, Tensor? var, "
      "float eps, str activation, float[] activation_args) "
      "-> (Tensor output, Tensor batch_mean, Tensor batch_var)",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "batch_norm_act_backward(Tensor grad_output, Tensor input, Tensor? weight, Tensor? bias, "
      "Tensor mean, Tensor var, bool batch_statistics, float eps, str activation, "
      "float[] activation_args, bool[3] output_mask) "
      "-> (Tensor dinput, Tensor dweight, Tensor dbias)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(cnngraph, Autograd, library) {
  library.impl("batch_norm_act", &batch_norm_act_autograd);
  library.impl("batch_norm_act_backward", &batch_norm_act_backward_autograd);
}

}  // namespace
}  // namespace cnngraph
