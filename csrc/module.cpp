// The Python module: importing it registers the operators. Functions that are not operators are
// defined here.
#include <ATen/core/LegacyTypeDispatch.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/version.h>

#include <algorithm>

#include "checks.h"
#include "conv2d/arguments.h"
#include "conv2d/pointwise.h"
#include "cpu/capability.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, module) {
  module.doc() = "cnngraph's compiled kernels; importing this registers torch.ops.cnngraph.*";
  module.def(
      "cpu_capability", [] { return cnngraph::name_of(cnngraph::cpu_capability()); },
      "The instruction set of the CPU kernels: default, avx2 or avx512.");
  module.def(
      "pointwise_takes",
      [](std::vector<int64_t> weight_sizes) { return cnngraph::pointwise_takes(weight_sizes); },
      "Whether a dense block on the CPU multiplies a float32 weight of these sizes with its norm.");
  module.def(
      "conv_kernel",
      [](const std::string& result, std::array<int64_t, 4> input, std::array<int64_t, 4> weight,
         std::array<int64_t, 2> stride, std::array<int64_t, 2> padding,
         std::array<int64_t, 2> dilation, int64_t groups, bool bfloat16,
         const std::optional<std::string>& arithmetic) {
        using namespace cnngraph;
        TORCH_CHECK(groups > 0 && std::min(stride[0], stride[1]) > 0,
                    "conv_kernel: expected positive strides and groups");
        return name_of(choose_kernel(conv_result_of(result.c_str()),
                                     sizes_of(input, weight, {stride, padding, dilation, groups}),
                                     bfloat16 ? at::kBFloat16 : at::kFloat, /*channels_last=*/true,
                                     arithmetic ? arithmetic->c_str() : nullptr));
      },
      py::arg("result"), py::arg("input"), py::arg("weight"), py::arg("stride"), py::arg("padding"),
      py::arg("dilation"), py::arg("groups"), py::arg("bfloat16") = false,
      py::arg("arithmetic") = py::none(),
      "The kernel that computes this result of a convolution of channels_last maps on the CPU: "
      "this one, or one whose arithmetic the table in conv2d/choice.cpp names so.");
  module.def(
      "convolve_by",
      [](const std::string& kernel, const std::string& result, const at::Tensor& grad_output,
         const at::Tensor& input, const at::Tensor& weight, std::vector<int64_t> stride,
         std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups) {
        using namespace cnngraph;
        const py::gil_scoped_release release;
        const at::AutoDispatchBelowADInplaceOrView guard;
        const auto geometry =
            check_convolution(input, weight, {}, stride, padding, dilation, groups);
        check_sizes("convolve_by", "a gradient", grad_output,
                    sizes_of_results(input, weight, geometry));
        check_kind("convolve_by", "a gradient", grad_output, input);
        return convolution_by(conv_kernel_of(kernel.c_str()), conv_result_of(result.c_str()),
                              grad_output, input, weight, geometry);
      },
      "One result of a convolution of channels_last maps on the CPU by a given kernel.");
  module.def(
      "build_info",
      [] {
        py::dict info;
        info["torch"] = TORCH_VERSION;
        info["compiler"] = __VERSION__;
#if defined(CNNGRAPH_CUDA)
        info["cuda"] = true;
#else
        info["cuda"] = false;
#endif
        return info;
      },
      "The versions the extension was built with.");
}
