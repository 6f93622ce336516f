// The element type of a tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include "data_type.h"

namespace cnngraph {

// Raises NotImplementedError for types that operator `op` does not take: float16 only runs on CUDA.
inline DataType data_type_of(const at::Tensor& tensor, const char* op) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return DataType::float32;
    case at::kDouble:
      return DataType::float64;
    case at::kBFloat16:
      return DataType::bfloat16;
    case at::kHalf:
      if (!tensor.is_cpu()) return DataType::float16;
      [[fallthrough]];
    default:
      TORCH_CHECK_NOT_IMPLEMENTED(false, op, ": not implemented for ", tensor.scalar_type(), " on ",
                                  tensor.device());
  }
}

}  // namespace cnngraph
