#include "linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "../cpu/capability.h"
#include "../data_type_of.h"
#include "linear_kernels.h"

namespace cnngraph {
namespace {

using at::Tensor;

const LinearKernels& kernels() { return CNNGRAPH_KERNELS_IN_USE(linear); }

constexpr int64_t least_of_part = 48;  // outputs or columns that are worth a thread

Tensor as_floats(const Tensor& tensor) { return tensor.to(at::kFloat).contiguous(); }

template <class Body>
void for_parts(int64_t size, Body body) {
  at::parallel_for(0, size, least_of_part,
                   [&](int64_t begin, int64_t end) { body(Range{begin, end}); });
}

}  // namespace

Tensor rows_linear(const Tensor& input, const Tensor& weight, const OptionalTensor& bias) {
  const int64_t rows = input.size(0), inputs = weight.size(1), outputs = weight.size(0);
  const Tensor x = as_floats(input), w = weight.contiguous();
  const bool has_bias = bias.has_value() && bias->defined();
  Tensor result =
      has_bias ? bias->to(at::kFloat).repeat({rows, 1}) : at::zeros({rows, outputs}, x.options());
  float* to = result.mutable_data_ptr<float>();
  for_parts(outputs, [&](Range part) {
    kernels().multiply_transposed(data_type_of(w, "linear"), x.const_data_ptr<float>(),
                                  w.const_data_ptr(), rows, inputs, outputs, part, to);
  });
  return result.to(weight.scalar_type());
}

Tensor rows_input_gradient(const Tensor& grad_output, const Tensor& weight) {
  const int64_t rows = grad_output.size(0), inputs = weight.size(1), outputs = weight.size(0);
  const Tensor grad = as_floats(grad_output), w = weight.contiguous();
  Tensor result = at::zeros({rows, inputs}, grad.options());
  float* to = result.mutable_data_ptr<float>();
  for_parts(inputs, [&](Range part) {
    kernels().multiply(data_type_of(w, "linear"), Factor{grad.const_data_ptr<float>(), outputs, 1},
                       w.const_data_ptr(), rows, outputs, inputs, part, to);
  });
  return result.to(weight.scalar_type());
}

Tensor rows_weight_gradient(const Tensor& grad_output, const Tensor& input) {
  const int64_t rows = input.size(0), inputs = input.size(1), outputs = grad_output.size(1);
  const Tensor grad = as_floats(grad_output), x = as_floats(input);
  Tensor result = at::empty({outputs, inputs}, input.options());
  void* to = result.mutable_data_ptr();
  for_parts(outputs, [&](Range part) {
    kernels().outer_product(data_type_of(result, "linear"),
                            Factor{grad.const_data_ptr<float>(), 1, outputs},
                            x.const_data_ptr<float>(), part, rows, inputs, to);
  });
  return result;
}

}  // namespace cnngraph
