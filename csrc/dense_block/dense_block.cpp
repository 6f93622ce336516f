// The operator's schema and its autograd: a dense block of any number of layers in one operator.
//
//   maps = input
//   for each layer: maps = concatenation of maps and layer(maps)
//
// A layer is `steps_of_layer` steps of convolution(activation(norm(x))); convolutions have stride 1
// and keep the map's size. Steps are listed layer after layer; a norm without weight or bias passes
// ones or zeros. If `means` and `vars` are given, one per norm (evaluation), they are constants;
// otherwise the statistics of the batch are used and returned (variances biased, in the type of
// computation). `keep` selects what is returned for backward: nothing, the maps, or the maps and
// the activations.
//
// Backward needs the output, the maps between the convolutions of each layer, and the input of
// every convolution, which it recomputes unless it was kept. Second derivatives use torch's
// operators, as in batch_norm_act.
#include "dense_block.h"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "../autograd.h"
#include "../checks.h"

namespace cnngraph {
namespace {

using at::Tensor;
using at::TensorList;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

DenseBlockResults call_forward(const Tensor& input, TensorList norm_weights, TensorList norm_biases,
                               TensorList conv_weights, TensorList conv_biases, TensorList means,
                               TensorList vars, double eps, c10::string_view activation,
                               at::ArrayRef<double> activation_args, at::IntArrayRef dilation,
                               at::IntArrayRef groups, int64_t steps_of_layer, int64_t keep) {
  static const auto op = find_operator<decltype(call_forward)>("cnngraph::dense_block");
  return op.call(input, norm_weights, norm_biases, conv_weights, conv_biases, means, vars, eps,
                 activation, activation_args, dilation, groups, steps_of_layer, keep);
}

std::vector<Tensor> call_backward(const Tensor& grad_output, const Tensor& output, TensorList maps,
                                  TensorList activations, const Tensor& input,
                                  TensorList norm_weights, TensorList norm_biases,
                                  TensorList conv_weights, TensorList conv_biases, TensorList means,
                                  TensorList vars, bool batch_statistics, double eps,
                                  c10::string_view activation, at::ArrayRef<double> activation_args,
                                  at::IntArrayRef dilation, at::IntArrayRef groups,
                                  int64_t steps_of_layer, c10::List<bool> output_mask) {
  static const auto op = find_operator<decltype(call_backward)>("cnngraph::dense_block_backward");
  return op.call(grad_output, output, maps, activations, input, norm_weights, norm_biases,
                 conv_weights, conv_biases, means, vars, batch_statistics, eps, activation,
                 activation_args, dilation, groups, steps_of_layer, output_mask);
}

// The tensors that may have a derivative: the input, and the parameters of every step.
variable_list differentiable(const Tensor& input, TensorList norm_weights, TensorList norm_biases,
                             TensorList conv_weights, TensorList conv_biases) {
  variable_list all{input};
  for (TensorList list : {norm_weights, norm_biases, conv_weights, conv_biases}) {
    all.insert(all.end(), list.begin(), list.end());
  }
  return all;
}

// The arguments that have no derivative.
struct Settings {
  TensorList means, vars;
  double eps;
  c10::string_view activation;
  at::ArrayRef<double> activation_args;
  at::IntArrayRef dilation, groups;
  int64_t steps_of_layer, keep;
};

DenseBlockResults call_forward(TensorList tensors, const Settings& settings) {
  const size_t steps = settings.groups.size();
  return call_forward(tensors[0], tensors.slice(1, steps), tensors.slice(1 + steps, steps),
                      tensors.slice(1 + 2 * steps, steps), tensors.slice(1 + 3 * steps),
                      settings.means, settings.vars, settings.eps, settings.activation,
                      settings.activation_args, settings.dilation, settings.groups,
                      settings.steps_of_layer, settings.keep);
}

class DenseBlock : public torch::autograd::Function<DenseBlock> {
 public:
  static constexpr bool is_traceable = true;

  // Results without a gradient are returned through a pointer: see batch_norm_act.
  static Tensor forward(AutogradContext* context, TensorList tensors, const Settings* settings,
                        DenseBlockResults* results) {
    at::AutoDispatchBelowADInplaceOrView guard;
    *results = call_forward(tensors, *settings);
    const auto& [output, batch_means, batch_vars, maps, activations] = *results;
    const bool batch_statistics = settings->means.empty();
    variable_list saved{output};
    for (const TensorList list :
         {tensors, batch_statistics ? TensorList(batch_means) : settings->means,
          batch_statistics ? TensorList(batch_vars) : settings->vars, TensorList(maps),
          TensorList(activations)}) {
      saved.insert(saved.end(), list.begin(), list.end());
    }
    context->save_for_backward(saved);
    context->saved_data["tensors"] = static_cast<int64_t>(tensors.size());
    context->saved_data["maps"] = static_cast<int64_t>(maps.size());
    context->saved_data["batch_statistics"] = batch_statistics;
    context->saved_data["eps"] = settings->eps;
    context->saved_data["activation"] = std::string(settings->activation);
    context->saved_data["activation_args"] = settings->activation_args.vec();
    context->saved_data["dilation"] = settings->dilation.vec();
    context->saved_data["groups"] = settings->groups.vec();
    context->saved_data["steps_of_layer"] = settings->steps_of_layer;
    context->set_materialize_grads(false);
    return output;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    auto& data = context->saved_data;
    const size_t count = data["tensors"].toInt();
    variable_list result(count + 2);
    if (!grads[0].defined()) return result;
    const variable_list saved = context->get_saved_variables();
    const std::vector<int64_t> groups = data["groups"].toIntVector();
    const size_t steps = groups.size();
    size_t next = 0;
    const auto take = [&](size_t size) {
      next += size;
      return TensorList(saved).slice(next - size, size);
    };
    const Tensor& output = take(1)[0];
    const Tensor& input = take(1)[0];
    const TensorList norm_weights = take(steps), norm_biases = take(steps);
    const TensorList conv_weights = take(steps), conv_biases = take(count - 1 - 3 * steps);
    const TensorList means = take(steps), vars = take(steps);
    const TensorList maps = take(data["maps"].toInt()), activations = take(saved.size() - next);
    c10::List<bool> mask;
    for (size_t i = 0; i < count; ++i) mask.push_back(context->needs_input_grad(i));
    const std::vector<Tensor> gradients = call_backward(
        grads[0], output, maps, activations, input, norm_weights, norm_biases, conv_weights,
        conv_biases, means, vars, data["batch_statistics"].toBool(), data["eps"].toDouble(),
        data["activation"].toStringView(), data["activation_args"].toDoubleVector(),
        data["dilation"].toIntVector(), groups, data["steps_of_layer"].toInt(), mask);
    for (size_t i = 0; i < count; ++i) {
      if (mask[i]) result[i] = gradients[i];
    }
    return result;
  }
};

DenseBlockResults dense_block_autograd(const Tensor& input, TensorList norm_weights,
                                       TensorList norm_biases, TensorList conv_weights,
                                       TensorList conv_biases, TensorList means, TensorList vars,
                                       double eps, c10::string_view activation,
                                       at::ArrayRef<double> activation_args,
                                       at::IntArrayRef dilation, at::IntArrayRef groups,
                                       int64_t steps_of_layer, int64_t keep) {
  const variable_list tensors =
      differentiable(input, norm_weights, norm_biases, conv_weights, conv_biases);
  refuse_tangents("dense_block", tensors);
  check_lengths(norm_weights, norm_biases, conv_weights, conv_biases, means, vars, dilation, groups,
                steps_of_layer);
  const bool kept = differentiated(tensors);  // backward needs at least the maps
  const Settings settings{means,
                          vars,
                          eps,
                          activation,
                          activation_args,
                          dilation,
                          groups,
                          steps_of_layer,
                          kept ? std::max(keep, static_cast<int64_t>(Keep::maps)) : keep};
  if (!kept) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_forward(tensors, settings);
  }
  DenseBlockResults results;
  std::get<0>(results) = DenseBlock::apply(TensorList(tensors), &settings, &results);
  return results;
}

// A differentiable backward: torch recomputes the forward with its own operators and differentiates
// that, so the statistics of a batch are functions of the input.
std::vector<Tensor> differentiable_backward(const Tensor& grad_output, TensorList given,
                                            size_t steps, TensorList means, TensorList vars,
                                            bool batch_statistics, double eps,
                                            const ActivationSpec& act, at::IntArrayRef dilation,
                                            at::IntArrayRef groups, size_t steps_of_layer,
                                            const c10::List<bool>& output_mask) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const auto type = given[0].scalar_type();
  const auto compute_type = type == at::kDouble ? at::kDouble : at::kFloat;
  variable_list arguments, wanted;
  check_memory("dense_block_backward", "a gradient", grad_output);
  for (size_t i = 0; i < given.size(); ++i) {
    check_memory("dense_block_backward", "an argument", given[i]);
    // An alias, so that each has its own gradient even where one was computed from another.
    Tensor argument = given[i].requires_grad() ? at::alias(given[i]) : given[i].detach();
    if (output_mask[i]) wanted.push_back(argument.requires_grad_());
    arguments.push_back(argument);
  }
  variable_list results(given.size());
  for (Tensor& result : results) result = at::empty({0}, given[0].options());
  if (wanted.empty()) return results;

  const auto fixed = [&](const Tensor& statistic) -> OptionalTensor {
    if (batch_statistics) return {};
    check_memory("dense_block_backward", "a statistic", statistic);
    return statistic.detach().to(compute_type).contiguous();
  };
  Tensor maps = arguments[0], x = maps;
  for (size_t i = 0; i < steps; ++i) {
    // torch's backward reads other values than those of a strided weight or mean.
    const auto row = [&](size_t argument) {
      return arguments[argument].to(compute_type).contiguous();
    };
    const Tensor z =
        at::batch_norm(x.to(compute_type), row(1 + i), row(1 + steps + i), fixed(means[i]),
                       fixed(vars[i]), batch_statistics, /*momentum=*/0, eps,
                       /*cudnn_enabled=*/false);
    const Tensor& weight = arguments[1 + 2 * steps + i];
    OptionalTensor bias;
    if (given.size() > 1 + 3 * steps) bias = arguments[1 + 3 * steps + i];
    const auto spread = check_pair("dense_block_backward", "dilation", dilation.slice(2 * i, 2), 1);
    x = at::convolution(act.torch(z, act.arguments).to(type), weight, bias, /*stride=*/{1, 1},
                        check_padding(weight, spread), spread, /*transposed=*/false,
                        /*output_padding=*/{0, 0}, groups[i]);
    if ((i + 1) % steps_of_layer == 0) x = maps = at::cat({maps, x}, 1);
  }
  const variable_list grads = torch::autograd::grad({maps}, wanted, {grad_output},
                                                    /*retain_graph=*/true, /*create_graph=*/true);
  for (size_t i = 0, next = 0; i < given.size(); ++i) {
    if (output_mask[i]) results[i] = grads[next++];
  }
  return results;
}

std::vector<Tensor> dense_block_backward_autograd(
    const Tensor& grad_output, const Tensor& output, TensorList maps, TensorList activations,
    const Tensor& input, TensorList norm_weights, TensorList norm_biases, TensorList conv_weights,
    TensorList conv_biases, TensorList means, TensorList vars, bool batch_statistics, double eps,
    c10::string_view activation, at::ArrayRef<double> activation_args, at::IntArrayRef dilation,
    at::IntArrayRef groups, int64_t steps_of_layer, c10::List<bool> output_mask) {
  const variable_list given =
      differentiable(input, norm_weights, norm_biases, conv_weights, conv_biases);
  refuse_tangents("dense_block", given, grad_output);
  check_lengths(norm_weights, norm_biases, conv_weights, conv_biases, means, vars, dilation, groups,
                steps_of_layer);
  TORCH_CHECK(!means.empty() && output_mask.size() == given.size(),
              "dense_block_backward: expected a mean and a variance of every norm, and a value of "
              "output_mask for each of ",
              given.size(), " gradients");
  if (differentiated(grad_output, given)) {
    return differentiable_backward(grad_output, given, groups.size(), means, vars, batch_statistics,
                                   eps, parse_activation(activation, activation_args), dilation,
                                   groups, steps_of_layer, output_mask);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return call_backward(grad_output, output, maps, activations, input, norm_weights, norm_biases,
                       conv_weights, conv_biases, means, vars, batch_statistics, eps, activation,
                       activation_args, dilation, groups, steps_of_layer, output_mask);
}

TORCH_LIBRARY_FRAGMENT(cnngraph, library) {
  library.def(
      "dense_block(Tensor input, Tensor[] norm_weights, Tensor[] norm_biases, "
      "Tensor[] conv_weights, Tensor[] conv_biases, Tensor[] means, Tensor[] vars, float eps, "
      "str activation, float[] activation_args, int[] dilation, int[] groups, "
      "int steps_of_layer, int keep) "
      "-> (Tensor output, Tensor[] batch_means, Tensor[] batch_vars, Tensor[] maps, "
      "Tensor[] activations)",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "dense_block_backward(Tensor grad_output, Tensor output, Tensor[] maps, "
      "Tensor[] activations, Tensor input, Tensor[] norm_weights, Tensor[] norm_biases, "
      "Tensor[] conv_weights, Tensor[] conv_biases, Tensor[] means, Tensor[] vars, "
      "bool batch_statistics, float eps, str activation, float[] activation_args, "
      "int[] dilation, int[] groups, int steps_of_layer, bool[] output_mask) -> Tensor[]",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(cnngraph, Autograd, library) {
  library.impl("dense_block", &dense_block_autograd);
  library.impl("dense_block_backward", &dense_block_backward_autograd);
}

}  // namespace
}  // namespace cnngraph
