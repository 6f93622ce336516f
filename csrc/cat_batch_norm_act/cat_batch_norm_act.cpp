// The operator's schema and autograd: a concatenation along the channels of branches that end in a
// batch norm, an activation, both, or neither.
//
//   output = concatenation of activation(batch_norm(input)) of each branch
//
// Lists have one element per branch: `normalized` is whether there is a batch norm, with the
// arguments of batch_norm_act; `activated` is whether the activation follows, which must be a ReLU
// for a branch without a batch norm. Batch statistics are returned, empty for branches without.
//
// Backward is batch_norm_act's over the branch's slice of the gradient, which is read in place. A
// ReLU without a batch norm keeps the output, which its reader keeps anyway; a branch with neither
// keeps nothing.
#include "cat_batch_norm_act.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "../autograd.h"

namespace cnngraph {
namespace {

using at::Tensor;
using at::TensorList;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

CatResults call_forward(TensorList inputs, const OptionalTensors& weights,
                        const OptionalTensors& biases, const OptionalTensors& means,
                        const OptionalTensors& vars, at::ArrayRef<double> eps,
                        c10::List<bool> normalized, c10::List<bool> activated,
                        c10::string_view activation, at::ArrayRef<double> activation_args) {
  static const auto op = find_operator<decltype(call_forward)>("cnngraph::cat_batch_norm_act");
  return op.call(inputs, weights, biases, means, vars, eps, normalized, activated, activation,
                 activation_args);
}

CatResults call_forward(const CatArguments& call) {
  return call_forward(call.inputs, call.weights, call.biases, call.means, call.vars, call.eps,
                      call.normalized, call.activated, call.activation, call.activation_args);
}

Tensor at_branch(const OptionalTensors& tensors, size_t branch) {
  return tensors.get(branch).value_or(Tensor());
}

class CatBatchNormAct : public torch::autograd::Function<CatBatchNormAct> {
 public:
  static constexpr bool is_traceable = true;

  // `tensors` may have a derivative: the input, weight and bias of each branch, if defined. Results
  // without a gradient are returned through a pointer: see batch_norm_act.
  static Tensor forward(AutogradContext* context, TensorList tensors, const CatArguments* call,
                        CatResults* results) {
    at::AutoDispatchBelowADInplaceOrView guard;
    *results = call_forward(*call);
    const auto& [output, batch_means, batch_vars] = *results;
    variable_list saved;
    std::vector<int64_t> channels;
    c10::List<bool> batch_statistics;
    bool keep_output = false;
    for (size_t i = 0; i < call->branches(); ++i) {
      // Not size(1), which would specialise a symbolic batch size too.
      channels.push_back(call->inputs[i].sym_size(1).guard_int(__FILE__, __LINE__));
      keep_output |= call->from_output(i);
      const Tensor mean = at_branch(call->means, i);
      batch_statistics.push_back(!mean.defined());
      if (!call->normalized[i]) continue;
      saved.insert(saved.end(), {call->inputs[i], at_branch(call->weights, i),
                                 at_branch(call->biases, i), mean.defined() ? mean : batch_means[i],
                                 mean.defined() ? at_branch(call->vars, i) : batch_vars[i]});
    }
    saved.push_back(keep_output ? output : Tensor());
    context->save_for_backward(saved);
    context->saved_data["tensors"] = static_cast<int64_t>(tensors.size());
    context->saved_data["channels"] = channels;
    context->saved_data["batch_statistics"] = batch_statistics;
    context->saved_data["eps"] = call->eps.vec();
    context->saved_data["normalized"] = call->normalized;
    context->saved_data["activated"] = call->activated;
    context->saved_data["activation"] = std::string(call->activation);
    context->saved_data["activation_args"] = call->activation_args.vec();
    context->set_materialize_grads(false);
    return output;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    auto& data = context->saved_data;
    variable_list result(data["tensors"].toInt() + 2);
    if (!grads[0].defined()) return result;
    const variable_list saved = context->get_saved_variables();
    const std::vector<int64_t> channels = data["channels"].toIntVector();
    const std::vector<double> eps = data["eps"].toDoubleVector();
    const c10::List<bool> normalized = data["normalized"].toBoolList();
    const c10::List<bool> activated = data["activated"].toBoolList();
    const c10::List<bool> batch_statistics = data["batch_statistics"].toBoolList();
    auto next = saved.begin();
    size_t edge = 0;
    int64_t channel = 0;
    for (size_t i = 0; i < channels.size(); ++i) {
      const Tensor grad = grads[0].narrow(1, channel, channels[i]);
      if (!normalized[i]) {
        if (context->needs_input_grad(edge)) {
          result[edge] = activated[i] ? at::threshold_backward(
                                            grad, saved.back().narrow(1, channel, channels[i]), 0)
                                      : grad;
        }
        ++edge;
      } else {
        const Tensor &input = *next++, &weight = *next++, &bias = *next++;
        const Tensor &mean = *next++, &var = *next++;
        const std::array<bool, 3> given = {true, weight.defined(), bias.defined()};
        std::array<bool, 4> mask = {};
        for (size_t j = 0, own = edge; j < 3; ++j) {
          mask[j] = given[j] && context->needs_input_grad(own++);
        }
        std::array<Tensor, 3> gradients;
        if (mask[0] || mask[1] || mask[2]) {
          std::tie(gradients[0], gradients[1], gradients[2], std::ignore) = batch_norm_act_backward(
              grad, input, weight, bias, mean, var, batch_statistics[i], eps[i],
              activated[i] ? data["activation"].toStringView() : "identity",
              activated[i] ? data["activation_args"].toDoubleVector() : std::vector<double>(), mask,
              {}, {});
        }
        for (size_t j = 0; j < 3; ++j) {
          if (!given[j]) continue;
          if (mask[j]) result[edge] = gradients[j];
          ++edge;
        }
      }
      channel += channels[i];
    }
    return result;
  }
};

CatResults cat_batch_norm_act_autograd(TensorList inputs, const OptionalTensors& weights,
                                       const OptionalTensors& biases, const OptionalTensors& means,
                                       const OptionalTensors& vars, at::ArrayRef<double> eps,
                                       c10::List<bool> normalized, c10::List<bool> activated,
                                       c10::string_view activation,
                                       at::ArrayRef<double> activation_args) {
  const CatArguments call{inputs, weights,    biases,    means,      vars,
                          eps,    normalized, activated, activation, activation_args};
  check_lengths(call);
  variable_list tensors;
  for (size_t i = 0; i < inputs.size(); ++i) {
    tensors.push_back(inputs[i]);
    for (const OptionalTensors* parameters : {&weights, &biases}) {
      const Tensor parameter = at_branch(*parameters, i);
      if (normalized[i] && parameter.defined()) tensors.push_back(parameter);
    }
  }
  refuse_tangents("cat_batch_norm_act", TensorList(tensors));
  if (!differentiated(tensors)) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_forward(call);
  }
  CatResults results;
  std::get<0>(results) = CatBatchNormAct::apply(TensorList(tensors), &call, &results);
  return results;
}

TORCH_LIBRARY_FRAGMENT(cnngraph, library) {
  library.def(
      "cat_batch_norm_act(Tensor[] inputs, Tensor?[] weights, Tensor?[] biases, Tensor?[] means, "
      "Tensor?[] vars, float[] eps, bool[] normalized, bool[] activated, str activation, "
      "float[] activation_args) -> (Tensor output, Tensor[] batch_means, Tensor[] batch_vars)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(cnngraph, Autograd, library) {
  library.impl("cat_batch_norm_act", &cat_batch_norm_act_autograd);
}

}  // namespace
}  // namespace cnngraph
