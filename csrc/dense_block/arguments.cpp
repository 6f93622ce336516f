// The checks of dense_block, and the channels and geometry that follow from its weights.
#include <ATen/ATen.h>

#include "../data_type_of.h"
#include "dense_block.h"

namespace cnngraph {
namespace {

void check_parameters(at::TensorList tensors, const char* name, size_t steps) {
  TORCH_CHECK(tensors.size() == steps, "dense_block: expected ", steps, " ", name, ", got ",
              tensors.size());
}

void check_device(const at::Tensor& tensor, const char* name, const DenseBlockArguments& call) {
  TORCH_CHECK(tensor.device() == call.input.device(), "dense_block: ", name, " is on ",
              tensor.device(), ", the input on ", call.input.device());
}

void check_per_channel(const at::Tensor& tensor, const char* name, int64_t channels,
                       const DenseBlockArguments& call) {
  TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == channels, "dense_block: ", name,
              " should hold ", channels, " elements, one per channel, got shape ", tensor.sizes());
  TORCH_CHECK(
      tensor.scalar_type() == call.input.scalar_type() || tensor.scalar_type() == call.compute_type,
      "dense_block: expected ", name, " of type ", call.input.scalar_type(), " or ",
      call.compute_type, ", got ", tensor.scalar_type());
  check_device(tensor, name, call);
}

// The padding that keeps the map's size.
std::array<int64_t, 2> check_padding(const at::Tensor& weight, at::IntArrayRef dilation) {
  std::array<int64_t, 2> padding;
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t span = dilation[axis] * (weight.size(2 + axis) - 1);
    TORCH_CHECK(span % 2 == 0, "dense_block: a kernel of ", weight.sizes().slice(2),
                " with dilation ", dilation, " cannot keep the map's size");
    padding[axis] = span / 2;
  }
  return padding;
}

}  // namespace

DenseBlockArguments check_arguments(const at::Tensor& input, at::TensorList norm_weights,
                                    at::TensorList norm_biases, at::TensorList conv_weights,
                                    at::TensorList conv_biases, at::TensorList means,
                                    at::TensorList vars, double eps, c10::string_view activation,
                                    at::ArrayRef<double> activation_args, at::IntArrayRef dilation,
                                    at::IntArrayRef groups, int64_t steps_of_layer) {
  TORCH_CHECK(input.dim() == 4 && input.numel() > 0,
              "dense_block: expected an input of 4 dimensions that is not empty, got shape ",
              input.sizes());
  DenseBlockArguments call;
  call.data_type = data_type_of(input, "dense_block");
  call.compute_type = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  call.layout = at::MemoryFormat::Contiguous;
  if (!input.is_contiguous()) call.layout = input.suggest_memory_format();
  call.input = input.contiguous(call.layout);
  call.steps_of_layer = steps_of_layer;
  call.eps = eps;
  call.activation = activation;
  call.activation_args = activation_args;

  const size_t steps = norm_weights.size();
  TORCH_CHECK(steps > 0 && steps_of_layer > 0 && steps % steps_of_layer == 0,
              "dense_block: layers of ", steps_of_layer, " norms cannot hold ", steps);
  check_parameters(norm_biases, "norm biases", steps);
  check_parameters(conv_weights, "convolution weights", steps);
  if (!conv_biases.empty()) check_parameters(conv_biases, "convolution biases", steps);
  if (!means.empty()) check_parameters(means, "means", steps);
  check_parameters(vars, "variances", means.size());
  TORCH_CHECK(dilation.size() == 2 * steps && groups.size() == steps,
              "dense_block: expected two dilations and one number of groups per convolution");

  int64_t channels = input.size(1);  // read by the step
  call.channels.push_back(channels);
  for (size_t i = 0; i < steps; ++i) {
    check_per_channel(norm_weights[i], "a norm's weight", channels, call);
    check_per_channel(norm_biases[i], "a norm's bias", channels, call);
    if (!means.empty()) {
      check_per_channel(means[i], "a mean", channels, call);
      check_per_channel(vars[i], "a variance", channels, call);
    }
    const at::Tensor& weight = conv_weights[i];
    TORCH_CHECK(weight.dim() == 4 && weight.scalar_type() == input.scalar_type() &&
                    weight.size(1) * groups[i] == channels,
                "dense_block: expected a convolution weight of 4 dimensions, ", input.scalar_type(),
                " and ", channels, " input channels in ", groups[i], " groups, got ",
                weight.scalar_type(), " of shape ", weight.sizes());
    check_device(weight, "a convolution's weight", call);
    OptionalTensor bias;
    if (!conv_biases.empty()) {
      bias = conv_biases[i];
      check_device(*bias, "a convolution's bias", call);
    }
    const auto spread = dilation.slice(2 * i, 2);
    call.steps.push_back({norm_weights[i],
                          norm_biases[i],
                          weight,
                          bias,
                          check_padding(weight, spread),
                          {spread[0], spread[1]},
                          groups[i]});
    channels = weight.size(0);
    if ((i + 1) % steps_of_layer == 0) {
      call.channels.push_back(channels += call.channels.back());
    }
  }
  return call;
}

}  // namespace cnngraph
