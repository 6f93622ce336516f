// The Python module: importing it registers the operators; what is not an operator is here.
#include <pybind11/pybind11.h>
#include <torch/version.h>

#include "cpu/capability.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, module) {
  module.doc() = "cnngraph's compiled kernels; importing this registers torch.ops.cnngraph.*";
  module.def(
      "cpu_capability", [] { return cnngraph::name_of(cnngraph::cpu_capability()); },
      "The instruction set the CPU kernels use: default, avx2 or avx512.");
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
      "What the extension was built with.");
}
