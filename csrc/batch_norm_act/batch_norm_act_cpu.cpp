// The CPU implementation around the loops. batch_norm_act_cpu.h cuts tensors into tasks.
#include "batch_norm_act_cpu.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include "../cpu/capability.h"

namespace cnngraph {

const BatchNormActKernels& batch_norm_act_kernels() {
  return CNNGRAPH_KERNELS_IN_USE(batch_norm_act);
}

namespace {

using at::Tensor;

template <class Scalar>
Statistics forward(const BatchNormArguments& call, double eps, const ActivationSpec& act,
                   const Tensor& output) {
  Tensor mean = call.mean, var = call.var;
  const bool batch_statistics = !mean.defined();
  if (batch_statistics) std::tie(mean, var) = statistics_of_batch<Scalar>(call, Cut(call));
  const Cut cut(call, call.stride_of(output).value());
  const CoefficientTable<Scalar> coefficients(call.weight, call.bias, cut, mean, var, eps);
  const DataType data_type = call.data_type;
  const bool streams = cut.streams(output, cut.y_stride);
  for_each_task(cut, batch_statistics, [&](const Task& task, double*) {
    batch_norm_act_kernels().forward(
        data_type, act.activation, act.arguments, at_element(call.input, task.begin.x),
        at_element(call.residual, task.begin.dense), coefficients.from(task),
        at_mutable_element(output, task.begin.y), task.block, streams);
  });
  if (batch_statistics) return {mean, var};
  const auto options = call.input.options().dtype(call.compute_type);
  return {at::empty({0}, options), at::empty({0}, options)};
}

// With a residual the first pass writes dz, the residual's gradient, and the last pass reads it,
// which is less work than recomputing dz from the residual.
template <class Scalar>
Gradients backward(const BatchNormArguments& call, const Tensor& grad_output, bool batch_statistics,
                   double eps, ActivationSpec act, at::ScalarType weight_type,
                   at::ScalarType bias_type, std::array<bool, 4> output_mask) {
  // The gradient of a concatenated tensor is read in place, unless dz replaces it.
  const auto stride = call.has_residual() ? std::nullopt : call.stride_of(grad_output);
  Tensor grad = stride ? grad_output : call.in_layout(grad_output);
  const Cut cut(call, stride.value_or(call.stride()));
  const DataType data_type = call.data_type;
  const int64_t channels = call.channels;
  CoefficientTable<Scalar> coefficients(call.weight, call.bias, cut, call.mean, call.var, eps);

  const auto options = call.input.options();
  Tensor dinput = at::empty({0}, options);
  Tensor dweight = at::empty({0}, options.dtype(weight_type));
  Tensor dbias = at::empty({0}, options.dtype(bias_type));
  Tensor dresidual = at::empty({0}, options);
  if (output_mask[1] || output_mask[2] || batch_statistics || call.has_residual()) {
    PartialSums sums(cut);
    Tensor dz = call.has_residual() ? call.empty() : Tensor();
    const bool streams = dz.defined() && cut.streams(dz, cut.stride());
    for_each_task(cut, false, [&](const Task& task, double* scratch) {
      batch_norm_act_kernels().backward_sums(
          data_type, act.activation, act.arguments, at_element(call.input, task.begin.x),
          at_element(call.residual, task.begin.dense), at_element(call.output, task.begin.dense),
          at_element(grad, task.begin.y), coefficients.from(task),
          at_mutable_element(dz, task.begin.dense), task.block, sums.first(task), sums.second(task),
          scratch, streams);
    });
    if (dz.defined()) {
      if (output_mask[3]) dresidual = dz;
      grad = dz;
      act.activation = Activation::identity;
    }
    std::unique_ptr<double[]> merged(new double[2 * channels]);
    double *sum_dz = merged.get(), *sum_dz_x = merged.get() + channels;
    sums.add(sum_dz, sum_dz_x);
    const auto column = [&](at::ScalarType type, auto value) {
      Tensor values = at::empty({channels}, options.dtype(call.compute_type));
      Scalar* to = values.mutable_data_ptr<Scalar>();
      for (int64_t c = 0; c < channels; ++c) to[c] = static_cast<Scalar>(value(c));
      return values.to(type);
    };
    if (output_mask[1]) {
      dweight =
          column(weight_type, [&](int64_t c) { return sum_dz_x[c] * coefficients.invstd(c); });
    }
    if (output_mask[2]) dbias = column(bias_type, [&](int64_t c) { return sum_dz[c]; });
    if (batch_statistics) {
      coefficients.set_gradient(sum_dz, sum_dz_x, static_cast<double>(call.values_per_channel()));
    }
  }
  if (!output_mask[0]) return {dinput, dweight, dbias, dresidual};
  if (!batch_statistics) coefficients.set_gradient_of_affine();
  dinput = call.empty();
  const bool streams = cut.streams(dinput, cut.stride());
  for_each_task(cut, true, [&](const Task& task, double*) {
    batch_norm_act_kernels().backward(
        data_type, act.activation, act.arguments, at_element(call.input, task.begin.x),
        at_element(grad, task.begin.y), coefficients.from(task),
        at_mutable_element(dinput, task.begin.dense), task.block, streams);
  });
  return {dinput, dweight, dbias, dresidual};
}

}  // namespace

Statistics batch_norm_act_into_cpu(const BatchNormArguments& call, double eps,
                                   const ActivationSpec& act, const Tensor& output) {
  if (!call.mean.defined()) check_batch_size(call.input);
  if (call.input.numel() == 0) {
    const int64_t channels = call.mean.defined() ? 0 : call.channels;
    const auto options = call.input.options().dtype(call.compute_type);
    return {at::zeros({channels}, options), at::zeros({channels}, options)};
  }
  return call.compute_type == at::kDouble ? forward<double>(call, eps, act, output)
                                          : forward<float>(call, eps, act, output);
}

namespace {

Tensors batch_norm_act_cpu(const Tensor& input, const OptionalTensor& weight,
                           const OptionalTensor& bias, const OptionalTensor& mean,
                           const OptionalTensor& var, double eps, c10::string_view activation,
                           at::ArrayRef<double> activation_args, const OptionalTensor& residual) {
  const auto act = parse_activation(activation, activation_args);
  const auto call = check_arguments(input, weight, bias, mean, var, residual);
  const Tensor output = call.empty();
  const auto [batch_mean, batch_var] = batch_norm_act_into_cpu(call, eps, act, output);
  return {output, batch_mean, batch_var};
}

Gradients batch_norm_act_backward_cpu(
    const Tensor& grad_output, const Tensor& input, const OptionalTensor& weight,
    const OptionalTensor& bias, const Tensor& mean, const Tensor& var, bool batch_statistics,
    double eps, c10::string_view activation, at::ArrayRef<double> activation_args,
    std::array<bool, 4> output_mask, const OptionalTensor& residual, const OptionalTensor& output) {
  const auto act = parse_activation(activation, activation_args);
  const auto call =
      check_arguments_of_backward(input, weight, bias, mean, var, act, residual, output);
  check_gradient(grad_output, input);
  const auto type_of = [&](const at::Tensor& checked, const OptionalTensor& given) {
    return checked.defined() ? given->scalar_type() : call.compute_type;
  };
  const at::ScalarType weight_type = type_of(call.weight, weight);
  const at::ScalarType bias_type = type_of(call.bias, bias);
  if (input.numel() == 0) {
    const auto zeros = [&](bool wanted, at::ScalarType type) {
      return at::zeros({wanted ? call.channels : 0}, input.options().dtype(type));
    };
    const auto empty = [&](bool wanted) {
      return wanted ? call.empty() : at::empty({0}, input.options());
    };
    return {empty(output_mask[0]), zeros(output_mask[1], weight_type),
            zeros(output_mask[2], bias_type), empty(output_mask[3] && call.has_residual())};
  }
  return call.compute_type == at::kDouble
             ? backward<double>(call, grad_output, batch_statistics, eps, act, weight_type,
                                bias_type, output_mask)
             : backward<float>(call, grad_output, batch_statistics, eps, act, weight_type,
                               bias_type, output_mask);
}

TORCH_LIBRARY_IMPL(cnngraph, CPU, library) {
  library.impl("batch_norm_act", &batch_norm_act_cpu);
  library.impl("batch_norm_act_backward", &batch_norm_act_backward_cpu);
}

}  // namespace
}  // namespace cnngraph
