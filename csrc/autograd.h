// What the operators' autograd functions share: whether autograd records a call, the refusal of
// forward-mode derivatives, and calls through the dispatcher.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/ArrayRef.h>

#include <algorithm>
#include <optional>

namespace cnngraph {

// The registered operator `name` with this signature; callers keep it in a static variable.
template <class Signature>
c10::TypedOperatorHandle<Signature> find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

template <class Predicate>
bool any_tensor(const Predicate& predicate, const at::Tensor& tensor) {
  return tensor.defined() && predicate(tensor);
}

template <class Predicate>
bool any_tensor(const Predicate& predicate, const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() && any_tensor(predicate, *tensor);
}

template <class Predicate>
bool any_tensor(const Predicate& predicate, at::TensorList tensors) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const at::Tensor& tensor) { return any_tensor(predicate, tensor); });
}

// Whether autograd records a function of these tensors, optional tensors or lists of tensors.
template <class... Tensors>
bool differentiated(const Tensors&... tensors) {
  const auto requires_grad = [](const at::Tensor& tensor) { return tensor.requires_grad(); };
  return at::GradMode::is_enabled() && (any_tensor(requires_grad, tensors) || ...);
}

// Raises if any of the tensors has a tangent: the operators have no forward-mode derivatives.
template <class... Tensors>
void refuse_tangents(const char* op, const Tensors&... tensors) {
  const auto has_tangent = [](const at::Tensor& tensor) {
    return tensor._fw_grad(/*level=*/0).defined();
  };
  TORCH_CHECK_NOT_IMPLEMENTED(!(any_tensor(has_tangent, tensors) || ...), "cnngraph::", op,
                              " has no forward-mode derivative: compile the network with "
                              "backend=\"eager\"");
}

}  // namespace cnngraph
