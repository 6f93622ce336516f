// The CPU passes of a dense block, built on batch_norm_act and dense_block_loops.h.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "../batch_norm_act/batch_norm_act_cpu.h"
#include "../conv2d/pointwise.h"
#include "../conv2d/weight_gradient.h"
#include "../cpu/capability.h"
#include "dense_block_kernels.h"
#include "layers.h"

namespace cnngraph {
namespace {

using at::Tensor;

const DenseBlockKernels& kernels() { return CNNGRAPH_KERNELS_IN_USE(dense_block); }

class PassesOnCpu final : public DenseBlockPasses {
 public:
  explicit PassesOnCpu(const DenseBlockArguments& call)
      : call_(call), act_(parse_activation(call.activation, call.activation_args)) {}

  void statistics(const Tensor& map, const Tensor& mean, const Tensor& var) const override {
    const auto call = check_arguments(map, {}, {}, {}, {}, {});
    const auto [batch_mean, batch_var] = is_double() ? statistics_of_batch<double>(call, Cut(call))
                                                     : statistics_of_batch<float>(call, Cut(call));
    mean.copy_(batch_mean);
    var.copy_(batch_var);
  }

  Tensor normalised(const Tensor& maps, const DenseBlockStep& step, const Tensor& mean,
                    const Tensor& var) const override {
    return is_double() ? normalise<double>(maps, step, mean, var)
                       : normalise<float>(maps, step, mean, var);
  }

  bool multiplies(const DenseBlockStep& step) const override {
    return call_.layout == at::MemoryFormat::ChannelsLast && step.groups == 1 &&
           !step.conv_bias.has_value() && step.conv_weight.scalar_type() == at::kFloat &&
           pointwise_takes(step.conv_weight.sizes());
  }

  Tensor product(const Tensor& maps, const DenseBlockStep& step, const Tensor& mean,
                 const Tensor& var) const override {
    const PointwiseWeight weight(step.conv_weight, PointwiseWeight::Product::convolution);
    const NormalisedPixels pixels(*this, maps, step, mean, var);
    const Tensor result = call_.empty_map(weight.channels());
    float* to = result.mutable_data_ptr<float>();
    for_each_task(cut_in_blocks(mean.size(0)), /*backwards=*/true, [&](const Task& task, double*) {
      const std::unique_ptr<float[]> block(new float[task.block.outer * mean.size(0)]);
      pixels.make(task.outer, task.block.outer, block.get());
      weight.multiply(block.get(), mean.size(0), task.block.outer,
                      to + task.outer * weight.channels());
    });
    return result;
  }

  Tensor weight_gradient(const Tensor& maps, const Tensor& grad, const DenseBlockStep& step,
                         const Tensor& mean, const Tensor& var) const override {
    const NormalisedPixels pixels(*this, maps, step, mean, var);
    return pointwise_weight_gradient(
        grad, [&](int64_t first, int64_t count, float* to) { pixels.make(first, count, to); },
        step.conv_weight);
  }

  std::pair<Tensor, Tensor> add_gradient(const Tensor& maps, const Tensor& dy, const Tensor& addend,
                                         const Tensor& sum, const DenseBlockStep& step,
                                         const Tensor& mean, const Tensor& var, const Tensor& slope,
                                         const Tensor& offset) const override {
    const auto run = is_double() ? &PassesOnCpu::add<double> : &PassesOnCpu::add<float>;
    return (this->*run)(maps, dy, addend, sum, step, mean, var, slope, offset);
  }

  Tensor finished(const Tensor& maps, const Tensor& partial, int64_t first, int64_t channels,
                  const Tensor& mean, const Tensor& slope, const Tensor& offset) const override {
    const Cut cut = cut_of(channels);
    const Tensor result = call_.empty_map(channels);
    for_each_task(cut, /*backwards=*/true, [&](const Task& task, double*) {
      const auto column = [&](const Tensor& row) {
        return static_cast<const char*>(row.const_data_ptr()) +
               (first + task.column) * row.element_size();
      };
      kernels().finish(call_.data_type, at(maps, task, first), at(partial, task, first),
                       column(mean), column(slope), column(offset), at_mutable(result, task),
                       task.block);
    });
    return result;
  }

 private:
  // Computes the input of a layer's first convolution a few pixels at a time.
  class NormalisedPixels {
   public:
    NormalisedPixels(const PassesOnCpu& passes, const Tensor& maps, const DenseBlockStep& step,
                     const Tensor& mean, const Tensor& var)
        : passes_(passes),
          maps_(maps),
          cut_(passes.cut_of(mean.size(0))),
          coefficients_(passes.coefficients_of<float>(step, cut_, mean, var)) {}

    void make(int64_t first, int64_t count, float* to) const {
      const Task task{.block = {}, .begin = {}, .column = 0, .sums = 0, .outer = first};
      const Strided x = passes_.at(maps_, task);
      const int64_t channels = cut_.columns;
      batch_norm_act_kernels().forward(
          DataType::float32, passes_.act_.activation, passes_.act_.arguments, x.data,
          /*residual=*/nullptr, coefficients_.from(task), to,
          Block{count, channels, /*inner=*/1, x.stride, /*y_stride=*/channels, channels},
          /*streams=*/false);
    }

   private:
    const PassesOnCpu& passes_;
    const Tensor& maps_;
    const Cut cut_;
    const CoefficientTable<float> coefficients_;
  };

  template <class Scalar>
  Tensor normalise(const Tensor& maps, const DenseBlockStep& step, const Tensor& mean,
                   const Tensor& var) const {
    const Cut cut = cut_of(mean.size(0));
    const CoefficientTable<Scalar> coefficients = coefficients_of<Scalar>(step, cut, mean, var);
    const Tensor result = call_.empty_map(mean.size(0));
    for_each_task(cut, /*backwards=*/true, [&](const Task& task, double*) {
      const Strided x = at(maps, task);
      const MutableStrided y = at_mutable(result, task);
      Block block = task.block;
      block.x_stride = x.stride;
      block.y_stride = y.stride;
      batch_norm_act_kernels().forward(call_.data_type, act_.activation, act_.arguments, x.data,
                                       /*residual=*/nullptr, coefficients.from(task), y.data, block,
                                       /*streams=*/false);
    });
    return result;
  }

  template <class Scalar>
  std::pair<Tensor, Tensor> add(const Tensor& maps, const Tensor& dy, const Tensor& addend,
                                const Tensor& sum, const DenseBlockStep& step, const Tensor& mean,
                                const Tensor& var, const Tensor& slope,
                                const Tensor& offset) const {
    const int64_t channels = mean.size(0);
    std::optional<PointwiseWeight> weight;
    if (multiplies(step)) {
      weight.emplace(step.conv_weight, PointwiseWeight::Product::input_gradient);
    }
    const Cut cut = weight ? cut_in_blocks(channels) : cut_of(channels);
    CoefficientTable<Scalar> coefficients = coefficients_of<Scalar>(step, cut, mean, var);
    PartialSums sums(cut);
    for_each_task(cut, /*backwards=*/false, [&](const Task& task, double* scratch) {
      Strided gradient = at(dy, task);
      std::unique_ptr<float[]> block;
      if (weight) {
        block.reset(new float[task.block.outer * channels]);
        weight->multiply(static_cast<const float*>(gradient.data), gradient.stride,
                         task.block.outer, block.get());
        gradient = {block.get(), channels};
      }
      kernels().backward(call_.data_type, act_.activation, act_.arguments, at(maps, task), gradient,
                         at(addend, task), coefficients.from(task), at_mutable(sum, task),
                         task.block, sums.first(task), sums.second(task), scratch);
    });
    std::vector<double> sum_dz(channels), sum_dz_x(channels);
    sums.add(sum_dz.data(), sum_dz_x.data());
    if (slope.defined()) {
      coefficients.set_gradient(sum_dz.data(), sum_dz_x.data(),
                                static_cast<double>(call_.outer() * call_.inner()));
      const Coefficients terms = coefficients.from(Task{});
      Scalar* slopes = slope.mutable_data_ptr<Scalar>();
      Scalar* offsets = offset.mutable_data_ptr<Scalar>();
      for (int64_t c = 0; c < channels; ++c) {
        slopes[c] += static_cast<const Scalar*>(terms.slope)[c];
        offsets[c] += static_cast<const Scalar*>(terms.offset)[c];
      }
    }
    const auto column = [&](auto value) {
      const Tensor values = at::empty_like(mean);
      Scalar* to = values.mutable_data_ptr<Scalar>();
      for (int64_t c = 0; c < channels; ++c) to[c] = static_cast<Scalar>(value(c));
      return values;
    };
    return {column([&](int64_t c) { return sum_dz_x[c] * coefficients.invstd(c); }),
            column([&](int64_t c) { return sum_dz[c]; })};
  }

  bool is_double() const { return call_.compute_type == at::kDouble; }
  Cut cut_of(int64_t channels) const {
    return {call_.outer(), channels, call_.inner(), call_.input.element_size(), /*dense=*/false};
  }
  // In blocks of pixels that one product takes.
  Cut cut_in_blocks(int64_t channels) const {
    Cut cut = cut_of(channels);
    cut.outer_of_part = PointwiseWeight::pixels_of_block(channels);
    cut.parts = ceil_div(cut.outer, cut.outer_of_part);
    return cut;
  }
  template <class Scalar>
  CoefficientTable<Scalar> coefficients_of(const DenseBlockStep& step, const Cut& cut,
                                           const Tensor& mean, const Tensor& var) const {
    return {step.norm_weight.to(call_.compute_type).contiguous(),
            step.norm_bias.to(call_.compute_type).contiguous(),
            cut,
            mean,
            var,
            call_.eps};
  }

  int64_t byte_of(const Tensor& tensor, const Task& task, int64_t first) const {
    return (task.outer * call_.stride_of(tensor) + (first + task.column) * call_.inner()) *
           tensor.element_size();
  }
  Strided at(const Tensor& tensor, const Task& task, int64_t first = 0) const {
    return {static_cast<const char*>(tensor.const_data_ptr()) + byte_of(tensor, task, first),
            call_.stride_of(tensor)};
  }
  MutableStrided at_mutable(const Tensor& tensor, const Task& task) const {
    return {static_cast<char*>(tensor.mutable_data_ptr()) + byte_of(tensor, task, 0),
            call_.stride_of(tensor)};
  }

  const DenseBlockArguments& call_;
  ActivationSpec act_;
};

TORCH_LIBRARY_IMPL(cnngraph, CPU, library) {
  library.impl("dense_block", &dense_block_on<PassesOnCpu>);
  library.impl("dense_block_backward", &dense_block_backward_on<PassesOnCpu>);
}

}  // namespace
}  // namespace cnngraph
