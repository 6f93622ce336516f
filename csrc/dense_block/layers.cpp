// The order of the steps. Convolutions are conv2d's; norms of maps that only one layer reads are
// batch_norm_act's.
//
// The statistics of a map do not depend on the layer that reads it, so they are computed once, when
// the map is. In backward, a norm with batch statistics gives
//
//   dx = scale * dz + offset + slope * (x - mean)
//
// where scale is known in advance, and offset and slope follow from the sums of dz and of
// dz * (x - mean). So one pass adds scale * dz to the gradient and computes the sums; the offsets
// and slopes of all layers that read a map are added up per channel and applied once, just before
// the gradient of that map is used.
#include "layers.h"

#include <ATen/ATen.h>

#include "../checks.h"
#include "../conv2d/convolution.h"

namespace cnngraph {
namespace {

using at::Tensor;

// At stride 1.
Tensor convolve(const Tensor& input, const DenseBlockStep& step) {
  return convolution(input, step.conv_weight, step.conv_bias, {1, 1}, step.padding, step.dilation,
                     step.groups);
}

ConvGradients convolve_backward(const Tensor& grad, const Tensor& input, const DenseBlockStep& step,
                                std::array<bool, 3> output_mask) {
  return convolution_backward(grad, input, step.conv_weight, {1, 1}, step.padding, step.dilation,
                              step.groups, output_mask);
}

// With the strides of `like`: autograd then takes the gradient over without a copy.
Tensor laid_out_as(const Tensor& gradient, const Tensor& like) {
  return gradient.strides() == like.strides() ? gradient : at::empty_like(like).copy_(gradient);
}

// The statistics of the maps in the growing buffer, computed as maps are appended.
class StatisticsOfMaps {
 public:
  StatisticsOfMaps(const DenseBlockPasses& passes, int64_t channels, at::TensorOptions options)
      : passes_(passes),
        mean_(at::empty({channels}, options)),
        var_(at::empty({channels}, options)) {}

  void add(const Tensor& map) {
    passes_.statistics(map, mean_.narrow(0, channels_, map.size(1)),
                       var_.narrow(0, channels_, map.size(1)));
    channels_ += map.size(1);
  }
  Tensor mean() const { return mean_.narrow(0, 0, channels_).clone(); }
  Tensor var() const { return var_.narrow(0, 0, channels_).clone(); }

 private:
  const DenseBlockPasses& passes_;
  Tensor mean_, var_;
  int64_t channels_ = 0;
};

std::vector<Tensor> in_type(at::TensorList tensors, at::ScalarType type) {
  std::vector<Tensor> result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.to(type).contiguous());
  return result;
}

}  // namespace

DenseBlockResults dense_block_forward(const DenseBlockArguments& call,
                                      const DenseBlockPasses& passes, at::TensorList fixed_means,
                                      at::TensorList fixed_vars, Keep keep) {
  const bool batch_statistics = fixed_means.empty();
  std::vector<Tensor> means = in_type(fixed_means, call.compute_type);
  std::vector<Tensor> vars = in_type(fixed_vars, call.compute_type);
  std::vector<Tensor> maps, activations;
  Tensor output = call.empty_map(call.channels.back());
  StatisticsOfMaps statistics(passes, call.channels.back(),
                              call.input.options().dtype(call.compute_type));
  int64_t written = 0;
  const auto append = [&](const Tensor& map) {
    output.narrow(1, written, map.size(1)).copy_(map);
    written += map.size(1);
    if (batch_statistics && written < call.channels.back()) statistics.add(map);
  };

  append(call.input);
  for (int64_t layer = 0, i = 0; layer < call.layers(); ++layer) {
    Tensor map;
    for (int64_t inner = 0; inner < call.steps_of_layer; ++inner, ++i) {
      const DenseBlockStep& step = call.steps[i];
      Tensor activation;
      if (inner == 0) {
        if (batch_statistics) {
          means.push_back(statistics.mean());
          vars.push_back(statistics.var());
        }
        if (passes.multiplies(step)) {
          map = passes.product(output, step, means[i], vars[i]);
          if (keep == Keep::activations) activations.push_back(at::empty({0}, map.options()));
          continue;
        }
        activation = passes.normalised(output, step, means[i], vars[i]);
      } else {
        OptionalTensor mean, var;
        if (!batch_statistics) mean = means[i], var = vars[i];
        const auto [result, batch_mean, batch_var] =
            batch_norm_act(map, step.norm_weight, step.norm_bias, mean, var, call.eps,
                           call.activation, call.activation_args, {});
        if (batch_statistics) {
          means.push_back(batch_mean);
          vars.push_back(batch_var);
        }
        if (keep != Keep::nothing) maps.push_back(map);
        activation = result;
      }
      map = convolve(activation, step).contiguous(call.layout);
      if (keep == Keep::activations) activations.push_back(activation);
    }
    append(map);
  }
  if (!batch_statistics) means.clear(), vars.clear();
  return {output, means, vars, maps, activations};
}

namespace {

// The gradients to compute, by the position at which forward uses the tensors: the input, then each
// step's norm and convolution. Nothing below the lowest of them needs a gradient.
class Wanted {
 public:
  Wanted(const c10::List<bool>& mask, int64_t steps, bool conv_biases)
      : mask_(mask), steps_(steps), conv_biases_(conv_biases) {
    while (lowest_ <= 2 * steps && !at(lowest_)) ++lowest_;
  }

  static int64_t norm(int64_t step) { return 1 + 2 * step; }
  static int64_t conv(int64_t step) { return 2 + 2 * step; }

  bool input() const { return mask_[0]; }
  bool norm_weight(int64_t step) const { return mask_[1 + step]; }
  bool norm_bias(int64_t step) const { return mask_[1 + steps_ + step]; }
  bool conv_weight(int64_t step) const { return mask_[1 + 2 * steps_ + step]; }
  bool conv_bias(int64_t step) const { return conv_biases_ && mask_[1 + 3 * steps_ + step]; }
  bool below(int64_t position) const { return lowest_ < position; }

 private:
  bool at(int64_t position) const {
    if (position == 0) return input();
    const int64_t step = (position - 1) / 2;
    return position == norm(step) ? norm_weight(step) || norm_bias(step)
                                  : conv_weight(step) || conv_bias(step);
  }

  const c10::List<bool>& mask_;
  int64_t steps_;
  bool conv_biases_;
  int64_t lowest_ = 0;
};

// Raises unless these are what forward returned for this call. The maps that are not the first of a
// layer are listed apart; an activation is empty if its convolution is computed with its norm.
void check_kept(const DenseBlockArguments& call, const DenseBlockPasses& passes,
                const Tensor& grad_output, const Tensor& output, at::TensorList means,
                at::TensorList maps, at::TensorList activations, size_t gradients) {
  const char* op = "dense_block_backward";
  const size_t steps = call.steps.size();
  const bool conv_biases = call.steps[0].conv_bias.has_value();
  check_length(op, "values of output_mask", gradients, 1 + steps * (conv_biases ? 4 : 3));
  check_length(op, "means", means.size(), steps);
  check_length(op, "maps", maps.size(), call.layers() * (call.steps_of_layer - 1));
  if (!activations.empty()) check_length(op, "activations", activations.size(), steps);
  const auto check_map = [&](const char* name, const Tensor& map, int64_t channels) {
    const auto sizes = call.input.sizes();
    check_sizes(op, name, map, {sizes[0], channels, sizes[2], sizes[3]});
    check_kind(op, name, map, call.input);
  };
  check_map("an output", output, call.channels.back());
  check_map("a gradient", grad_output, call.channels.back());
  auto map = maps.begin();
  for (size_t i = 0; i < steps; ++i) {
    const int64_t channels = call.steps[i].norm_weight.size(0);
    const bool first = i % call.steps_of_layer == 0;
    if (!first) check_map("a map", *map++, channels);
    if (!activations.empty() && !(first && passes.multiplies(call.steps[i]))) {
      check_map("an activation", activations[i], channels);
    }
  }
}

}  // namespace

std::vector<Tensor> dense_block_backward(const DenseBlockArguments& call,
                                         const DenseBlockPasses& passes, const Tensor& grad_output,
                                         const Tensor& given_output, at::TensorList given_means,
                                         at::TensorList given_vars, bool batch_statistics,
                                         at::TensorList maps, at::TensorList activations,
                                         const c10::List<bool>& mask) {
  check_kept(call, passes, grad_output, given_output, given_means, maps, activations, mask.size());
  const Tensor output = call.as_map(given_output);
  const int64_t steps = static_cast<int64_t>(call.steps.size());
  const Wanted wanted(mask, steps, call.steps[0].conv_bias.has_value());
  const std::vector<Tensor> means = in_type(given_means, call.compute_type);
  const std::vector<Tensor> vars = in_type(given_vars, call.compute_type);
  std::vector<Tensor> gradients(mask.size());
  const int64_t norm_weights = 1, norm_biases = norm_weights + steps;
  const int64_t conv_weights = norm_biases + steps, conv_biases = conv_weights + steps;
  const auto fill = [&] {
    for (Tensor& gradient : gradients) {
      if (!gradient.defined()) gradient = at::empty({0}, call.input.options());
    }
    return gradients;
  };

  const int64_t channels_read = call.channels[call.layers() - 1];
  Tensor slope, offset;  // of the gradient of the maps; undefined for fixed statistics
  if (batch_statistics) {
    slope = at::zeros({channels_read}, call.input.options().dtype(call.compute_type));
    offset = at::zeros_like(slope);
  }
  Tensor partial = call.as_map(grad_output);
  bool own = false;  // whether `partial` may be changed in place
  const auto gradient_of_maps = [&](int64_t first, int64_t channels) {
    if (!batch_statistics || first >= channels_read) {
      return call.empty_map(channels).copy_(partial.narrow(1, first, channels));
    }
    const Tensor& mean = means[(call.layers() - 1) * call.steps_of_layer];
    return passes.finished(output, partial, first, channels, mean, slope, offset);
  };

  for (int64_t layer = call.layers() - 1; layer >= 0; --layer) {
    const int64_t channels = call.channels[layer];
    if (!wanted.below(Wanted::conv((layer + 1) * call.steps_of_layer - 1) + 1)) return fill();
    Tensor gradient = gradient_of_maps(channels, call.channels[layer + 1] - channels);
    for (int64_t inner = call.steps_of_layer - 1; inner >= 0; --inner) {
      const int64_t i = layer * call.steps_of_layer + inner;
      const DenseBlockStep& step = call.steps[i];
      const Tensor map =
          inner == 0 ? Tensor() : maps[layer * (call.steps_of_layer - 1) + inner - 1];
      const bool further = wanted.below(Wanted::conv(i));
      if (inner == 0 && passes.multiplies(step)) {
        if (wanted.conv_weight(i)) {
          gradients[conv_weights + i] = laid_out_as(
              passes.weight_gradient(output, gradient, step, means[i], vars[i]), step.conv_weight);
        }
      } else {
        Tensor activation;
        if (!activations.empty()) {
          activation = activations[i];
        } else if (!wanted.conv_weight(i)) {  // only the shape and layout are used
          activation = call.empty_map(step.norm_weight.size(0));
        } else if (inner == 0) {
          activation = passes.normalised(output, step, means[i], vars[i]);
        } else {
          activation =
              std::get<0>(batch_norm_act(map, step.norm_weight, step.norm_bias, means[i], vars[i],
                                         call.eps, call.activation, call.activation_args, {}));
        }
        Tensor weight, bias;
        std::tie(gradient, weight, bias) = convolve_backward(
            gradient, activation, step, {further, wanted.conv_weight(i), wanted.conv_bias(i)});
        if (wanted.conv_weight(i)) {
          gradients[conv_weights + i] = laid_out_as(weight, step.conv_weight);
        }
        if (wanted.conv_bias(i)) gradients[conv_biases + i] = bias;
      }
      if (!further) return fill();
      gradient = gradient.contiguous(call.layout);
      if (inner > 0) {
        const bool of_map = wanted.below(Wanted::norm(i));
        Tensor weight, bias;
        std::tie(gradient, weight, bias, std::ignore) = batch_norm_act_backward(
            gradient, map, step.norm_weight, step.norm_bias, means[i], vars[i], batch_statistics,
            call.eps, call.activation, call.activation_args,
            {of_map, wanted.norm_weight(i), wanted.norm_bias(i), false}, {}, {});
        if (wanted.norm_weight(i)) gradients[norm_weights + i] = weight;
        if (wanted.norm_bias(i)) gradients[norm_biases + i] = bias;
        if (!of_map) return fill();
        continue;
      }
      const Tensor sum = own ? partial : call.empty_map(channels);
      const auto [weight, bias] = passes.add_gradient(output, gradient, partial, sum, step,
                                                      means[i], vars[i], slope, offset);
      partial = sum;
      own = true;
      if (wanted.norm_weight(i)) {
        gradients[norm_weights + i] = weight.to(step.norm_weight.scalar_type());
      }
      if (wanted.norm_bias(i)) {
        gradients[norm_biases + i] = bias.to(step.norm_bias.scalar_type());
      }
    }
  }
  if (wanted.input()) gradients[0] = gradient_of_maps(0, call.input.size(1));
  return fill();
}

}  // namespace cnngraph
