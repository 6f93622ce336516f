// Which kernel computes the result of a convolution and each of its gradients. A linear layer is a
// convolution of maps of one pixel.
#pragma once

#include <c10/core/ScalarType.h>

#include "sizes.h"

namespace cnngraph {

enum class ConvKernel {
  library,       // torch's
  rows,          // linear.h: a few rows with a weight larger than the cache
  winograd_2x2,  // winograd.h
  winograd_4x4,
  pointwise,  // pointwise.h: 1x1 kernels as products of rows of pixels
  packed,     // weight_gradient.h: a product of two packed maps
  depthwise,  // depthwise.h, for inference
};

enum class ConvResult {
  output,
  constant_output,  // with a weight that is transformed once, for inference
  input_gradient,
  weight_gradient,
};

// The names above. Those of no kernel or result raise.
const char* name_of(ConvKernel kernel);
ConvKernel conv_kernel_of(const char* name);
ConvResult conv_result_of(const char* name);

// Whether the kernel can compute the result of channels_last maps of these sizes and this type on
// the CPU. The library can compute any.
bool supports(ConvKernel kernel, ConvResult result, const ConvSizes& sizes, c10::ScalarType type);

// The kernel for maps on the CPU, which depends on nothing but these and the processor's
// capability, so that results are the same from run to run. Few kernels take maps that are not
// channels_last. `arithmetic` is that of another processor, by its name in the table.
ConvKernel choose_kernel(ConvResult result, const ConvSizes& sizes, c10::ScalarType type,
                         bool channels_last = true, const char* arithmetic = nullptr);

}  // namespace cnngraph
