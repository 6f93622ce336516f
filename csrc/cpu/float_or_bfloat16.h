// The type of a tensor's elements for loops that take two.
#pragma once

#include <ATen/core/Tensor.h>

#include "../data_type.h"

namespace cnngraph {

inline DataType float_or_bfloat16(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kFloat ? DataType::float32 : DataType::bfloat16;
}

}  // namespace cnngraph
