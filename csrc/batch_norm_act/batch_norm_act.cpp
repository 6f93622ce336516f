// The operator's schema and autograd. The backward is an operator too, so that a compiler sees
// both. It keeps only the input and per-channel numbers, and recomputes the rest.
//
//   output = activation((input - mean) / sqrt(var + eps) * weight + bias + residual)
//
// For a ReLU after a residual it keeps the output instead of the residual: the reader of the output
// keeps it anyway, but nothing else may need the residual.
//
// If `mean` and `var` are given (evaluation), they are constants; otherwise the statistics of the
// batch are used and returned (var biased, in the type of computation) for the caller to update
// running statistics. The residual is optional and has the input's shape and type.
//
// Second derivatives use torch's operators. Forward-mode derivatives are refused; cnngraph.nn runs
// torch's modules instead.
#include "batch_norm_act.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "../autograd.h"
#include "../checks.h"

namespace cnngraph {

using at::Tensor;

Tensors batch_norm_act(const Tensor& input, const OptionalTensor& weight,
                       const OptionalTensor& bias, const OptionalTensor& mean,
                       const OptionalTensor& var, double eps, c10::string_view activation,
                       at::ArrayRef<double> activation_args, const OptionalTensor& residual) {
  static const auto op = find_operator<decltype(batch_norm_act)>("cnngraph::batch_norm_act");
  return op.call(input, weight, bias, mean, var, eps, activation, activation_args, residual);
}

Gradients batch_norm_act_backward(const Tensor& grad_output, const Tensor& input,
                                  const OptionalTensor& weight, const OptionalTensor& bias,
                                  const Tensor& mean, const Tensor& var, bool batch_statistics,
                                  double eps, c10::string_view activation,
                                  at::ArrayRef<double> activation_args,
                                  std::array<bool, 4> output_mask, const OptionalTensor& residual,
                                  const OptionalTensor& output) {
  static const auto op =
      find_operator<decltype(batch_norm_act_backward)>("cnngraph::batch_norm_act_backward");
  return op.call(grad_output, input, weight, bias, mean, var, batch_statistics, eps, activation,
                 activation_args, output_mask, residual, output);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool is_defined(const OptionalTensor& tensor) { return tensor.has_value() && tensor->defined(); }

class BatchNormAct : public torch::autograd::Function<BatchNormAct> {
 public:
  static constexpr bool is_traceable = true;

  // The statistics are returned through pointers: they have no gradient, and compiled autograd does
  // not support functions that mark some outputs as non-differentiable.
  static Tensor forward(AutogradContext* context, const Tensor& input, const OptionalTensor& weight,
                        const OptionalTensor& bias, const OptionalTensor& residual,
                        const OptionalTensor& mean, const OptionalTensor& var, double eps,
                        c10::string_view activation, at::ArrayRef<double> activation_args,
                        Tensor* batch_mean, Tensor* batch_var) {
    at::AutoDispatchBelowADInplaceOrView guard;
    Tensor output;
    std::tie(output, *batch_mean, *batch_var) =
        batch_norm_act(input, weight, bias, mean, var, eps, activation, activation_args, residual);
    const bool batch_statistics = !is_defined(mean);
    const bool keep_output = is_defined(residual) && activation == "relu";
    const bool keep_residual = is_defined(residual) && !keep_output && activation != "identity";
    context->save_for_backward(
        {input, weight.value_or(Tensor()), bias.value_or(Tensor()),
         batch_statistics ? *batch_mean : *mean, batch_statistics ? *batch_var : *var,
         keep_residual ? *residual : Tensor(), keep_output ? output : Tensor()});
    context->saved_data["residual"] = is_defined(residual);
    context->saved_data["batch_statistics"] = batch_statistics;
    context->saved_data["eps"] = eps;
    context->saved_data["activation"] = std::string(activation);
    context->saved_data["activation_args"] = activation_args.vec();
    context->set_materialize_grads(false);
    return output;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(11);
    if (!grads[0].defined()) return result;
    const auto saved = context->get_saved_variables();
    // Only defined tensors have an edge: without a weight, the bias has the weight's.
    std::array<bool, 4> mask;
    const std::array<bool, 4> given = {true, saved[1].defined(), saved[2].defined(),
                                       context->saved_data["residual"].toBool()};
    for (size_t i = 0, edge = 0; i < mask.size(); ++i) {
      mask[i] = given[i] && context->needs_input_grad(edge++);
    }
    std::array<Tensor, 4> gradients;
    std::tie(gradients[0], gradients[1], gradients[2], gradients[3]) = batch_norm_act_backward(
        grads[0], saved[0], saved[1], saved[2], saved[3], saved[4],
        context->saved_data["batch_statistics"].toBool(), context->saved_data["eps"].toDouble(),
        context->saved_data["activation"].toStringView(),
        context->saved_data["activation_args"].toDoubleVector(), mask, saved[5], saved[6]);
    if (!saved[5].defined() && !saved[6].defined())
      gradients[3] = grads[0];  // identity(z + residual)
    for (size_t i = 0; i < mask.size(); ++i) {
      if (mask[i]) result[i] = gradients[i];
    }
    return result;
  }
};

Tensors batch_norm_act_autograd(const Tensor& input, const OptionalTensor& weight,
                                const OptionalTensor& bias, const OptionalTensor& mean,
                                const OptionalTensor& var, double eps, c10::string_view activation,
                                at::ArrayRef<double> activation_args,
                                const OptionalTensor& residual) {
  refuse_tangents("batch_norm_act", input, weight, bias, mean, var, residual);
  if (!differentiated(input, weight, bias, residual)) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return batch_norm_act(input, weight, bias, mean, var, eps, activation, activation_args,
                          residual);
  }
  Tensor batch_mean, batch_var;
  const Tensor output = BatchNormAct::apply(input, weight, bias, residual, mean, var, eps,
                                            activation, activation_args, &batch_mean, &batch_var);
  return {output, batch_mean, batch_var};
}

// A differentiable backward: torch recomputes the forward with its own operators and differentiates
// that, so the statistics of a batch are functions of the input.
Gradients differentiable_backward(const Tensor& grad_output, const Tensor& input,
                                  const OptionalTensor& weight, const OptionalTensor& bias,
                                  const Tensor& mean, const Tensor& var, bool batch_statistics,
                                  double eps, c10::string_view activation,
                                  at::ArrayRef<double> activation_args,
                                  std::array<bool, 4> output_mask, const OptionalTensor& residual,
                                  const OptionalTensor& output) {
  const bool from_output = is_defined(output);
  const ActivationSpec act =
      parse_activation(from_output ? "identity" : activation, activation_args);
  check_memory("batch_norm_act_backward", "a gradient", grad_output);
  if (from_output) check_memory("batch_norm_act_backward", "the output", *output);
  // The sign of z is treated as a constant.
  const Tensor grad =
      from_output ? at::threshold_backward(grad_output, output->detach(), 0) : grad_output;
  const auto compute_type = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const std::array<OptionalTensor, 4> given = {input, weight, bias, residual};
  std::array<Tensor, 4> results, arguments;
  variable_list wanted;
  for (int i = 0; i < 4; ++i) {
    results[i] = at::empty({0}, input.options().dtype(compute_type));
    if (!is_defined(given[i])) continue;
    check_memory("batch_norm_act_backward", "an argument", *given[i]);
    // An alias, so that each has its own gradient even where one was computed from another.
    Tensor argument = given[i]->requires_grad() ? at::alias(*given[i]) : given[i]->detach();
    if (output_mask[i]) wanted.push_back(argument.requires_grad_());
    arguments[i] = argument.to(compute_type);
    // torch's backward reads other values than those of a strided weight or mean.
    if (argument.dim() == 1) arguments[i] = arguments[i].contiguous();
  }
  if (from_output && output_mask[3]) results[3] = grad;
  if (wanted.empty()) return {results[0], results[1], results[2], results[3]};
  if (!arguments[1].defined()) {  // torch has no second derivative for a bias without a weight
    arguments[1] = at::ones({input.size(1)}, input.options().dtype(compute_type));
  }
  const auto fixed = [&](const Tensor& statistic) -> OptionalTensor {
    if (batch_statistics) return {};
    check_memory("batch_norm_act_backward", "a statistic", statistic);
    return statistic.detach().to(compute_type).contiguous();
  };
  Tensor z = at::batch_norm(arguments[0], arguments[1], arguments[2], fixed(mean), fixed(var),
                            batch_statistics, /*momentum=*/0, eps, /*cudnn_enabled=*/false);
  if (arguments[3].defined()) z = z + arguments[3];
  const Tensor recomputed = act.torch(z, act.arguments).to(input.scalar_type());
  const variable_list grads =
      torch::autograd::grad({recomputed}, wanted, {grad}, /*retain_graph=*/true,
                            /*create_graph=*/true);
  size_t next = 0;
  for (int i = 0; i < 4; ++i) {
    if (output_mask[i] && is_defined(given[i])) results[i] = grads[next++];
  }
  return {results[0], results[1], results[2], results[3]};
}

Gradients batch_norm_act_backward_autograd(
    const Tensor& grad_output, const Tensor& input, const OptionalTensor& weight,
    const OptionalTensor& bias, const Tensor& mean, const Tensor& var, bool batch_statistics,
    double eps, c10::string_view activation, at::ArrayRef<double> activation_args,
    std::array<bool, 4> output_mask, const OptionalTensor& residual, const OptionalTensor& output) {
  refuse_tangents("batch_norm_act", grad_output, input, weight, bias, mean, var, residual, output);
  if (differentiated(grad_output, input, weight, bias, residual)) {
    return differentiable_backward(grad_output, input, weight, bias, mean, var, batch_statistics,
                                   eps, activation, activation_args, output_mask, residual, output);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return batch_norm_act_backward(grad_output, input, weight, bias, mean, var, batch_statistics, eps,
                                 activation, activation_args, output_mask, residual, output);
}

TORCH_LIBRARY(cnngraph, library) {
  library.def(
      "batch_norm_act(Tensor input, Tensor? weight, Tensor? bias, Tensor? mean, Tensor? var, "
      "float eps, str activation, float[] activation_args, Tensor? residual=None) "
      "-> (Tensor output, Tensor batch_mean, Tensor batch_var)",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "batch_norm_act_backward(Tensor grad_output, Tensor input, Tensor? weight, Tensor? bias, "
      "Tensor mean, Tensor var, bool batch_statistics, float eps, str activation, "
      "float[] activation_args, bool[4] output_mask, Tensor? residual=None, Tensor? output=None) "
      "-> (Tensor dinput, Tensor dweight, Tensor dbias, Tensor dresidual)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(cnngraph, Autograd, library) {
  library.impl("batch_norm_act", &batch_norm_act_autograd);
  library.impl("batch_norm_act_backward", &batch_norm_act_backward_autograd);
}

}  // namespace
}  // namespace cnngraph
