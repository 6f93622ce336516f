// The Python module: importing it registers the operators. Functions that are not operators are
// defined here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/version.h>

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
