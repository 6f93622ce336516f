// Checks that the operators share. They raise torch's RuntimeError, and read nothing before the
// check of its size: arguments come from Python and may have any size, type, device or length.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <array>
#include <optional>

namespace cnngraph {

using OptionalTensor = std::optional<at::Tensor>;

// oneDNN computes the extent of a window in 32 bits.
constexpr int64_t most_of_geometry = 1 << 29;

// Expanded tensors can have any number of values, which overflows in the sizes of what is made of
// them. No result has as many as this.
constexpr int64_t most_values = int64_t{1} << 40;

inline void check_length(const char* op, const char* name, size_t length, size_t expected) {
  TORCH_CHECK(length == expected, op, ": expected ", expected, " ", name, ", got ", length);
}

// The two numbers of a list; one number stands for both axes, as in torch.
inline std::array<int64_t, 2> check_pair(const char* op, const char* name, at::IntArrayRef given,
                                         int64_t least) {
  TORCH_CHECK(given.size() == 1 || given.size() == 2, op, ": expected ", name,
              " to be one or two integers, got ", given);
  for (const int64_t number : given) {
    TORCH_CHECK(number >= least && number <= most_of_geometry, op, ": ", name, " must be ", least,
                " or more and at most ", most_of_geometry, ", got ", given);
  }
  return {given.front(), given.back()};
}

inline void check_sizes(const char* op, const char* name, const at::Tensor& tensor,
                        at::IntArrayRef sizes) {
  TORCH_CHECK(tensor.sizes() == sizes, op, ": expected ", name, " of shape ", sizes, ", got ",
              tensor.sizes());
}

// A storage can be resized below the tensors that use it, as FSDP does to free memory.
inline void check_memory(const char* op, const char* name, const at::Tensor& tensor) {
  TORCH_CHECK(tensor.numel() <= most_values, op, ": ", name, " of shape ", tensor.sizes(),
              " has too many values");
  if (!tensor.has_storage()) return;  // torch refuses to give out a pointer
  const size_t needed = at::detail::computeStorageNbytes(
      tensor.sizes(), tensor.strides(), tensor.element_size(), tensor.storage_offset());
  TORCH_CHECK(tensor.storage().nbytes() >= needed, op, ": the memory of ", name, " of shape ",
              tensor.sizes(), " was freed");
}

// Raises unless `tensor` is strided, in memory, and has the type and device of `like`.
inline void check_kind(const char* op, const char* name, const at::Tensor& tensor,
                       const at::Tensor& like) {
  TORCH_CHECK(tensor.layout() == at::kStrided && tensor.scalar_type() == like.scalar_type() &&
                  tensor.device() == like.device(),
              op, ": expected ", name, " of type ", like.scalar_type(), " on ", like.device(),
              ", got ", tensor.scalar_type(), " on ", tensor.device());
  check_memory(op, name, tensor);
}

// Of a batch norm's parameters and statistics, which may have the type of computation.
inline void check_per_channel(const char* op, const char* name, const at::Tensor& tensor,
                              int64_t channels, const at::Tensor& input,
                              at::ScalarType compute_type) {
  TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == channels, op, ": ", name, " should hold ",
              channels, " elements, one per channel, got shape ", tensor.sizes());
  TORCH_CHECK(tensor.scalar_type() == input.scalar_type() || tensor.scalar_type() == compute_type,
              op, ": expected ", name, " of type ", input.scalar_type(), " or ", compute_type,
              ", got ", tensor.scalar_type());
  TORCH_CHECK(tensor.device() == input.device() && tensor.layout() == at::kStrided, op, ": ", name,
              " is on ", tensor.device(), ", the input on ", input.device());
  check_memory(op, name, tensor);
}

inline void check_like(const char* op, const char* name, const at::Tensor& tensor,
                       const at::Tensor& like) {
  check_sizes(op, name, tensor, like.sizes());
  check_kind(op, name, tensor, like);
}

}  // namespace cnngraph
