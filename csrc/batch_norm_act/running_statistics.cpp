// What a batch norm's module does with the statistics of a batch, as one operator: where maps are
// small, a step's time is the number of its calls.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "batch_norm_act.h"

namespace cnngraph {
namespace {

using at::Tensor;

void check_sizes(const Tensor& mean, const Tensor& var, const Tensor& batch_mean,
                 const Tensor& batch_var) {
  TORCH_CHECK(mean.sizes() == batch_mean.sizes() && var.sizes() == batch_var.sizes(),
              "update_running_statistics: the running mean and variance have shapes ", mean.sizes(),
              " and ", var.sizes(), ", those of the batch ", batch_mean.sizes(), " and ",
              batch_var.sizes());
}

// A running average over all batches so far, where there is no momentum, gives each the same
// weight: a tensor then, so that nothing waits for the device.
void update(const Tensor& running, const Tensor& batch, std::optional<double> momentum,
            const OptionalTensor& batches) {
  if (momentum.has_value() && running.scalar_type() == batch.scalar_type()) {
    running.lerp_(batch, *momentum);
    return;
  }
  const Tensor weight = momentum.has_value() ? at::full({}, *momentum, batch.options())
                                             : batches->to(batch.scalar_type()).reciprocal();
  running.copy_(at::lerp(running.to(batch.scalar_type()), batch, weight));
}

void update_running_statistics(const Tensor& mean, const Tensor& var, const OptionalTensor& batches,
                               const Tensor& batch_mean, const Tensor& batch_var,
                               std::optional<double> momentum, int64_t values_per_channel) {
  check_sizes(mean, var, batch_mean, batch_var);
  if (batches.has_value()) batches->add_(1);
  if (!momentum.has_value() && !batches.has_value()) return;
  const double values = static_cast<double>(values_per_channel);
  update(mean, batch_mean, momentum, batches);
  update(var, batch_var * (values / (values - 1)), momentum, batches);
}

// Raises for what was made in inference mode and is changed outside it.
void about_to_change(const Tensor& tensor) { tensor.unsafeGetTensorImpl()->bump_version(); }

void count(const Tensor& batches) {
  if (batches.numel() != 1 || batches.scalar_type() != at::kLong) {
    batches.add_(1);
    return;
  }
  about_to_change(batches);
  ++*batches.mutable_data_ptr<int64_t>();
}

template <class Scalar>
void update_in_place(const Tensor& running, const Tensor& batch, double momentum,
                     double correction) {
  about_to_change(running);
  Scalar* values = running.mutable_data_ptr<Scalar>();
  const Scalar* added = batch.const_data_ptr<Scalar>();
  const auto keep = static_cast<Scalar>(1 - momentum);
  const auto take = static_cast<Scalar>(momentum * correction);
  for (int64_t c = 0; c < running.numel(); ++c) values[c] = keep * values[c] + take * added[c];
}

// The usual case, without a tensor in between.
void update_running_statistics_cpu(const Tensor& mean, const Tensor& var,
                                   const OptionalTensor& batches, const Tensor& batch_mean,
                                   const Tensor& batch_var, std::optional<double> momentum,
                                   int64_t values_per_channel) {
  const auto plain = [&](const Tensor& running, const Tensor& batch) {
    return running.is_contiguous() && batch.is_contiguous() &&
           running.scalar_type() == batch.scalar_type();
  };
  check_sizes(mean, var, batch_mean, batch_var);
  if (!momentum.has_value() || !plain(mean, batch_mean) || !plain(var, batch_var)) {
    return update_running_statistics(mean, var, batches, batch_mean, batch_var, momentum,
                                     values_per_channel);
  }
  if (batches.has_value()) count(*batches);
  const double values = static_cast<double>(values_per_channel);
  const auto run =
      mean.scalar_type() == at::kDouble ? &update_in_place<double> : &update_in_place<float>;
  run(mean, batch_mean, *momentum, 1);
  run(var, batch_var, *momentum, values / (values - 1));
}

TORCH_LIBRARY_FRAGMENT(cnngraph, library) {
  library.def(
      "update_running_statistics(Tensor(a!) mean, Tensor(b!) var, Tensor(c!)? batches, "
      "Tensor batch_mean, Tensor batch_var, float? momentum, SymInt values_per_channel) -> ()",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(cnngraph, CompositeExplicitAutograd, library) {
  library.impl("update_running_statistics", &update_running_statistics);
}

TORCH_LIBRARY_IMPL(cnngraph, CPU, library) {
  library.impl("update_running_statistics", &update_running_statistics_cpu);
}

}  // namespace
}  // namespace cnngraph
