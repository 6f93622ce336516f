// The forward of cat_batch_norm_act, the same on all devices but for the kernels of a batch norm.
#pragma once

#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/List.h>

#include "../batch_norm_act/batch_norm_act.h"

namespace cnngraph {

using OptionalTensors = c10::List<std::optional<at::Tensor>>;

// The output, and of each branch the mean and variance of its batch, empty where it took none.
using CatResults = std::tuple<at::Tensor, std::vector<at::Tensor>, std::vector<at::Tensor>>;

// What the branches are, one of each list a branch. See cat_batch_norm_act.cpp.
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

// The operator, with the kernels of one device.
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
