// What both backends of batch_norm_act share with torch: argument checks and the memory layouts.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include "batch_norm_act_kernels.h"

namespace cnngraph {

using OptionalTensor = std::optional<at::Tensor>;
using Tensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
// Of the input, the weight, the bias and the residual.
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

struct ActivationSpec {
  Activation activation;
  ActivationArguments arguments;
  at::Tensor (*torch)(const at::Tensor& z, ActivationArguments);  // the same, by torch's operator
};

// `name` is the function's in torch.nn.functional; gelu's tanh form is "gelu_tanh". What it knows
// are the operator's activations: the switch in with_activation follows the enumeration.
ActivationSpec parse_activation(std::string_view name, c10::ArrayRef<double> arguments);

DataType data_type_of(const at::Tensor& input);

// How far apart a tensor's pixels are, or its samples where it is not channels_last, be it a slice
// of the channels of a larger tensor. Nothing where it lies in another way.
std::optional<int64_t> outer_stride(const at::Tensor& tensor, bool channels_last);

// The checked, dense view of one call: tensors in the layout the kernels walk.
struct BatchNormArguments {
  // Contiguous or channels_last, or a slice of the channels of such a tensor; a copy where it was
  // neither.
  at::Tensor input;
  at::Tensor weight, bias;  // in the type of computation, or undefined
  at::Tensor mean, var;     // likewise; undefined means the batch's own
  at::Tensor residual;      // laid out as what empty() gives, or undefined
  at::Tensor output;        // likewise: that of a ReLU, in backward, in the residual's place
  at::ScalarType compute_type;
  bool channels_last;
  int64_t outer, channels, inner;  // samples x channels x pixels, or pixels x channels x 1
  int64_t input_stride;            // what stride_of tells of the input

  int64_t values_per_channel() const { return outer * inner; }
  int64_t stride() const { return channels * inner; }
  // A tensor of the input's shape in the layout that is walked, and no slice.
  at::Tensor empty() const;
  // `other`, of the input's shape, laid out as that: itself where it is so already.
  at::Tensor in_layout(const at::Tensor& other) const;
  // The outer_stride of `other`, of the input's shape, in the layout that is walked.
  std::optional<int64_t> stride_of(const at::Tensor& other) const;
  bool has_residual() const { return residual.defined() || output.defined(); }
};

BatchNormArguments check_arguments(const at::Tensor& input, const OptionalTensor& weight,
                                   const OptionalTensor& bias, const OptionalTensor& mean,
                                   const OptionalTensor& var, const OptionalTensor& residual);

// Those of a backward: of a residual's ReLU the output may be given and not the residual.
BatchNormArguments check_arguments_of_backward(
    const at::Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias,
    const at::Tensor& mean, const at::Tensor& var, const ActivationSpec& act,
    const OptionalTensor& residual, const OptionalTensor& output);

// The mean and the biased variance of a batch, in the type of computation; empty where both were
// given.
using Statistics = std::pair<at::Tensor, at::Tensor>;

// Writes the output of a call where it is told, which call.stride_of must know.
using BatchNormActInto = Statistics(const BatchNormArguments& call, double eps,
                                    const ActivationSpec& act, const at::Tensor& output);
BatchNormActInto batch_norm_act_into_cpu, batch_norm_act_into_cuda;

// The gradient of the output must be like the input.
void check_gradient(const at::Tensor& grad_output, const at::Tensor& input);

// The operators, for kernels that are made of them.
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

// PyTorch refuses one value per channel when it must take statistics; so do we, in its words.
void check_batch_size(const at::Tensor& input);

}  // namespace cnngraph
