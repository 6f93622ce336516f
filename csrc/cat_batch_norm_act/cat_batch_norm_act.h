// The forward of cat_batch_norm_act, for any device with kernels of batch_norm_act.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/List.h>

#include <vector>

#include "../batch_norm_act/batch_norm_act.h"

namespace cnngraph {

using OptionalTensors = c10::List<std::optional<at::Tensor>>;

// The output, and the batch mean and variance of each branch, empty for branches without.
using CatResults = std::tuple<at::Tensor, std::vector<at::Tensor>, std::vector<at::Tensor>>;

// Lists with one element per branch. See cat_batch_norm_act.cpp.
struct CatArguments {
  at::TensorList inputs;
  const OptionalTensors &weights, &biases, &means, &vars;
  at::ArrayRef<double> eps;
  c10::List<bool> normalized, activated;
  c10::string_view activation;
  at::ArrayRef<double> activation_args;

  size_t branches() const { return inputs.size(); }
  bool from_output(size_t branch) const { return activated[branch] && !normalized[branch]; }
};

void check_lengths(const CatArguments& call);

CatResults cat_batch_norm_act(const CatArguments& call, BatchNormActInto* into);

// The operator for one device.
template <BatchNormActInto* into>
CatResults cat_batch_norm_act(at::TensorList inputs, const OptionalTensors& weights,
                              const OptionalTensors& biases, const OptionalTensors& means,
                              const OptionalTensors& vars, at::ArrayRef<double> eps,
                              c10::List<bool> normalized, c10::List<bool> activated,
                              c10::string_view activation, at::ArrayRef<double> activation_args) {
  return cat_batch_norm_act({inputs, weights, biases, means, vars, eps, normalized, activated,
                             activation, activation_args},
                            into);
}

}  // namespace cnngraph
