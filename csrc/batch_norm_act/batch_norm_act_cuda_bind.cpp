// The CUDA implementation of the operators: allocates with torch and launches the kernels of
// batch_norm_act_cuda.cu on torch's current stream. Checked against torch's headers, but not yet
// run on a GPU. The file has another name because object files drop the extension.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "batch_norm_act.h"
#include "batch_norm_act_cuda.h"

namespace cnngraph {
namespace {

using at::Tensor;

const void* data_of(const Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr() : nullptr;
}

// The call, and the workspace it points to. Freed memory stays with its stream: no need to wait.
struct Launch {
  cuda::BatchNormAct call;
  Tensor workspace;

  // `y_stride` is the stride of the output or of its gradient.
  Launch(const BatchNormArguments& from, const ActivationSpec& act, double eps, int64_t y_stride) {
    const Block block = {from.outer,        from.channels, from.inner,
                         from.input_stride, y_stride,      from.stride()};
    workspace = at::empty({cuda::workspace_bytes(block)}, from.input.options().dtype(at::kByte));
    call = {from.data_type,
            act.activation,
            act.arguments,
            eps,
            block,
            data_of(from.input),
            data_of(from.residual),
            data_of(from.output),
            data_of(from.weight),
            data_of(from.bias),
            data_of(from.mean),
            data_of(from.var),
            workspace.mutable_data_ptr(),
            c10::cuda::getCurrentCUDAStream().stream()};
  }
};

Tensors batch_norm_act_cuda(const Tensor& input, const OptionalTensor& weight,
                            const OptionalTensor& bias, const OptionalTensor& mean,
                            const OptionalTensor& var, double eps, c10::string_view activation,
                            at::ArrayRef<double> activation_args, const OptionalTensor& residual) {
  const auto act = parse_activation(activation, activation_args);
  const auto arguments = check_arguments(input, weight, bias, mean, var, residual);
  const Tensor output = arguments.empty();
  const auto [batch_mean, batch_var] = batch_norm_act_into_cuda(arguments, eps, act, output);
  return {output, batch_mean, batch_var};
}

Gradients batch_norm_act_backward_cuda(
    const Tensor& grad_output, const Tensor& input, const OptionalTensor& weight,
    const OptionalTensor& bias, const Tensor& mean, const Tensor& var, bool batch_statistics,
    double eps, c10::string_view activation, at::ArrayRef<double> activation_args,
    std::array<bool, 4> output_mask, const OptionalTensor& residual, const OptionalTensor& output) {
  const c10::cuda::CUDAGuard guard(input.device());
  const auto act = parse_activation(activation, activation_args);
  const auto arguments =
      check_arguments_of_backward(input, weight, bias, mean, var, act, residual, output);
  check_gradient(grad_output, input);
  const auto column = [&](bool wanted, const Tensor& checked, const OptionalTensor& given) {
    const int64_t size = wanted ? arguments.channels : 0;
    const auto type = checked.defined() ? given->scalar_type() : arguments.compute_type;
    const auto options = input.options().dtype(arguments.compute_type);
    return std::pair(input.numel() > 0 ? at::empty({size}, options) : at::zeros({size}, options),
                     type);
  };
  auto [dweight, weight_type] = column(output_mask[1], arguments.weight, weight);
  auto [dbias, bias_type] = column(output_mask[2], arguments.bias, bias);
  const auto like_input = [&](bool wanted) {
    return wanted ? arguments.empty() : at::empty({0}, input.options());
  };
  Tensor dinput = like_input(output_mask[0]);
  // The kernels need it to compute the input's gradient.
  Tensor dresidual = like_input(arguments.has_residual());
  if (input.numel() > 0) {
    const auto stride = arguments.has_residual() ? std::nullopt : arguments.stride_of(grad_output);
    const Tensor grad = stride ? grad_output : arguments.in_layout(grad_output);
    const Launch launch(arguments, act, eps, stride.value_or(arguments.stride()));
    const auto wanted = [&](int i, Tensor& tensor) {
      return output_mask[i] ? tensor.mutable_data_ptr() : nullptr;
    };
    C10_CUDA_CHECK(cuda::backward(
        launch.call, grad.const_data_ptr(), batch_statistics, wanted(0, dinput), wanted(1, dweight),
        wanted(2, dbias), arguments.has_residual() ? dresidual.mutable_data_ptr() : nullptr));
  }
  if (!output_mask[3]) dresidual = at::empty({0}, input.options());
  return {dinput, dweight.to(weight_type), dbias.to(bias_type), dresidual};
}

}  // namespace

Statistics batch_norm_act_into_cuda(const BatchNormArguments& arguments, double eps,
                                    const ActivationSpec& act, const Tensor& output) {
  const c10::cuda::CUDAGuard guard(arguments.input.device());
  const bool batch_statistics = !arguments.mean.defined();
  if (batch_statistics) check_batch_size(arguments.input);
  const auto options = arguments.input.options().dtype(arguments.compute_type);
  const int64_t channels = batch_statistics ? arguments.channels : 0;
  if (arguments.input.numel() == 0) {
    return {at::zeros({channels}, options), at::zeros({channels}, options)};
  }
  Tensor mean = at::empty({channels}, options), var = at::empty({channels}, options);
  Launch launch(arguments, act, eps, arguments.stride_of(output).value());
  if (batch_statistics) {
    C10_CUDA_CHECK(cuda::statistics(launch.call, mean.mutable_data_ptr(), var.mutable_data_ptr()));
    launch.call.mean = mean.const_data_ptr();
    launch.call.var = var.const_data_ptr();
  }
  C10_CUDA_CHECK(cuda::forward(launch.call, output.mutable_data_ptr()));
  return {mean, var};
}

namespace {

TORCH_LIBRARY_IMPL(cnngraph, CUDA, library) {
  library.impl("batch_norm_act", &batch_norm_act_cuda);
  library.impl("batch_norm_act_backward", &batch_norm_act_backward_cuda);
}

}  // namespace
}  // namespace cnngraph
