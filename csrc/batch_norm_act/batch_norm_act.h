// Shared by both backends of batch_norm_act: argument checks and memory layouts.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "batch_norm_act_kernels.h"

namespace cnngraph {

using OptionalTensor = std::optional<at::Tensor>;
using Tensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
// Of the input, the weight, the bias and the residual, in this order.
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

struct ActivationSpec {
  Activation activation;
  ActivationArguments arguments;
  at::Tensor (*torch)(const at::Tensor& z, ActivationArguments);  // torch's operator
};

// `name` is a function of torch.nn.functional; the tanh form of gelu is "gelu_tanh". Raises
// ValueError for an unknown name or a wrong number of arguments.
ActivationSpec parse_activation(std::string_view name, c10::ArrayRef<double> arguments);

// The distance in elements between a tensor's pixels (channels_last) or samples (contiguous). The
// tensor may be a slice of the channels of a larger one; any other layout gives nullopt.
std::optional<int64_t> outer_stride(const at::Tensor& tensor, bool channels_last);

// The checked, dense view of one call: tensors in the layout the kernels walk.
struct BatchNormArguments {
  // Contiguous, channels_last, or a slice of the channels of such a tensor; else a copy.
  at::Tensor input;
  at::Tensor weight, bias;  // in the type of computation, or undefined
  at::Tensor mean, var;     // likewise; undefined for batch statistics
  at::Tensor residual;      // laid out like empty(), or undefined
  at::Tensor output;        // likewise: in backward, a ReLU's output instead of the residual
  DataType data_type;
  at::ScalarType compute_type;
  bool channels_last;
  int64_t outer, channels, inner;  // samples x channels x pixels, or pixels x channels x 1
  int64_t input_stride;            // stride_of(input)

  int64_t values_per_channel() const { return outer * inner; }
  int64_t stride() const { return channels * inner; }
  // A dense tensor of the input's shape in the layout that the kernels walk.
  at::Tensor empty() const;
  // `other`, of the input's shape, in the layout of empty(): itself or a copy.
  at::Tensor in_layout(const at::Tensor& other) const;
  // The outer_stride of `other`, of the input's shape, in the layout that the kernels walk.
  std::optional<int64_t> stride_of(const at::Tensor& other) const;
  bool has_residual() const { return residual.defined() || output.defined(); }
};

BatchNormArguments check_arguments(const at::Tensor& input, const OptionalTensor& weight,
                                   const OptionalTensor& bias, const OptionalTensor& mean,
                                   const OptionalTensor& var, const OptionalTensor& residual);

// For backward: after a residual and a ReLU, the output may be given instead of the residual.
BatchNormArguments check_arguments_of_backward(const at::Tensor& input,
                                               const OptionalTensor& weight,
                                               const OptionalTensor& bias, const at::Tensor& mean,
                                               const at::Tensor& var, const ActivationSpec& act,
                                               const OptionalTensor& residual,
                                               const OptionalTensor& output);

// The mean and biased variance of a batch, in the type of computation; empty if both were given.
using Statistics = std::pair<at::Tensor, at::Tensor>;

// Writes the output of a call into `output`, for which call.stride_of must have a value.
using BatchNormActInto = Statistics(const BatchNormArguments& call, double eps,
                                    const ActivationSpec& act, const at::Tensor& output);
BatchNormActInto batch_norm_act_into_cpu, batch_norm_act_into_cuda;

// Raises unless the gradient has the input's shape, type and device.
void check_gradient(const at::Tensor& grad_output, const at::Tensor& input);

// Calls the operators through the dispatcher.
Tensors batch_norm_act(const at::Tensor& input, const OptionalTensor& weight,
                       const OptionalTensor& bias, const OptionalTensor& mean,
                       const OptionalTensor& var, double eps, c10::string_view activation,
                       at::ArrayRef<double> activation_args, const OptionalTensor& residual);
Gradients batch_norm_act_backward(const at::Tensor& grad_output, const at::Tensor& input,
                                  const OptionalTensor& weight, const OptionalTensor& bias,
                                  const at::Tensor& mean, const at::Tensor& var,
                                  bool batch_statistics, double eps, c10::string_view activation,
                                  at::ArrayRef<double> activation_args,
                                  std::array<bool, 4> output_mask, const OptionalTensor& residual,
                                  const OptionalTensor& output);

// Raises torch's ValueError for one value per channel, for which there are no statistics.
void check_batch_size(const at::Tensor& input);

}  // namespace cnngraph
