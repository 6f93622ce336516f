// The CPU implementation of dense_block: the convolutions are those of conv2d, the passes between
// them are those of batch_norm_act and dense_block_loops.h.
//
// The statistics of a map do not depend on which layer reads it, so each map's are taken once, when
// it is made. In backward, a norm with its batch's statistics gives
//
//   dx = scale * dz + offset + slope * (x - mean)
//
// where scale is known before any sum is, and offset and slope follow from the sums of dz and of
// dz * (x - mean). So one pass adds scale * dz to the gradient and takes the sums; the offsets and
// slopes of all layers that read a map are added up per channel and applied once, just before the
// gradient of that map is used.
#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include "../batch_norm_act/batch_norm_act_cpu.h"
#include "../conv2d/conv2d.h"
#include "../cpu/capability.h"
#include "dense_block.h"
#include "dense_block_kernels.h"

namespace cnngraph {
namespace {

using at::Tensor;

const DenseBlockKernels& kernels() {
  static const DenseBlockKernels& chosen = CNNGRAPH_KERNELS_IN_USE(dense_block);
  return chosen;
}

// At stride 1.
Tensor convolve(const Tensor& input, const DenseBlockStep& step) {
  return convolution(input, step.conv_weight, step.conv_bias, {1, 1}, step.padding, step.dilation,
                     step.groups);
}

ConvGradients convolve_backward(const Tensor& grad, const Tensor& input,
                                const DenseBlockStep& step, std::array<bool, 3> output_mask) {
  return convolution_backward(grad, input, step.conv_weight, {1, 1}, step.padding, step.dilation,
                              step.groups, output_mask);
}

// Laid out as `like`: autograd takes a gradient over as it is where its parameter lies so.
Tensor laid_out_as(const Tensor& gradient, const Tensor& like) {
  return gradient.strides() == like.strides() ? gradient : at::empty_like(like).copy_(gradient);
}

// The maps of one call, and the passes over the first channels of their buffer.
template <class Scalar>
class Passes {
 public:
  explicit Passes(const DenseBlockArguments& call)
      : call_(call),
        act_(parse_activation(call.activation, call.activation_args)),
        data_type_(data_type_of(call.input)) {
    const int64_t pixels = call.input.size(2) * call.input.size(3);
    const bool planes = call.layout == at::MemoryFormat::Contiguous;
    outer_ = planes ? call.input.size(0) : call.input.size(0) * pixels;
    inner_ = planes ? pixels : 1;
  }

  double values_per_channel() const { return static_cast<double>(outer_ * inner_); }

  // What the first convolution of a layer reads.
  Tensor normalised(const Tensor& maps, int64_t channels, const DenseBlockStep& step,
                    const Tensor& mean, const Tensor& var) const {
    const Cut cut = cut_of(channels);
    const CoefficientTable<Scalar> coefficients = coefficients_of(step, cut, mean, var);
    const Tensor result = call_.empty_map(channels);
    for_each_task(cut, /*backwards=*/true, [&](const Task& task, double*) {
      const Strided x = at(maps, task);
      const MutableStrided y = at_mutable(result, task);
      Block block = task.block;
      block.x_stride = x.stride;
      block.y_stride = y.stride;
      batch_norm_act_kernels().forward(data_type_, act_.activation, act_.arguments, x.data,
                                       /*residual=*/nullptr, coefficients.from(task), y.data,
                                       block);
    });
    return result;
  }

  // sum = addend + scale * dz over the first channels, and the sums of dz and dz * (x - mean).
  CoefficientTable<Scalar> add_gradient(const Tensor& maps, const Tensor& dy, const Tensor& addend,
                                        const Tensor& sum, const Cut& cut,
                                        const DenseBlockStep& step, const Tensor& mean,
                                        const Tensor& var, double* sum_dz,
                                        double* sum_dz_x) const {
    CoefficientTable<Scalar> coefficients = coefficients_of(step, cut, mean, var);
    PartialSums sums(cut);
    for_each_task(cut, /*backwards=*/false, [&](const Task& task, double* scratch) {
      kernels().backward(data_type_, act_.activation, act_.arguments, at(maps, task), at(dy, task),
                         at(addend, task), coefficients.from(task), at_mutable(sum, task),
                         task.block, sums.first(task), sums.second(task), scratch);
    });
    sums.add(sum_dz, sum_dz_x);
    return coefficients;
  }

  // partial + offset + slope * (x - mean) over `channels` channels from `first` on.
  Tensor finished(const Tensor& maps, const Tensor& partial, int64_t first, int64_t channels,
                  const Tensor& mean, const Scalar* slope, const Scalar* offset) const {
    const Cut cut = cut_of(channels);
    const Scalar* means = mean.const_data_ptr<Scalar>();
    const Tensor result = call_.empty_map(channels);
    for_each_task(cut, /*backwards=*/true, [&](const Task& task, double*) {
      const int64_t column = first + task.column;
      kernels().finish(data_type_, at(maps, task, first), at(partial, task, first),
                       means + column, slope + column, offset + column, at_mutable(result, task),
                       task.block);
    });
    return result;
  }

  Cut cut_of(int64_t channels) const {
    return {outer_, channels, inner_, call_.input.element_size(), /*dense=*/false};
  }

 private:
  CoefficientTable<Scalar> coefficients_of(const DenseBlockStep& step, const Cut& cut,
                                           const Tensor& mean, const Tensor& var) const {
    return {step.norm_weight.to(call_.compute_type).contiguous(),
            step.norm_bias.to(call_.compute_type).contiguous(), cut, mean, var, call_.eps};
  }

  int64_t stride_of(const Tensor& tensor) const { return tensor.size(1) * inner_; }
  int64_t byte_of(const Tensor& tensor, const Task& task, int64_t first) const {
    return (task.outer * stride_of(tensor) + (first + task.column) * inner_) *
           tensor.element_size();
  }
  Strided at(const Tensor& tensor, const Task& task, int64_t first = 0) const {
    return {static_cast<const char*>(tensor.const_data_ptr()) + byte_of(tensor, task, first),
            stride_of(tensor)};
  }
  MutableStrided at_mutable(const Tensor& tensor, const Task& task) const {
    return {static_cast<char*>(tensor.mutable_data_ptr()) + byte_of(tensor, task, 0),
            stride_of(tensor)};
  }

  const DenseBlockArguments& call_;
  ActivationSpec act_;
  DataType data_type_;
  int64_t outer_, inner_;
};

// The statistics of the maps of the growing buffer, taken as they are made.
class StatisticsOfMaps {
 public:
  StatisticsOfMaps(int64_t channels, at::TensorOptions options)
      : mean_(at::empty({channels}, options)), var_(at::empty({channels}, options)) {}

  void add(const Tensor& map) {
    const auto call = check_arguments(map, {}, {}, {}, {}, {});
    const auto [mean, var] = call.compute_type == at::kDouble
                                 ? statistics_of_batch<double>(call, Cut(call))
                                 : statistics_of_batch<float>(call, Cut(call));
    mean_.narrow(0, channels_, map.size(1)).copy_(mean);
    var_.narrow(0, channels_, map.size(1)).copy_(var);
    channels_ += map.size(1);
  }
  Tensor mean() const { return mean_.narrow(0, 0, channels_).clone(); }
  Tensor var() const { return var_.narrow(0, 0, channels_).clone(); }

 private:
  Tensor mean_, var_;
  int64_t channels_ = 0;
};

std::vector<Tensor> in_type(at::TensorList tensors, at::ScalarType type) {
  std::vector<Tensor> result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.to(type).contiguous());
  return result;
}

template <class Scalar>
DenseBlockResults forward(const DenseBlockArguments& call, at::TensorList fixed_means,
                          at::TensorList fixed_vars, Keep keep) {
  const Passes<Scalar> passes(call);
  const bool batch_statistics = fixed_means.empty();
  std::vector<Tensor> means = in_type(fixed_means, call.compute_type);
  std::vector<Tensor> vars = in_type(fixed_vars, call.compute_type);
  std::vector<Tensor> maps, activations;
  Tensor output = call.empty_map(call.channels.back());
  StatisticsOfMaps statistics(call.channels.back(), call.input.options().dtype(call.compute_type));
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
        activation = passes.normalised(output, written, step, means[i], vars[i]);
      } else {
        OptionalTensor mean, var;
        if (!batch_statistics) mean = means[i], var = vars[i];
        const auto [result, batch_mean, batch_var] =
            batch_norm_act_cpu(map, step.norm_weight, step.norm_bias, mean, var, call.eps,
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

DenseBlockResults dense_block_cpu(const Tensor& input, at::TensorList norm_weights,
                                  at::TensorList norm_biases, at::TensorList conv_weights,
                                  at::TensorList conv_biases, at::TensorList means,
                                  at::TensorList vars, double eps, c10::string_view activation,
                                  at::ArrayRef<double> activation_args, at::IntArrayRef dilation,
                                  at::IntArrayRef groups, int64_t steps_of_layer, int64_t keep) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const auto call = check_arguments(input, norm_weights, norm_biases, conv_weights, conv_biases,
                                    means, vars, eps, activation, activation_args, dilation,
                                    groups, steps_of_layer);
  TORCH_CHECK_NOT_IMPLEMENTED(input.scalar_type() != at::kHalf,
                              "dense_block: not implemented for Half on the CPU");
  if (means.empty()) check_batch_size(input);
  return call.compute_type == at::kDouble
             ? forward<double>(call, means, vars, static_cast<Keep>(keep))
             : forward<float>(call, means, vars, static_cast<Keep>(keep));
}

// Which gradients are wanted, in the order in which forward uses the tensors: of the input, then of
// each step's norm and convolution. Nothing below the lowest that is wanted needs a gradient.
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
  bool conv_bias(int64_t step) const {
    return conv_biases_ && mask_[1 + 3 * steps_ + step];
  }
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

template <class Scalar>
std::vector<Tensor> backward(const DenseBlockArguments& call, const Tensor& grad_output,
                             const Tensor& output, at::TensorList given_means,
                             at::TensorList given_vars, bool batch_statistics, at::TensorList maps,
                             at::TensorList activations, const c10::List<bool>& mask) {
  const Passes<Scalar> passes(call);
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
  std::vector<Scalar> slope(channels_read), offset(channels_read);
  Tensor partial = grad_output.contiguous(call.layout);
  bool own = false;  // whether `partial` is ours to add to
  const auto gradient_of_maps = [&](int64_t first, int64_t channels) {
    if (!batch_statistics || first >= channels_read) {
      return call.empty_map(channels).copy_(partial.narrow(1, first, channels));
    }
    const Tensor& mean = means[(call.layers() - 1) * call.steps_of_layer];
    return passes.finished(output, partial, first, channels, mean, slope.data(), offset.data());
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
      {
        Tensor activation;
        if (!activations.empty()) {
          activation = activations[i];
        } else if (!wanted.conv_weight(i)) {  // only its shape and layout are read
          activation = call.empty_map(step.norm_weight.size(0));
        } else if (inner == 0) {
          activation = passes.normalised(output, channels, step, means[i], vars[i]);
        } else {
          activation = std::get<0>(batch_norm_act_cpu(map, step.norm_weight, step.norm_bias,
                                                      means[i], vars[i], call.eps,
                                                      call.activation, call.activation_args, {}));
        }
        Tensor weight, bias;
        std::tie(gradient, weight, bias) =
            convolve_backward(gradient, activation, step,
                              {further, wanted.conv_weight(i), wanted.conv_bias(i)});
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
        std::tie(gradient, weight, bias, std::ignore) = batch_norm_act_backward_cpu(
            gradient, map, step.norm_weight, step.norm_bias, means[i], vars[i], batch_statistics,
            call.eps, call.activation, call.activation_args,
            {of_map, wanted.norm_weight(i), wanted.norm_bias(i), false}, {}, {});
        if (wanted.norm_weight(i)) gradients[norm_weights + i] = weight;
        if (wanted.norm_bias(i)) gradients[norm_biases + i] = bias;
        if (!of_map) return fill();
        continue;
      }
      const Cut cut = passes.cut_of(channels);
      const Tensor sum = own ? partial : call.empty_map(channels);
      std::vector<double> sum_dz(channels), sum_dz_x(channels);
      auto coefficients =
          passes.add_gradient(output, gradient, partial, sum, cut, step, means[i], vars[i],
                              sum_dz.data(), sum_dz_x.data());
      partial = sum;
      own = true;
      const auto column = [&](const Tensor& parameter, auto value) {
        Tensor values = at::empty({channels}, call.input.options().dtype(call.compute_type));
        Scalar* to = values.mutable_data_ptr<Scalar>();
        for (int64_t c = 0; c < channels; ++c) to[c] = static_cast<Scalar>(value(c));
        return values.to(parameter.scalar_type());
      };
      if (wanted.norm_weight(i)) {
        gradients[norm_weights + i] = column(
            step.norm_weight, [&](int64_t c) { return sum_dz_x[c] * coefficients.invstd(c); });
      }
      if (wanted.norm_bias(i)) {
        gradients[norm_biases + i] = column(step.norm_bias, [&](int64_t c) { return sum_dz[c]; });
      }
      if (batch_statistics) {
        coefficients.set_gradient(sum_dz.data(), sum_dz_x.data(), passes.values_per_channel());
        const Coefficients terms = coefficients.from(Task{});
        for (int64_t c = 0; c < channels; ++c) {
          slope[c] += static_cast<const Scalar*>(terms.slope)[c];
          offset[c] += static_cast<const Scalar*>(terms.offset)[c];
        }
      }
    }
  }
  if (wanted.input()) gradients[0] = gradient_of_maps(0, call.input.size(1));
  return fill();
}

std::vector<Tensor> dense_block_backward_cpu(
    const Tensor& grad_output, const Tensor& output, at::TensorList maps,
    at::TensorList activations, const Tensor& input, at::TensorList norm_weights,
    at::TensorList norm_biases, at::TensorList conv_weights, at::TensorList conv_biases,
    at::TensorList means, at::TensorList vars, bool batch_statistics, double eps,
    c10::string_view activation, at::ArrayRef<double> activation_args, at::IntArrayRef dilation,
    at::IntArrayRef groups, int64_t steps_of_layer, c10::List<bool> output_mask) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const auto call = check_arguments(input, norm_weights, norm_biases, conv_weights, conv_biases,
                                    means, vars, eps, activation, activation_args, dilation,
                                    groups, steps_of_layer);
  TORCH_CHECK(grad_output.sizes() == output.sizes() &&
                  grad_output.scalar_type() == output.scalar_type() &&
                  output.size(1) == call.channels.back(),
              "dense_block_backward: the gradient must have the output's shape and type, got ",
              grad_output.sizes(), " ", grad_output.scalar_type(), " for ", output.sizes(), " ",
              output.scalar_type());
  const auto run = call.compute_type == at::kDouble ? backward<double> : backward<float>;
  return run(call, grad_output, output, means, vars, batch_statistics, maps, activations,
             output_mask);
}

TORCH_LIBRARY_IMPL(cnngraph, CPU, library) {
  library.impl("dense_block", &dense_block_cpu);
  library.impl("dense_block_backward", &dense_block_backward_cpu);
}

}  // namespace
}  // namespace cnngraph
