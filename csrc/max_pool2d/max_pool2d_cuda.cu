// The CUDA kernels of max_pool2d. They compile for sm_80 and sm_90 and the tests run them on a CPU,
// but they have not run on a GPU yet and are not tuned.
//
// A thread writes 16 bytes of neighbouring channels in channels_last if the alignment allows it,
// else one element; threads follow the order of memory. Backward gathers from the windows that
// contain an element: there are no atomics, and results are the same in every run.
#include <math.h>

#include "../cuda/elements.h"
#include "max_pool2d_cuda.h"

namespace cnngraph {
namespace cuda {
namespace {

constexpr int threads = 256;

// The bytes that belong to a vector of elements.
template <class Element>
struct alignas(lanes_of<Element>) Indices {
  uint8_t lane[lanes_of<Element>];
};

// The place of vector `at` of `width` elements, counted in the order of memory.
struct Place {
  int64_t sample, channel, row, column;

  __device__ Place(const Pool& pool, int64_t rows, int64_t columns, int width, int64_t at) {
    const int64_t inner = pool.channels_last ? pool.channels / width : 1;
    channel = at % inner * width;
    at /= inner;
    column = at % columns;
    at /= columns;
    row = at % rows;
    at /= rows;
    if (!pool.channels_last) {
      channel = at % pool.channels;
      at /= pool.channels;
    }
    sample = at;
  }
};

__device__ __forceinline__ int64_t offset(const Pool& pool, int64_t rows, int64_t columns,
                                          const Place& place, int64_t row, int64_t column) {
  return pool.channels_last
             ? ((place.sample * rows + row) * columns + column) * pool.channels + place.channel
             : ((place.sample * pool.channels + place.channel) * rows + row) * columns + column;
}

template <class Element>
__global__ void __launch_bounds__(threads)
    forward_kernel(Pool pool, int lanes, int64_t vectors, const Element* __restrict__ x,
                   Element* __restrict__ y, uint8_t* __restrict__ indices) {
  using Compute = ComputeOf<Element>;
  const int64_t at = int64_t{blockIdx.x} * threads + threadIdx.x;
  if (at >= vectors) return;
  const PoolAxis &height = pool.height, &width = pool.width;
  const Place place(pool, height.out_size, width.out_size, lanes, at);
  const int64_t top = height.first(place.row), bottom = height.last(place.row);
  const int64_t left = width.first(place.column), right = width.last(place.column);
  Compute largest[lanes_of<Element>];
  int index[lanes_of<Element>];
#pragma unroll
  for (int v = 0; v < lanes_of<Element>; ++v) {
    largest[v] = -static_cast<Compute>(INFINITY);
    index[v] = static_cast<int>(top * width.kernel + left);
  }
  for (int64_t i = top; i < bottom; ++i) {
    for (int64_t j = left; j < right; ++j) {
      const int64_t from = offset(pool, height.size, width.size, place,
                                  height.start(place.row) + i * height.dilation,
                                  width.start(place.column) + j * width.dilation);
      const Vector<Element> values = load(x + from, lanes);
      const int position = static_cast<int>(i * width.kernel + j);
#pragma unroll
      for (int v = 0; v < lanes_of<Element>; ++v) {
        if (v >= lanes) break;
        const Compute value = widen(values.lane[v]);
        if (value > largest[v] || value != value) {
          largest[v] = value;
          index[v] = position;
        }
      }
    }
  }
  Vector<Element> result;
  Indices<Element> found;
#pragma unroll
  for (int v = 0; v < lanes_of<Element>; ++v) {
    const bool below = pool.relu && largest[v] <= 0;
    narrow(below ? Compute(0) : largest[v], result.lane[v]);
    found.lane[v] = below ? no_index : static_cast<uint8_t>(index[v]);
  }
  store(y + at * lanes, result, lanes);
  if (indices == nullptr) return;
  if (lanes > 1) {
    reinterpret_cast<Indices<Element>*>(indices)[at] = found;
  } else {
    indices[at] = found.lane[0];
  }
}

template <class Element>
__global__ void __launch_bounds__(threads)
    backward_kernel(Pool pool, int lanes, int64_t vectors, const Element* __restrict__ dy,
                    const uint8_t* __restrict__ indices, Element* __restrict__ dx) {
  using Compute = ComputeOf<Element>;
  const int64_t at = int64_t{blockIdx.x} * threads + threadIdx.x;
  if (at >= vectors) return;
  const PoolAxis &height = pool.height, &width = pool.width;
  const Place place(pool, height.size, width.size, lanes, at);
  Compute sum[lanes_of<Element>] = {};
  for (int64_t i = height.first_window(place.row); i < height.last_window(place.row); ++i) {
    const int64_t down = height.position(place.row, i);
    if (down < 0) continue;
    for (int64_t j = width.first_window(place.column); j < width.last_window(place.column); ++j) {
      const int64_t across = width.position(place.column, j);
      if (across < 0) continue;
      const int64_t from = offset(pool, height.out_size, width.out_size, place, i, j);
      const Vector<Element> gradients = load(dy + from, lanes);
      Indices<Element> found;
      if (lanes > 1) {
        found = *reinterpret_cast<const Indices<Element>*>(indices + from);
      } else {
        found.lane[0] = indices[from];
      }
      const int position = static_cast<int>(down * width.kernel + across);
#pragma unroll
      for (int v = 0; v < lanes_of<Element>; ++v) {
        if (v < lanes && found.lane[v] == position) sum[v] += widen(gradients.lane[v]);
      }
    }
  }
  Vector<Element> result;
#pragma unroll
  for (int v = 0; v < lanes_of<Element>; ++v) narrow(sum[v], result.lane[v]);
  store(dx + at * lanes, result, lanes);
}

dim3 grid_of(int64_t vectors) { return dim3(static_cast<unsigned>(ceil_div(vectors, threads))); }

// How many elements a thread may take at a time, given these pointers.
template <class Element>
int lanes_of_thread(const Pool& pool, const void* input, const void* output,
                    const uint8_t* indices) {
  constexpr int lanes = lanes_of<Element>;
  const auto misaligned = [](const void* pointer, int bytes) {
    return reinterpret_cast<uintptr_t>(pointer) % bytes != 0;
  };
  return !pool.channels_last || pool.channels % lanes != 0 || misaligned(input, 16) ||
                 misaligned(output, 16) || misaligned(indices, lanes)
             ? 1
             : lanes;
}

}  // namespace

cudaError_t max_pool2d(DataType data_type, const Pool& pool, const void* input, void* output,
                       uint8_t* indices, cudaStream_t stream) {
  const int64_t elements =
      pool.samples * pool.channels * pool.height.out_size * pool.width.out_size;
  with_element(data_type, [&](auto element) {
    using Element = decltype(element);
    const int lanes = lanes_of_thread<Element>(pool, input, output, indices);
    forward_kernel<Element><<<grid_of(elements / lanes), dim3(threads), 0, stream>>>(
        pool, lanes, elements / lanes, static_cast<const Element*>(input),
        static_cast<Element*>(output), indices);
  });
  return cudaGetLastError();
}

cudaError_t max_pool2d_backward(DataType data_type, const Pool& pool, const void* grad_output,
                                const uint8_t* indices, void* grad_input, cudaStream_t stream) {
  const int64_t elements = pool.samples * pool.channels * pool.height.size * pool.width.size;
  with_element(data_type, [&](auto element) {
    using Element = decltype(element);
    const int lanes = lanes_of_thread<Element>(pool, grad_output, grad_input, indices);
    backward_kernel<Element><<<grid_of(elements / lanes), dim3(threads), 0, stream>>>(
        pool, lanes, elements / lanes, static_cast<const Element*>(grad_output), indices,
        static_cast<Element*>(grad_input));
  });
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace cnngraph
