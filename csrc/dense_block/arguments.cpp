// The checks of dense_block, and the channels and geometry that follow from its weights.
#include <ATen/ATen.h>

#include "../checks.h"
#include "../data_type_of.h"
#include "dense_block.h"

namespace cnngraph {

std::array<int64_t, 2> check_padding(const at::Tensor& weight, at::IntArrayRef dilation) {
  std::array<int64_t, 2> padding;
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t taps = weight.size(2 + axis) - 1;
    TORCH_CHECK(taps <= most_of_geometry && dilation[axis] * taps <= 2 * most_of_geometry &&
                    dilation[axis] * taps % 2 == 0,
                "dense_block: a kernel of ", weight.sizes().slice(2), " with dilation ", dilation,
                " cannot keep the map's size");
    padding[axis] = dilation[axis] * taps / 2;
  }
  return padding;
}

void check_lengths(at::TensorList norm_weights, at::TensorList norm_biases,
                   at::TensorList conv_weights, at::TensorList conv_biases, at::TensorList means,
                   at::TensorList vars, at::IntArrayRef dilation, at::IntArrayRef groups,
                   int64_t steps_of_layer) {
  const char* op = "dense_block";
  const size_t steps = norm_weights.size();
  TORCH_CHECK(steps > 0 && steps_of_layer > 0 && steps % steps_of_layer == 0,
              "dense_block: layers of ", steps_of_layer, " norms cannot hold ", steps);
  check_length(op, "norm biases", norm_biases.size(), steps);
  check_length(op, "convolution weights", conv_weights.size(), steps);
  if (!conv_biases.empty()) check_length(op, "convolution biases", conv_biases.size(), steps);
  if (!means.empty()) check_length(op, "means", means.size(), steps);
  check_length(op, "variances", vars.size(), means.size());
  check_length(op, "dilations", dilation.size(), 2 * steps);
  check_length(op, "numbers of groups", groups.size(), steps);
}

DenseBlockArguments check_arguments(const at::Tensor& input, at::TensorList norm_weights,
                                    at::TensorList norm_biases, at::TensorList conv_weights,
                                    at::TensorList conv_biases, at::TensorList means,
                                    at::TensorList vars, double eps, c10::string_view activation,
                                    at::ArrayRef<double> activation_args, at::IntArrayRef dilation,
                                    at::IntArrayRef groups, int64_t steps_of_layer) {
  check_lengths(norm_weights, norm_biases, conv_weights, conv_biases, means, vars, dilation, groups,
                steps_of_layer);
  TORCH_CHECK(input.dim() == 4 && input.numel() > 0,
              "dense_block: expected an input of 4 dimensions that is not empty, got shape ",
              input.sizes());
  DenseBlockArguments call;
  call.data_type = data_type_of(input, "dense_block");
  check_memory("dense_block", "the input", input);
  call.compute_type = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  call.layout = at::MemoryFormat::Contiguous;
  if (!input.is_contiguous()) call.layout = input.suggest_memory_format();
  call.input = input.contiguous(call.layout);
  call.steps_of_layer = steps_of_layer;
  call.eps = eps;
  call.activation = activation;
  call.activation_args = activation_args;

  const size_t steps = norm_weights.size();

  int64_t channels = input.size(1);  // read by the step
  call.channels.push_back(channels);
  for (size_t i = 0; i < steps; ++i) {
    const auto check_norm = [&](const char* name, const at::Tensor& tensor) {
      check_per_channel("dense_block", name, tensor, channels, input, call.compute_type);
    };
    check_norm("a norm's weight", norm_weights[i]);
    check_norm("a norm's bias", norm_biases[i]);
    if (!means.empty()) {
      check_norm("a mean", means[i]);
      check_norm("a variance", vars[i]);
    }
    const at::Tensor& weight = conv_weights[i];
    TORCH_CHECK(weight.dim() == 4 && weight.numel() > 0 && groups[i] > 0 &&
                    channels % groups[i] == 0 && weight.size(1) == channels / groups[i] &&
                    weight.size(0) % groups[i] == 0,
                "dense_block: expected a convolution weight of 4 dimensions and ", channels,
                " input channels in ", groups[i], " groups, got shape ", weight.sizes());
    check_kind("dense_block", "a convolution's weight", weight, input);
    OptionalTensor bias;
    if (!conv_biases.empty()) {
      bias = conv_biases[i];
      check_sizes("dense_block", "a convolution's bias", *bias, {weight.size(0)});
      check_kind("dense_block", "a convolution's bias", *bias, input);
    }
    const auto spread = check_pair("dense_block", "dilation", dilation.slice(2 * i, 2), 1);
    call.steps.push_back({norm_weights[i], norm_biases[i], weight, bias,
                          check_padding(weight, spread), spread, groups[i]});
    channels = weight.size(0);
    if ((i + 1) % steps_of_layer == 0) {
      call.channels.push_back(channels += call.channels.back());
    }
  }
  return call;
}

}  // namespace cnngraph
