// Whether autograd records what is computed.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/ArrayRef.h>

#include <algorithm>
#include <optional>

namespace cnngraph {

inline bool requires_grad(const at::Tensor& tensor) { return tensor.requires_grad(); }

inline bool requires_grad(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() && tensor->requires_grad();
}

inline bool requires_grad(at::TensorList tensors) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const at::Tensor& tensor) { return tensor.requires_grad(); });
}

// Of tensors, tensors that may not be there, or lists of tensors.
template <class... Tensors>
bool differentiated(const Tensors&... tensors) {
  return at::GradMode::is_enabled() && (requires_grad(tensors) || ...);
}

}  // namespace cnngraph
