// Argument checks of batch_norm_act, and the blocks that its kernels process.
#include <ATen/ATen.h>

#include <sstream>
#include <unordered_map>

#include "../checks.h"
#include "../data_type_of.h"
#include "batch_norm_act.h"

namespace cnngraph {

ActivationSpec parse_activation(std::string_view name, c10::ArrayRef<double> arguments) {
  using at::Tensor;
  struct Entry {
    Activation activation;
    size_t arguments;
    Tensor (*torch)(const Tensor& z, ActivationArguments);
  };
  using Given = ActivationArguments;
  static const std::unordered_map<std::string_view, Entry> known = {
      {"identity", {Activation::identity, 0, [](const Tensor& z, Given) { return z; }}},
      {"relu", {Activation::relu, 0, [](const Tensor& z, Given) { return at::relu(z); }}},
      {"hardtanh",
       {Activation::hardtanh, 2,
        [](const Tensor& z, Given given) { return at::hardtanh(z, given.first, given.second); }}},
      {"leaky_relu",
       {Activation::leaky_relu, 1,
        [](const Tensor& z, Given given) { return at::leaky_relu(z, given.first); }}},
      {"elu",
       {Activation::elu, 1, [](const Tensor& z, Given given) { return at::elu(z, given.first); }}},
      {"silu", {Activation::silu, 0, [](const Tensor& z, Given) { return at::silu(z); }}},
      {"gelu", {Activation::gelu, 0, [](const Tensor& z, Given) { return at::gelu(z); }}},
      {"gelu_tanh",
       {Activation::gelu_tanh, 0, [](const Tensor& z, Given) { return at::gelu(z, "tanh"); }}},
      {"sigmoid", {Activation::sigmoid, 0, [](const Tensor& z, Given) { return at::sigmoid(z); }}},
      {"tanh", {Activation::tanh, 0, [](const Tensor& z, Given) { return at::tanh(z); }}},
      {"hardsigmoid",
       {Activation::hardsigmoid, 0, [](const Tensor& z, Given) { return at::hardsigmoid(z); }}},
      {"hardswish",
       {Activation::hardswish, 0, [](const Tensor& z, Given) { return at::hardswish(z); }}},
      {"mish", {Activation::mish, 0, [](const Tensor& z, Given) { return at::mish(z); }}},
  };
  const auto found = known.find(name);
  TORCH_CHECK_VALUE(found != known.end(), "batch_norm_act: unknown activation '", name, "'");
  const Entry& entry = found->second;
  TORCH_CHECK_VALUE(arguments.size() == entry.arguments, "batch_norm_act: activation '", name,
                    "' takes ", entry.arguments, " arguments, got ", arguments.size());
  ActivationSpec spec{entry.activation, {}, entry.torch};
  if (arguments.size() > 0) spec.arguments.first = arguments[0];
  if (arguments.size() > 1) spec.arguments.second = arguments[1];
  return spec;
}

namespace {

// Whether a tensor of any rank is dense with the channels innermost.
bool is_channels_last(const at::Tensor& tensor) {
  if (tensor.dim() == 2) return tensor.is_contiguous();
  if (tensor.dim() == 4) return tensor.is_contiguous(at::MemoryFormat::ChannelsLast);
  if (tensor.dim() == 5) return tensor.is_contiguous(at::MemoryFormat::ChannelsLast3d);
  return tensor.movedim(1, -1).is_contiguous();
}

at::Tensor parameter(const OptionalTensor& given, const char* name, const at::Tensor& input,
                     at::ScalarType compute_type) {
  if (!given.has_value() || !given->defined()) return {};
  check_per_channel("batch_norm_act", name, *given, input.size(1), input, compute_type);
  // torch negates lazily, and its dispatcher skips lists of optional tensors.
  return given->to(compute_type).resolve_neg().contiguous();
}

at::Tensor like_input(const OptionalTensor& given, const char* name,
                      const BatchNormArguments& call) {
  if (!given.has_value() || !given->defined()) return {};
  const at::Tensor& input = call.input;
  check_like("batch_norm_act", name, *given, input);
  return call.in_layout(*given);
}

}  // namespace

at::Tensor BatchNormArguments::empty() const {
  if (input_stride == stride()) return at::empty_like(input);
  return at::empty_like(input, {}, input.suggest_memory_format());
}

at::Tensor BatchNormArguments::in_layout(const at::Tensor& other) const {
  return stride_of(other) == stride() ? other : empty().copy_(other);
}

std::optional<int64_t> outer_stride(const at::Tensor& tensor, bool channels_last) {
  int64_t within = 1;  // elements of one outer index
  const auto follows = [&](int64_t dim, int64_t& expected) {
    const bool here = tensor.size(dim) <= 1 || tensor.stride(dim) == expected;
    expected *= tensor.size(dim);
    return here;
  };
  bool dense = true;
  for (int64_t dim = channels_last ? 1 : tensor.dim() - 1; dim >= 1; --dim) {
    dense &= follows(dim, within);
  }
  int64_t stride = within, expected = 0;  // of outer indices, and of the next dimension
  for (int64_t dim = channels_last ? tensor.dim() - 1 : 0; dim >= 0; --dim) {
    if (dim == 1 || tensor.size(dim) <= 1) continue;
    if (expected == 0) stride = expected = tensor.stride(dim);
    dense &= stride >= within && follows(dim, expected);
  }
  return dense ? std::optional(stride) : std::nullopt;
}

std::optional<int64_t> BatchNormArguments::stride_of(const at::Tensor& other) const {
  return outer_stride(other, inner == 1);
}

BatchNormArguments check_arguments(const at::Tensor& input, const OptionalTensor& weight,
                                   const OptionalTensor& bias, const OptionalTensor& mean,
                                   const OptionalTensor& var, const OptionalTensor& residual) {
  TORCH_CHECK(input.dim() >= 2 && input.dim() <= 5,
              "batch_norm_act: expected an input of 2 to 5 dimensions, got ", input.dim());
  BatchNormArguments call;
  call.data_type = data_type_of(input, "batch_norm_act");
  check_memory("batch_norm_act", "the input", input);
  call.compute_type = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  call.weight = parameter(weight, "weight", input, call.compute_type);
  call.bias = parameter(bias, "bias", input, call.compute_type);
  call.mean = parameter(mean, "mean", input, call.compute_type);
  call.var = parameter(var, "var", input, call.compute_type);
  TORCH_CHECK(call.mean.defined() == call.var.defined(),
              "batch_norm_act: give both mean and var, or neither");

  const at::MemoryFormat suggested = input.suggest_memory_format();
  const int64_t pixels = c10::multiply_integers(input.sizes().slice(2));
  call.channels_last =
      pixels <= 1 || (!input.is_contiguous() &&
                      (is_channels_last(input) || suggested != at::MemoryFormat::Contiguous));
  call.channels = input.size(1);
  call.outer = call.channels_last ? input.size(0) * pixels : input.size(0);
  call.inner = call.channels_last ? 1 : pixels;
  const auto stride = call.stride_of(input);
  call.input = stride ? input : input.contiguous(suggested);
  call.input_stride = stride.value_or(call.stride());
  call.residual = like_input(residual, "a residual", call);
  return call;
}

BatchNormArguments check_arguments_of_backward(const at::Tensor& input,
                                               const OptionalTensor& weight,
                                               const OptionalTensor& bias, const at::Tensor& mean,
                                               const at::Tensor& var, const ActivationSpec& act,
                                               const OptionalTensor& residual,
                                               const OptionalTensor& output) {
  BatchNormArguments call = check_arguments(input, weight, bias, mean, var, residual);
  call.output = like_input(output, "an output", call);
  TORCH_CHECK(
      !call.output.defined() || (act.activation == Activation::relu && !call.residual.defined()),
      "batch_norm_act_backward: the output replaces the residual, and only for a relu");
  return call;
}

void check_gradient(const at::Tensor& grad_output, const at::Tensor& input) {
  check_like("batch_norm_act_backward", "a gradient", grad_output, input);
}

void check_batch_size(const at::Tensor& input) {
  const auto sizes = input.sizes();
  int64_t values = sizes[0];
  for (const int64_t size : sizes.slice(2)) values *= size;
  if (values != 1) return;
  std::ostringstream shape;
  for (size_t i = 0; i < sizes.size(); ++i) shape << (i ? ", " : "") << sizes[i];
  TORCH_CHECK_VALUE(
      false, "Expected more than 1 value per channel when training, got input size torch.Size([",
      shape.str(), "])");
}

}  // namespace cnngraph
