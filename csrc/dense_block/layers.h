// The forward and backward of a dense block, for any device that implements DenseBlockPasses.
#pragma once

#include <c10/core/impl/LocalDispatchKeySet.h>

#include "dense_block.h"

namespace cnngraph {

// The passes of one call over maps in its layout. `maps` is the growing buffer; a pass covers its
// first channels, as many as the norm has. Per-channel numbers are in the type of computation.
class DenseBlockPasses {
 public:
  virtual ~DenseBlockPasses() = default;

  // The mean and the biased variance of a map's channels.
  virtual void statistics(const at::Tensor& map, const at::Tensor& mean,
                          const at::Tensor& var) const = 0;

  // activation(norm(maps)): the input of a layer's first convolution.
  virtual at::Tensor normalised(const at::Tensor& maps, const DenseBlockStep& step,
                                const at::Tensor& mean, const at::Tensor& var) const = 0;

  // Whether the device computes a layer's first convolution together with its norm, one block of
  // pixels at a time, so that the normalised map is never stored.
  virtual bool multiplies(const DenseBlockStep&) const { return false; }

  // For such a step: the convolution of the normalised maps, and the gradient of its weight.
  virtual at::Tensor product(const at::Tensor&, const DenseBlockStep&, const at::Tensor&,
                             const at::Tensor&) const {
    TORCH_INTERNAL_ASSERT(false);
  }
  virtual at::Tensor weight_gradient(const at::Tensor&, const at::Tensor&, const DenseBlockStep&,
                                     const at::Tensor&, const at::Tensor&) const {
    TORCH_INTERNAL_ASSERT(false);
  }

  // sum = addend + scale * dz; `addend` may be `sum`. `dy` is the gradient of the normalised maps,
  // or, for a step that `multiplies`, of the convolution's result. Adds to `slope` and `offset` if
  // defined, and returns the gradients of the norm's weight and bias.
  virtual std::pair<at::Tensor, at::Tensor> add_gradient(
      const at::Tensor& maps, const at::Tensor& dy, const at::Tensor& addend, const at::Tensor& sum,
      const DenseBlockStep& step, const at::Tensor& mean, const at::Tensor& var,
      const at::Tensor& slope, const at::Tensor& offset) const = 0;

  // partial + offset + slope * (x - mean) over channels [first, first + channels).
  virtual at::Tensor finished(const at::Tensor& maps, const at::Tensor& partial, int64_t first,
                              int64_t channels, const at::Tensor& mean, const at::Tensor& slope,
                              const at::Tensor& offset) const = 0;
};

DenseBlockResults dense_block_forward(const DenseBlockArguments& call,
                                      const DenseBlockPasses& passes, at::TensorList fixed_means,
                                      at::TensorList fixed_vars, Keep keep);

std::vector<at::Tensor> dense_block_backward(
    const DenseBlockArguments& call, const DenseBlockPasses& passes, const at::Tensor& grad_output,
    const at::Tensor& output, at::TensorList means, at::TensorList vars, bool batch_statistics,
    at::TensorList maps, at::TensorList activations, const c10::List<bool>& output_mask);

// The operators on a device with these passes.
template <class Passes>
DenseBlockResults dense_block_on(const at::Tensor& input, at::TensorList norm_weights,
                                 at::TensorList norm_biases, at::TensorList conv_weights,
                                 at::TensorList conv_biases, at::TensorList means,
                                 at::TensorList vars, double eps, c10::string_view activation,
                                 at::ArrayRef<double> activation_args, at::IntArrayRef dilation,
                                 at::IntArrayRef groups, int64_t steps_of_layer, int64_t keep) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const auto call =
      check_arguments(input, norm_weights, norm_biases, conv_weights, conv_biases, means, vars, eps,
                      activation, activation_args, dilation, groups, steps_of_layer);
  TORCH_CHECK(keep >= 0 && keep <= static_cast<int64_t>(Keep::activations),
              "dense_block: `keep` must be 0, 1 or 2, got ", keep);
  if (means.empty()) check_batch_size(input);
  return dense_block_forward(call, Passes(call), means, vars, static_cast<Keep>(keep));
}

template <class Passes>
std::vector<at::Tensor> dense_block_backward_on(
    const at::Tensor& grad_output, const at::Tensor& output, at::TensorList maps,
    at::TensorList activations, const at::Tensor& input, at::TensorList norm_weights,
    at::TensorList norm_biases, at::TensorList conv_weights, at::TensorList conv_biases,
    at::TensorList means, at::TensorList vars, bool batch_statistics, double eps,
    c10::string_view activation, at::ArrayRef<double> activation_args, at::IntArrayRef dilation,
    at::IntArrayRef groups, int64_t steps_of_layer, c10::List<bool> output_mask) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const auto call =
      check_arguments(input, norm_weights, norm_biases, conv_weights, conv_biases, means, vars, eps,
                      activation, activation_args, dilation, groups, steps_of_layer);
  return dense_block_backward(call, Passes(call), grad_output, output, means, vars,
                              batch_statistics, maps, activations, output_mask);
}

}  // namespace cnngraph
