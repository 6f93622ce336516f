// The operators have no forward-mode derivatives.
#pragma once

#include <optional>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

namespace cnngraph {

inline bool has_tangent(const at::Tensor& tensor) {
  return tensor.defined() && tensor._fw_grad(/*level=*/0).defined();
}

inline bool has_tangent(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() && has_tangent(*tensor);
}

inline bool has_tangent(at::TensorList tensors) {
  for (const at::Tensor& tensor : tensors) {
    if (has_tangent(tensor)) return true;
  }
  return false;
}

// Of tensors, optional tensors, or lists of tensors.
template <class... Tensors>
void refuse_tangents(const char* op, const Tensors&... tensors) {
  TORCH_CHECK_NOT_IMPLEMENTED(!(has_tangent(tensors) || ...), "cnngraph::", op,
                              " has no forward-mode derivative: it needs the network compiled with "
                              "backend=\"eager\"");
}

}  // namespace cnngraph
