// The checked arguments of one call of dense_block.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/List.h>

#include <tuple>
#include <vector>

#include "../batch_norm_act/batch_norm_act.h"

namespace cnngraph {

// What a call keeps for backward.
enum class Keep : int64_t { nothing, maps, activations };

// The output, the mean and variance of every norm, the maps between the convolutions of each layer,
// and the input of every convolution. See dense_block.cpp.
using DenseBlockResults = std::tuple<at::Tensor, std::vector<at::Tensor>, std::vector<at::Tensor>,
                                     std::vector<at::Tensor>, std::vector<at::Tensor>>;

// A norm, an activation, and the convolution after it.
struct DenseBlockStep {
  at::Tensor norm_weight, norm_bias;  // as given
  at::Tensor conv_weight;
  OptionalTensor conv_bias;
  std::array<int64_t, 2> padding, dilation;
  int64_t groups;
};

struct DenseBlockArguments {
  at::Tensor input;  // contiguous or channels_last; a copy if it was neither
  at::MemoryFormat layout;
  DataType data_type;
  at::ScalarType compute_type;
  std::vector<DenseBlockStep> steps;  // layer after layer
  std::vector<int64_t> channels;      // read by each layer, then those of the output
  int64_t steps_of_layer;
  double eps;
  c10::string_view activation;
  at::ArrayRef<double> activation_args;

  // See Block.
  int64_t inner() const {
    return layout == at::MemoryFormat::Contiguous ? input.size(2) * input.size(3) : 1;
  }
  int64_t outer() const { return input.numel() / (input.size(1) * inner()); }

  int64_t layers() const { return static_cast<int64_t>(channels.size()) - 1; }
  at::Tensor empty_map(int64_t map_channels) const {
    return at::empty({input.size(0), map_channels, input.size(2), input.size(3)}, input.options(),
                     layout);
  }

  // `tensor`, or a copy if its outer indices are not evenly spaced.
  at::Tensor as_map(const at::Tensor& tensor) const {
    return outer_stride(tensor, inner() == 1) ? tensor : tensor.contiguous(layout);
  }
  int64_t stride_of(const at::Tensor& map) const { return outer_stride(map, inner() == 1).value(); }
};

// The padding that keeps the map's size.
std::array<int64_t, 2> check_padding(const at::Tensor& weight, at::IntArrayRef dilation);

// Raises unless the lists have one element per step, or as many as the steps need.
void check_lengths(at::TensorList norm_weights, at::TensorList norm_biases,
                   at::TensorList conv_weights, at::TensorList conv_biases, at::TensorList means,
                   at::TensorList vars, at::IntArrayRef dilation, at::IntArrayRef groups,
                   int64_t steps_of_layer);

DenseBlockArguments check_arguments(const at::Tensor& input, at::TensorList norm_weights,
                                    at::TensorList norm_biases, at::TensorList conv_weights,
                                    at::TensorList conv_biases, at::TensorList means,
                                    at::TensorList vars, double eps, c10::string_view activation,
                                    at::ArrayRef<double> activation_args, at::IntArrayRef dilation,
                                    at::IntArrayRef groups, int64_t steps_of_layer);

}  // namespace cnngraph
