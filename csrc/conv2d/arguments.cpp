#include "arguments.h"

#include <algorithm>

#include "../checks.h"

namespace cnngraph {

ConvGeometry check_convolution(const at::Tensor& input, const at::Tensor& weight,
                               const OptionalTensor& bias, at::IntArrayRef stride,
                               at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups) {
  TORCH_CHECK(input.dim() == 4 && weight.dim() == 4,
              "conv2d: expected an input and a weight of 4 dimensions, got shapes ", input.sizes(),
              " and ", weight.sizes());
  const ConvGeometry geometry = {check_pair("conv2d", "stride", stride, 1),
                                 check_pair("conv2d", "padding", padding, 0),
                                 check_pair("conv2d", "dilation", dilation, 1), groups};
  const int64_t outputs = weight.size(0);
  TORCH_CHECK(weight.numel() > 0, "conv2d: the weight is empty: its shape is ", weight.sizes());
  TORCH_CHECK(std::max(weight.size(2), weight.size(3)) <= most_of_geometry,
              "conv2d: the kernel is too large: ", weight.sizes());
  TORCH_CHECK(groups > 0 && groups <= outputs && outputs % groups == 0, "conv2d: ", groups,
              " groups do not divide the ", outputs, " output channels");
  // As torch says it.
  TORCH_CHECK(input.size(1) % groups == 0 && input.size(1) / groups == weight.size(1),
              "Given groups=", groups, ", weight of size ", weight.sizes(), ", expected input",
              input.sizes(), " to have ", weight.size(1) * groups, " channels, but got ",
              input.size(1), " channels instead");
  check_memory("conv2d", "the input", input);
  check_kind("conv2d", "a weight", weight, input);
  if (bias.has_value() && bias->defined()) {
    check_sizes("conv2d", "a bias", *bias, {outputs});
    check_kind("conv2d", "a bias", *bias, input);
  }
  const auto sizes = sizes_of_results(input, weight, geometry);
  TORCH_CHECK(sizes[2] > 0 && sizes[3] > 0, "conv2d: a kernel of ", weight.sizes().slice(2),
              " with dilation ", dilation, " does not fit into an input of ",
              input.sizes().slice(2), " with padding ", padding);
  return geometry;
}

ConvSizes sizes_of(at::IntArrayRef input, at::IntArrayRef weight, const ConvGeometry& geometry) {
  ConvSizes sizes{
      input[0], input[1], weight[0], {input[2], input[3]}, {0, 0}, {weight[2], weight[3]},
      geometry};
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t span = geometry.dilation[axis] * (sizes.kernel[axis] - 1);
    const int64_t free = sizes.input[axis] + 2 * geometry.padding[axis] - span - 1;
    sizes.output[axis] = free < 0 ? 0 : free / geometry.stride[axis] + 1;
  }
  return sizes;
}

std::array<int64_t, 4> sizes_of_results(const at::Tensor& input, const at::Tensor& weight,
                                        const ConvGeometry& geometry) {
  const ConvSizes sizes = sizes_of(input.sizes(), weight.sizes(), geometry);
  return {sizes.images, sizes.out_channels, sizes.output[0], sizes.output[1]};
}

ConvGeometry check_backward(const at::Tensor& grad_output, const at::Tensor& input,
                            const at::Tensor& weight, at::IntArrayRef stride,
                            at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups) {
  const ConvGeometry geometry =
      check_convolution(input, weight, {}, stride, padding, dilation, groups);
  check_sizes("conv2d_backward", "a gradient", grad_output,
              sizes_of_results(input, weight, geometry));
  check_kind("conv2d_backward", "a gradient", grad_output, input);
  return geometry;
}

}  // namespace cnngraph
