// Every branch writes its slice of the output's channels.
#include "../checks.h"
#include "../data_type_of.h"
#include "cat_batch_norm_act.h"

namespace cnngraph {
namespace {

using at::Tensor;

int64_t check(const CatArguments& call) {
  check_lengths(call);
  const Tensor& first = call.inputs[0];
  data_type_of(first, "cat_batch_norm_act");
  int64_t channels = 0;
  for (size_t i = 0; i < call.branches(); ++i) {
    const Tensor& input = call.inputs[i];
    bool alike = input.dim() == first.dim() && input.dim() >= 2 && input.dim() <= 5 &&
                 input.scalar_type() == first.scalar_type() && input.device() == first.device();
    for (int64_t dim = 0; alike && dim < input.dim(); ++dim) {
      alike = dim == 1 || input.size(dim) == first.size(dim);
    }
    TORCH_CHECK(alike, "cat_batch_norm_act: only the channels of the inputs may differ, got ",
                input.sizes(), " ", input.scalar_type(), " on ", input.device(), " for ",
                first.sizes(), " ", first.scalar_type(), " on ", first.device());
    check_memory("cat_batch_norm_act", "an input", input);
    TORCH_CHECK_VALUE(!call.from_output(i) || call.activation == "relu",
                      "cat_batch_norm_act: without a batch norm the activation is a relu, got '",
                      call.activation, "'");
    channels += input.size(1);
  }
  return channels;
}

}  // namespace

void check_lengths(const CatArguments& call) {
  const size_t branches = call.branches();
  TORCH_CHECK_VALUE(branches > 0, "cat_batch_norm_act: expected one input or more");
  TORCH_CHECK_VALUE(call.weights.size() == branches && call.biases.size() == branches &&
                        call.means.size() == branches && call.vars.size() == branches &&
                        call.eps.size() == branches && call.normalized.size() == branches &&
                        call.activated.size() == branches,
                    "cat_batch_norm_act: all lists must be as long as the inputs, ", branches);
}

CatResults cat_batch_norm_act(const CatArguments& call, BatchNormActInto* into) {
  const int64_t channels = check(call);
  const ActivationSpec act = parse_activation(call.activation, call.activation_args);
  const ActivationSpec identity = parse_activation("identity", {});
  const Tensor& first = call.inputs[0];
  std::vector<int64_t> sizes = first.sizes().vec();
  sizes[1] = channels;
  const Tensor output = at::empty(
      sizes, first.options(),
      first.is_contiguous() ? at::MemoryFormat::Contiguous : first.suggest_memory_format());

  const auto statistics_options =
      first.options().dtype(first.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  std::vector<Tensor> means, vars;
  int64_t channel = 0;
  for (size_t i = 0; i < call.branches(); ++i) {
    const Tensor& input = call.inputs[i];
    for (auto* statistics : {&means, &vars}) {
      statistics->push_back(at::empty({0}, statistics_options));
    }
    Tensor slice = output.narrow(1, channel, input.size(1));
    channel += input.size(1);
    if (call.from_output(i)) {
      at::clamp_min_out(slice, input, 0);
    } else if (!call.normalized[i]) {
      slice.copy_(input);
    } else {
      const auto branch = check_arguments(input, call.weights.get(i), call.biases.get(i),
                                          call.means.get(i), call.vars.get(i), {});
      const bool in_place = branch.stride_of(slice).has_value();
      const Tensor to = in_place ? slice : at::empty_like(branch.input);
      std::tie(means[i], vars[i]) =
          into(branch, call.eps[i], call.activated[i] ? act : identity, to);
      if (!in_place) slice.copy_(to);
    }
  }
  return {output, means, vars};
}

}  // namespace cnngraph
