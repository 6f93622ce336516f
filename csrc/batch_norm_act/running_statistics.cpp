// Updates the running statistics of a batch norm in one operator: for small maps, the number of
// calls dominates the time of a step.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "../checks.h"
#include "batch_norm_act.h"

namespace cnngraph {
namespace {

using at::Tensor;

// Raises if an inference tensor is changed outside inference mode.
void bump_version(const Tensor& tensor) { tensor.unsafeGetTensorImpl()->bump_version(); }

void count(const Tensor& batches) {
  if (!batches.is_cpu() || batches.numel() != 1 || batches.scalar_type() != at::kLong) {
    batches.add_(1);
    return;
  }
  bump_version(batches);
  ++*batches.mutable_data_ptr<int64_t>();
}

template <class Scalar>
void update_in_place(const Tensor& running, const Tensor& batch, double correction,
                     double momentum) {
  bump_version(running);
  Scalar* values = running.mutable_data_ptr<Scalar>();
  const Scalar* added = batch.const_data_ptr<Scalar>();
  const auto keep = static_cast<Scalar>(1 - momentum);
  const auto take = static_cast<Scalar>(momentum * correction);
  for (int64_t c = 0; c < running.numel(); ++c) values[c] = keep * values[c] + take * added[c];
}

// Without a momentum, the running average gives each batch the same weight. The weight is a tensor
// then, so that the device is not synchronised.
void update(const Tensor& running, const Tensor& batch, double correction,
            std::optional<double> momentum, const OptionalTensor& batches) {
  const auto type = running.scalar_type();
  const bool same_type = type == batch.scalar_type();
  if (momentum.has_value() && same_type && (type == at::kFloat || type == at::kDouble) &&
      !running.is_neg() && !batch.is_neg() && running.is_cpu() && batch.is_cpu() &&
      running.is_contiguous() && batch.is_contiguous()) {  // the usual case: no temporaries
    const auto run = type == at::kDouble ? &update_in_place<double> : &update_in_place<float>;
    return run(running, batch, correction, *momentum);
  }
  const Tensor added = correction == 1 ? batch : batch * correction;
  if (momentum.has_value() && same_type) {
    running.lerp_(added, *momentum);
    return;
  }
  const Tensor weight = momentum.has_value() ? at::full({}, *momentum, batch.options())
                                             : batches->to(batch.scalar_type()).reciprocal();
  running.copy_(at::lerp(running.to(batch.scalar_type()), added, weight));
}

void update_running_statistics(const Tensor& mean, const Tensor& var, const OptionalTensor& batches,
                               const Tensor& batch_mean, const Tensor& batch_var,
                               std::optional<double> momentum, int64_t values_per_channel) {
  TORCH_CHECK(mean.sizes() == batch_mean.sizes() && var.sizes() == batch_var.sizes(),
              "update_running_statistics: the running mean and variance have shapes ", mean.sizes(),
              " and ", var.sizes(), ", those of the batch ", batch_mean.sizes(), " and ",
              batch_var.sizes());
  for (const Tensor& tensor : {mean, var, batch_mean, batch_var}) {
    check_memory("update_running_statistics", "a statistic", tensor);
  }
  if (batches.has_value()) count(*batches);
  if (!momentum.has_value() && !batches.has_value()) return;
  const double values = static_cast<double>(values_per_channel);
  update(mean, batch_mean, 1, momentum, batches);
  update(var, batch_var, values / (values - 1), momentum, batches);
}

TORCH_LIBRARY_FRAGMENT(cnngraph, library) {
  library.def(
      "update_running_statistics(Tensor(a!) mean, Tensor(b!) var, Tensor(c!)? batches, "
      "Tensor batch_mean, Tensor batch_var, float? momentum, SymInt values_per_channel) -> ()",
      {at::Tag::pt2_compliant_tag});
}

// torch's own handling of lazily negated arguments breaks for operators that return nothing.
TORCH_LIBRARY_IMPL(cnngraph, Negative, library) {
  library.impl("update_running_statistics", torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(cnngraph, CompositeExplicitAutograd, library) {
  library.impl("update_running_statistics", &update_running_statistics);
}

}  // namespace
}  // namespace cnngraph
