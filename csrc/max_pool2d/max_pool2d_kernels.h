// The interface of max_pool2d's kernels: plain numbers and pointers, so that they compile without
// torch, once per CPU capability, and with nvcc alone.
#pragma once

#include <stdint.h>

#include "../data_type.h"

namespace cnngraph {

// Positions in a window are counted row by row; no_index is where a ReLU blocks the gradient.
constexpr uint8_t no_index = 255;
constexpr int64_t most_positions = 255;

// A window along one axis.
struct PoolAxis {
  int64_t size, out_size, kernel, stride, padding, dilation;

  CNNGRAPH_ELEMENTWISE int64_t start(int64_t out) const { return out * stride - padding; }
  CNNGRAPH_ELEMENTWISE int64_t end(int64_t out) const {
    return start(out) + (kernel - 1) * dilation + 1;
  }
  // The positions [first, last) inside the input. No division if all are.
  CNNGRAPH_ELEMENTWISE int64_t first(int64_t out) const {
    const int64_t outside = -start(out);
    return outside > 0 ? ceil_div(outside, dilation) : 0;
  }
  CNNGRAPH_ELEMENTWISE int64_t last(int64_t out) const {
    if (end(out) <= size) return kernel;
    const int64_t inside = size - start(out);
    const int64_t fit = inside > 0 ? ceil_div(inside, dilation) : 0;
    return smaller(fit, kernel);
  }
  // The windows [first_window, last_window) that may contain an element, and its position in one of
  // them, or -1.
  CNNGRAPH_ELEMENTWISE int64_t first_window(int64_t in) const {
    const int64_t beyond = in + padding - (kernel - 1) * dilation;
    return beyond > 0 ? ceil_div(beyond, stride) : 0;
  }
  CNNGRAPH_ELEMENTWISE int64_t last_window(int64_t in) const {
    return smaller((in + padding) / stride + 1, out_size);
  }
  CNNGRAPH_ELEMENTWISE int64_t position(int64_t in, int64_t window) const {
    const int64_t distance = in - start(window);
    if (dilation == 1) return distance;
    return distance % dilation == 0 ? distance / dilation : -1;
  }
};

// Maps of [samples][channels] or, in channels_last, pixels of [channels].
struct Pool {
  PoolAxis height, width;
  int64_t samples, channels;
  bool channels_last;
  bool relu;  // of the input
};

struct MaxPool2dKernels {
  // Rows [begin, end) of the output: rows of samples in channels_last, else of planes. `indices`
  // may be null.
  void (*forward)(DataType, const Pool&, int64_t begin, int64_t end, const void* x, void* y,
                  uint8_t* indices);
  // channels_last: rows [begin, end) of the input. Else planes of it, with a plane of doubles as
  // `scratch`.
  void (*backward)(DataType, const Pool&, int64_t begin, int64_t end, const void* dy,
                   const uint8_t* indices, void* dx, double* scratch);
};

CNNGRAPH_DECLARE_KERNELS(MaxPool2dKernels, max_pool2d)

}  // namespace cnngraph
