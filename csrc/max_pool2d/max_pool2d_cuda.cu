// The CUDA kernels of max_pool2d. They compile for sm_80 and sm_90 and the tests run them on a CPU,
// but they have not yet run on a GPU: nothing here is tuned.
//
// A thread has one element of what is written, in the order of memory. Backward gathers from the
// windows that hold its element: no atomics, and results are the same from run to run.
#include <math.h>

#include "../cuda/elements.h"
#include "max_pool2d_cuda.h"

namespace cnngraph {
namespace cuda {
namespace {

constexpr int threads = 256;

// Where an element lies, counted in the order of memory.
struct Place {
  int64_t sample, channel, row, column;

  __device__ Place(const Pool& pool, int64_t height, int64_t width, int64_t at) {
    const int64_t inner = pool.channels_last ? pool.channels : 1;
    channel = at % inner;
    at /= inner;
    column = at % width;
    at /= width;
    row = at % height;
    at /= height;
    if (!pool.channels_last) {
      channel = at % pool.channels;
      at /= pool.channels;
    }
    sample = at;
  }
};

__device__ __forceinline__ int64_t offset(const Pool& pool, int64_t height, int64_t width,
                                          const Place& place, int64_t row, int64_t column) {
  return pool.channels_last
             ? ((place.sample * height + row) * width + column) * pool.channels + place.channel
             : ((place.sample * pool.channels + place.channel) * height + row) * width + column;
}

template <class Element>
__global__ void __launch_bounds__(threads)
    forward_kernel(Pool pool, int64_t elements, const Element* __restrict__ x,
                   Element* __restrict__ y, uint8_t* __restrict__ indices) {
  using Compute = ComputeOf<Element>;
  const int64_t at = int64_t{blockIdx.x} * threads + threadIdx.x;
  if (at >= elements) return;
  const PoolAxis &height = pool.height, &width = pool.width;
  const Place place(pool, height.out_size, width.out_size, at);
  const int64_t top = height.first(place.row), bottom = height.last(place.row);
  const int64_t left = width.first(place.column), right = width.last(place.column);
  Compute largest = -static_cast<Compute>(INFINITY);
  int64_t index = top * width.kernel + left;
  for (int64_t i = top; i < bottom; ++i) {
    for (int64_t j = left; j < right; ++j) {
      const Compute value = widen(x[offset(pool, height.size, width.size, place,
                                           height.start(place.row) + i * height.dilation,
                                           width.start(place.column) + j * width.dilation)]);
      if (value > largest || value != value) {
        largest = value;
        index = i * width.kernel + j;
      }
    }
  }
  if (pool.relu && largest <= 0) {
    largest = 0;
    index = no_index;
  }
  narrow(largest, y[at]);
  if (indices != nullptr) indices[at] = static_cast<uint8_t>(index);
}

template <class Element>
__global__ void __launch_bounds__(threads)
    backward_kernel(Pool pool, int64_t elements, const Element* __restrict__ dy,
                    const uint8_t* __restrict__ indices, Element* __restrict__ dx) {
  using Compute = ComputeOf<Element>;
  const int64_t at = int64_t{blockIdx.x} * threads + threadIdx.x;
  if (at >= elements) return;
  const PoolAxis &height = pool.height, &width = pool.width;
  const Place place(pool, height.size, width.size, at);
  Compute sum = 0;
  for (int64_t i = height.first_window(place.row); i < height.last_window(place.row); ++i) {
    const int64_t down = height.position(place.row, i);
    if (down < 0) continue;
    for (int64_t j = width.first_window(place.column); j < width.last_window(place.column); ++j) {
      const int64_t across = width.position(place.column, j);
      if (across < 0) continue;
      const int64_t from = offset(pool, height.out_size, width.out_size, place, i, j);
      if (indices[from] == down * width.kernel + across) sum += widen(dy[from]);
    }
  }
  narrow(sum, dx[at]);
}

dim3 grid_of(int64_t elements) {
  return dim3(static_cast<unsigned>((elements + threads - 1) / threads));
}

}  // namespace

cudaError_t max_pool2d(DataType data_type, const Pool& pool, const void* input, void* output,
                       uint8_t* indices, cudaStream_t stream) {
  const int64_t elements =
      pool.samples * pool.channels * pool.height.out_size * pool.width.out_size;
  with_element(data_type, [&](auto element) {
    using Element = decltype(element);
    forward_kernel<Element><<<grid_of(elements), dim3(threads), 0, stream>>>(
        pool, elements, static_cast<const Element*>(input), static_cast<Element*>(output), indices);
  });
  return cudaGetLastError();
}

cudaError_t max_pool2d_backward(DataType data_type, const Pool& pool, const void* grad_output,
                                const uint8_t* indices, void* grad_input, cudaStream_t stream) {
  const int64_t elements = pool.samples * pool.channels * pool.height.size * pool.width.size;
  with_element(data_type, [&](auto element) {
    using Element = decltype(element);
    backward_kernel<Element><<<grid_of(elements), dim3(threads), 0, stream>>>(
        pool, elements, static_cast<const Element*>(grad_output), indices,
        static_cast<Element*>(grad_input));
  });
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace cnngraph
