// The CPU loops of max_pool2d, compiled once per capability. In channels_last all channels of a
// window are compared at once; backward gathers, for each pixel of the input, from the windows that
// contain it. In contiguous maps neighbouring windows are compared at once, and backward scatters
// within a plane. Both add in the order of the windows, as torch does.
#pragma once

#include <math.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../cpu/vector.h"
#include "max_pool2d_kernels.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {
namespace {

template <int lanes>
struct BytesOf;
#define CNNGRAPH_BYTES(lanes)                                   \
  template <>                                                   \
  struct BytesOf<lanes> {                                       \
    typedef uint8_t Vector __attribute__((vector_size(lanes))); \
  };
CNNGRAPH_BYTES(2)
CNNGRAPH_BYTES(4)
CNNGRAPH_BYTES(8)
CNNGRAPH_BYTES(16)
#undef CNNGRAPH_BYTES

template <class Element>
using VectorOf = typename Memory<Element>::Vector;
template <class Element>
using ScalarOf = typename Memory<Element>::Scalar;
// The integer vector that comparing two vectors gives.
template <class Element>
using IndexOf = decltype(VectorOf<Element>{} > VectorOf<Element>{});

// Compilers emit scalar code for conversions between a register and a part of one of bytes.
#if defined(__x86_64__) && CNNGRAPH_VECTOR_BYTES == 32
CNNGRAPH_INLINE Ints widen_bytes(typename BytesOf<8>::Vector bytes, Ints) {
  return bit_cast<Ints>(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bit_cast<int64_t>(bytes))));
}
CNNGRAPH_INLINE typename BytesOf<8>::Vector narrow_to_bytes(Ints ints) {
  const __m256i lowest = _mm256_set1_epi32(0x0c080400);
  const __m256i bytes = _mm256_shuffle_epi8(bit_cast<__m256i>(ints), lowest);
  const __m128i both =
      _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  return bit_cast<typename BytesOf<8>::Vector>(_mm_cvtsi128_si64(both));
}
#elif defined(__x86_64__) && CNNGRAPH_VECTOR_BYTES == 64
CNNGRAPH_INLINE Ints widen_bytes(typename BytesOf<16>::Vector bytes, Ints) {
  return bit_cast<Ints>(_mm512_cvtepu8_epi32(bit_cast<__m128i>(bytes)));
}
CNNGRAPH_INLINE typename BytesOf<16>::Vector narrow_to_bytes(Ints ints) {
  return bit_cast<typename BytesOf<16>::Vector>(_mm512_cvtepi32_epi8(bit_cast<__m512i>(ints)));
}
#endif
template <class Bytes, class Indices>
CNNGRAPH_INLINE Indices widen_bytes(Bytes bytes, Indices) {
  return __builtin_convertvector(bytes, Indices);
}
template <class Indices>
CNNGRAPH_INLINE auto narrow_to_bytes(Indices indices) {
  using Bytes = typename BytesOf<sizeof(indices) / sizeof(indices[0])>::Vector;
  return __builtin_convertvector(indices, Bytes);
}

template <class Element>
CNNGRAPH_INLINE IndexOf<Element> load_indices(const uint8_t* from, int64_t count) {
  typename BytesOf<Memory<Element>::lanes>::Vector bytes = {};
  if (count == Memory<Element>::lanes) {
    __builtin_memcpy(&bytes, from, sizeof(bytes));
  } else {
    __builtin_memcpy(&bytes, from, count);
  }
  return widen_bytes(bytes, IndexOf<Element>{});
}

template <class Element>
CNNGRAPH_INLINE void store_indices(uint8_t* to, IndexOf<Element> indices, int64_t count) {
  const auto bytes = narrow_to_bytes(indices);
  if (count == Memory<Element>::lanes) {
    __builtin_memcpy(to, &bytes, sizeof(bytes));
  } else {
    __builtin_memcpy(to, &bytes, count);
  }
}

// The largest value so far and its position: the first of equals, the last NaN.
template <class Element, bool indexed>
struct Largest {
  VectorOf<Element> value = VectorOf<Element>{} - static_cast<ScalarOf<Element>>(INFINITY);
  IndexOf<Element> index;

  CNNGRAPH_INLINE explicit Largest(int64_t first)
      : index(IndexOf<Element>{} + static_cast<int>(first)) {}
  CNNGRAPH_INLINE void compare(VectorOf<Element> other, int64_t position) {
    const auto take = (other > value) | (other != other);
    value = take ? other : value;
    if constexpr (indexed) {
      index = take ? IndexOf<Element>{} + static_cast<int>(position) : index;
    }
  }
  template <class Extent>
  CNNGRAPH_INLINE void store(const Pool& pool, Extent extent, Element* y, uint8_t* indices) {
    if (pool.relu) {
      const auto closed = value <= VectorOf<Element>{};
      value = closed ? VectorOf<Element>{} : value;
      if constexpr (indexed) index = closed ? IndexOf<Element>{} + no_index : index;
    }
    extent.store(y, value);
    if constexpr (indexed) store_indices<Element>(indices, index, extent.count);
  }
};

// ---- channels_last

template <class Element, bool indexed>
void forward_row_of_pixels(const Pool& pool, int64_t row, const Element* x, Element* y,
                           uint8_t* indices) {
  const PoolAxis &height = pool.height, &width = pool.width;
  const int64_t sample = row / height.out_size, out = row % height.out_size;
  const int64_t top = height.first(out), bottom = height.last(out);
  const int64_t pixels_of_row = width.size * pool.channels;
  const Element* first_row = x + (sample * height.size + height.start(out)) * pixels_of_row;
  for (int64_t column = 0; column < width.out_size; ++column) {
    const int64_t left = width.first(column), right = width.last(column);
    const Element* corner = first_row + width.start(column) * pool.channels;
    const int64_t at = (row * width.out_size + column) * pool.channels;
    for_each_vector_of_channels<Element>(pool.channels, [&](auto extent, int64_t channel) {
      Largest<Element, indexed> largest(top * width.kernel + left);
      for (int64_t i = top; i < bottom; ++i) {
        const Element* line = corner + i * height.dilation * pixels_of_row + channel;
        for (int64_t j = left; j < right; ++j) {
          largest.compare(extent.load(line + j * width.dilation * pool.channels),
                          i * width.kernel + j);
        }
      }
      largest.store(pool, extent, y + at + channel, indexed ? indices + at + channel : nullptr);
    });
  }
}

template <class Element>
void backward_row_of_pixels(const Pool& pool, int64_t row, const Element* dy,
                            const uint8_t* indices, Element* dx) {
  const PoolAxis &height = pool.height, &width = pool.width;
  const int64_t sample = row / height.size, y = row % height.size;
  const int64_t top = height.first_window(y), bottom = height.last_window(y);
  int64_t left = 0, right = 0;
  for (int64_t x = 0; x < width.size; ++x) {
    while (left < width.out_size && width.end(left) <= x) ++left;
    while (right < width.out_size && width.start(right) <= x) ++right;
    struct {
      int64_t offset;
      int position;
    } windows[most_positions];
    int count = 0;
    for (int64_t i = top; i < bottom; ++i) {
      const int64_t down = height.position(y, i);
      if (down < 0) continue;
      for (int64_t j = left; j < right; ++j) {
        const int64_t across = width.position(x, j);
        if (across < 0) continue;
        windows[count++] = {((sample * height.out_size + i) * width.out_size + j) * pool.channels,
                            static_cast<int>(down * width.kernel + across)};
      }
    }
    Element* to = dx + (row * width.size + x) * pool.channels;
    for_each_vector_of_channels<Element>(pool.channels, [&](auto extent, int64_t channel) {
      VectorOf<Element> sum = {};
      for (int w = 0; w < count; ++w) {
        const int64_t at = windows[w].offset + channel;
        const IndexOf<Element> index = load_indices<Element>(indices + at, extent.count);
        const VectorOf<Element> gradient = extent.load(dy + at);
        sum += index == IndexOf<Element>{} + windows[w].position ? gradient : VectorOf<Element>{};
      }
      extent.store(to + channel, sum);
    });
  }
}

// ---- contiguous

template <class Element, class Extent>
CNNGRAPH_INLINE VectorOf<Element> load_apart(Extent extent, const Element* from, int64_t stride) {
  if (stride == 1) return extent.load(from);
  Element values[Memory<Element>::lanes] = {};
  for (int lane = 0; lane < extent.count; ++lane) values[lane] = from[lane * stride];
  return Memory<Element>::load(values);
}

template <class Element, bool indexed>
void forward_row_of_plane(const Pool& pool, int64_t row, const Element* x, Element* y,
                          uint8_t* indices) {
  constexpr int64_t lanes = Memory<Element>::lanes;
  const PoolAxis &height = pool.height, &width = pool.width;
  const int64_t plane = row / height.out_size, out = row % height.out_size;
  const int64_t top = height.first(out), bottom = height.last(out);
  const Element* first_row = x + (plane * height.size + height.start(out)) * width.size;
  Element* to = y + row * width.out_size;
  uint8_t* index_to = indexed ? indices + row * width.out_size : nullptr;
  const auto largest_of = [&](auto extent, int64_t column) {
    const int64_t left = width.first(column), right = width.last(column);
    const Element* corner = first_row + width.start(column);
    Largest<Element, indexed> largest(top * width.kernel + left);
    for (int64_t i = top; i < bottom; ++i) {
      const Element* line = corner + i * height.dilation * width.size;
      for (int64_t j = left; j < right; ++j) {
        largest.compare(load_apart(extent, line + j * width.dilation, width.stride),
                        i * width.kernel + j);
      }
    }
    largest.store(pool, extent, to + column, indexed ? index_to + column : nullptr);
  };
  // For columns [begin, end) every window is inside the input.
  const int64_t span = (width.kernel - 1) * width.dilation;
  int64_t begin = ceil_div(width.padding, width.stride);
  int64_t end = width.size - 1 - span + width.padding;
  end = end < 0 ? 0 : end / width.stride + 1;
  end = smaller(end, width.out_size);
  if (begin >= end) begin = end = 0;
  for (int64_t column = 0; column < begin; ++column) largest_of(Part<Element>{1}, column);
  int64_t column = begin;
  for (; column + lanes <= end; column += lanes) largest_of(Whole<Element>{}, column);
  if (column < end) largest_of(Part<Element>{end - column}, column);
  for (column = end; column < width.out_size; ++column) {
    largest_of(Part<Element>{1}, column);
  }
}

template <class Element>
void backward_plane(const Pool& pool, int64_t plane, const Element* dy, const uint8_t* indices,
                    Element* dx, double* scratch) {
  using Scalar = ScalarOf<Element>;
  const PoolAxis &height = pool.height, &width = pool.width;
  const int64_t pixels = height.size * width.size;
  Scalar* sums = reinterpret_cast<Scalar*>(scratch);
  for (int64_t i = 0; i < pixels; ++i) sums[i] = 0;
  const int64_t positions = height.kernel * width.kernel;
  int64_t offsets[most_positions];
  for (int64_t i = 0; i < height.kernel; ++i) {
    for (int64_t j = 0; j < width.kernel; ++j) {
      offsets[i * width.kernel + j] = i * height.dilation * width.size + j * width.dilation;
    }
  }
  int64_t at = plane * height.out_size * width.out_size;
  for (int64_t i = 0; i < height.out_size; ++i) {
    const int64_t line = height.start(i) * width.size;
    for (int64_t j = 0; j < width.out_size; ++j, ++at) {
      if (indices[at] >= positions) continue;
      const int64_t to = line + width.start(j) + offsets[indices[at]];
      if (to < 0 || to >= pixels) continue;  // an index that forward never gives
      sums[to] += Memory<Element>::load(dy + at, 1, 0)[0];
    }
  }
  Element* to = dx + plane * pixels;
  constexpr int64_t lanes = Memory<Element>::lanes;
  int64_t i = 0;
  for (; i + lanes <= pixels; i += lanes) {
    Memory<Element>::store(to + i, Memory<Scalar>::load(sums + i));
  }
  if (i < pixels) {
    Memory<Element>::store(to + i, Memory<Scalar>::load(sums + i, pixels - i, 0), pixels - i);
  }
}

}  // namespace

extern const MaxPool2dKernels max_pool2d = {
    /*forward=*/
    [](DataType data_type, const Pool& pool, int64_t begin, int64_t end, const void* x, void* y,
       uint8_t* indices) {
      with_element(data_type, [&](auto element) {
        using Element = decltype(element);
        const auto* from = static_cast<const Element*>(x);
        auto* to = static_cast<Element*>(y);
        const auto row_of = pool.channels_last   ? indices != nullptr
                                                       ? forward_row_of_pixels<Element, true>
                                                       : forward_row_of_pixels<Element, false>
                            : indices != nullptr ? forward_row_of_plane<Element, true>
                                                 : forward_row_of_plane<Element, false>;
        for (int64_t row = begin; row < end; ++row) row_of(pool, row, from, to, indices);
      });
    },
    /*backward=*/
    [](DataType data_type, const Pool& pool, int64_t begin, int64_t end, const void* dy,
       const uint8_t* indices, void* dx, double* scratch) {
      with_element(data_type, [&](auto element) {
        using Element = decltype(element);
        const auto* from = static_cast<const Element*>(dy);
        auto* to = static_cast<Element*>(dx);
        for (int64_t i = begin; i < end; ++i) {
          if (pool.channels_last) {
            backward_row_of_pixels(pool, i, from, indices, to);
          } else {
            backward_plane(pool, i, from, indices, to, scratch);
          }
        }
      });
    },
};

}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
