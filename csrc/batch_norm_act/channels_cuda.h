// Shared by the CUDA kernels of batch norms: the walk over a tensor, sums over its channels, and
// the coefficients of a thread's channels.
//
// A thread processes `width` neighbouring elements at a time (16 bytes if the alignment allows it,
// else one element): of as many channels in channels_last, of one channel in contiguous tensors. It
// keeps its channels, with their coefficients in registers, and loads a tile of several vectors
// before it computes, to keep memory busy. The cut depends only on the shape and the alignment, and
// partial results are added in a fixed order, so results are the same in every run.
#pragma once

#include <initializer_list>

#include "../cuda/elements.h"
#include "batch_norm_act_kernels.h"

namespace cnngraph {
namespace cuda {
namespace {

constexpr int threads = 256;
constexpr int vectors_in_flight = 4;  // over all tensors a thread reads; more cost registers

// ---- the walk

// The vectors of one tensor that a thread processes together.
template <int vectors>
struct Tile {
  int64_t outer[vectors], element[vectors];
  int count;

  // The start of vector t in a tensor with this distance between outer indices.
  __device__ __forceinline__ int64_t at(int t, int64_t stride) const {
    return outer[t] * stride + element[t];
  }
  template <class Body>
  __device__ __forceinline__ void for_each(Body body) const {
#pragma unroll
    for (int t = 0; t < vectors; ++t) {
      if (t < count) body(t);
    }
  }
};

template <class Element, int vectors>
struct VectorsOfTile {
  Vector<Element> vector[vectors];

  __device__ __forceinline__ VectorsOfTile(const Tile<vectors>& tile, const Element* from,
                                           int64_t stride, int width) {
    tile.for_each([&](int t) { vector[t] = load(from + tile.at(t, stride), width); });
  }
};

struct Walk {
  Block block;
  int64_t outer_of_part, inner_of_part;
  int inner_parts;
  int width;      // elements a thread takes at a time: a whole vector or 1
  bool from_end;  // start where the previous pass left the cache warm

  __host__ __device__ bool rows() const { return block.inner == 1; }
  __device__ int64_t channel() const {
    return rows() ? (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * width : blockIdx.x;
  }

  // Calls body(tile) for all vectors of this thread; `tensors` are read per tile.
  template <int tensors, class Body>
  __device__ __forceinline__ void for_each_tile(Body body) const {
    constexpr int vectors = vectors_in_flight / tensors;
    const int64_t first = channel();
    if (first >= block.channels) return;
    const int64_t part = from_end ? gridDim.y - 1 - blockIdx.y : blockIdx.y;
    const int64_t outer_begin = part / inner_parts * outer_of_part;
    const int64_t outer_end = smaller(outer_begin + outer_of_part, block.outer);
    const int64_t plane = part % inner_parts * inner_of_part;
    const int64_t begin = rows() ? 0 : plane + int64_t{threadIdx.x} * width;
    const int64_t end = rows() ? 1 : smaller(plane + inner_of_part, block.inner);
    const int64_t step = int64_t{blockDim.x} * width;
    if (begin >= end) return;
    int64_t outer = outer_begin + threadIdx.y, i = begin;
    while (outer < outer_end) {
      Tile<vectors> tile;
      tile.count = 0;
#pragma unroll
      for (int t = 0; t < vectors; ++t) {
        tile.outer[t] = outer;
        tile.element[t] = first * block.inner + i;
        if (outer >= outer_end) continue;
        ++tile.count;
        i += step;
        if (i >= end) {
          i = begin;
          outer += blockDim.y;
        }
      }
      body(tile);
    }
  }
};

struct Plan {
  Walk walk;
  dim3 grid, block;
  int64_t parts;
};

// Cuts the tensor so that a thread has about `vectors` vectors, or more if there would be more than
// about `most_blocks` blocks. A launch has at most 65535 parts.
inline Plan make_plan(const Block& block, int width, int64_t vectors, int64_t most_blocks,
                      bool from_end) {
  const bool rows = block.inner == 1;
  const int64_t lanes = ceil_div(rows ? block.channels : block.inner, width);
  int64_t across = 1;
  while (across < smaller(lanes, rows ? 32 : threads)) across *= 2;
  const int64_t down = threads / across;
  const int64_t columns = rows ? ceil_div(lanes, across) : block.channels;
  const int64_t most_parts = smaller(larger(most_blocks / columns, 1), 65535);

  const int64_t steps = rows ? 1 : ceil_div(lanes, across);
  const int64_t inner_parts = smaller(ceil_div(steps, vectors), most_parts);
  const int64_t steps_of_part = ceil_div(steps, inner_parts);
  const int64_t rows_of_part = down * larger(vectors / steps_of_part, 1);
  const int64_t outer_parts =
      smaller(ceil_div(block.outer, rows_of_part), larger(most_parts / inner_parts, 1));

  Plan plan;
  plan.walk = {block,
               ceil_div(block.outer, outer_parts),
               rows ? 1 : steps_of_part * across * width,
               0,
               width,
               from_end};
  plan.walk.inner_parts = static_cast<int>(ceil_div(block.inner, plan.walk.inner_of_part));
  plan.parts = ceil_div(block.outer, plan.walk.outer_of_part) * plan.walk.inner_parts;
  plan.grid = dim3(static_cast<unsigned>(columns), static_cast<unsigned>(plan.parts));
  plan.block = dim3(static_cast<unsigned>(across), static_cast<unsigned>(down));
  return plan;
}

inline Plan plan_to_reduce(const Block& block, int width) {
  return make_plan(block, width, /*vectors=*/8, /*most_blocks=*/1024, /*from_end=*/false);
}

inline Plan plan_of_elements(const Block& block, int width, bool from_end) {
  return make_plan(block, width, /*vectors=*/8, /*most_blocks=*/int64_t{1} << 40, from_end);
}

// How many elements a thread may take at a time, given these pointers and strides.
template <class Element>
int width_of(const Block& block, std::initializer_list<const void*> pointers,
             std::initializer_list<int64_t> strides) {
  constexpr int lanes = lanes_of<Element>;
  bool aligned = (block.inner == 1 ? block.channels : block.inner) % lanes == 0;
  for (const void* pointer : pointers) aligned &= reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
  for (const int64_t stride : strides) aligned &= stride % lanes == 0;
  return aligned ? lanes : 1;
}

// ---- numbers per channel

// A per-channel number for each of a thread's lanes. Rows are aligned as width_of requires.
template <class Compute, int lanes>
struct PerLane {
  Compute lane[lanes];

  __device__ __forceinline__ PerLane(const Walk& walk, const Compute* row) {
    const int64_t channel = walk.channel() < walk.block.channels ? walk.channel() : 0;
    constexpr int together = lanes_of<Compute>;
    if (walk.rows() && walk.width > 1) {
#pragma unroll
      for (int v = 0; v < lanes; v += together) {
        const Vector<Compute> vector = load(row + channel + v, together);
#pragma unroll
        for (int i = 0; i < together; ++i) lane[v + i] = vector.lane[i];
      }
      return;
    }
    const Compute value = row[channel];
#pragma unroll
    for (int v = 0; v < lanes; ++v) lane[v] = value;
  }
  __device__ __forceinline__ Compute operator[](int v) const { return lane[v]; }
};

// z = (x - mean) * scale + shift
template <class Element>
struct Normalisation {
  using Compute = ComputeOf<Element>;
  PerLane<Compute, lanes_of<Element>> mean, scale, shift;

  __device__ __forceinline__ Normalisation(const Walk& walk, const Compute* table)
      : mean(walk, table),
        scale(walk, table + walk.block.channels),
        shift(walk, table + 2 * walk.block.channels) {}
  __device__ __forceinline__ Compute centred(Element x, int v) const { return widen(x) - mean[v]; }
  __device__ __forceinline__ Compute of(Compute centred, int v) const {
    return centred * scale[v] + shift[v];
  }
};

// ---- sums

struct Sums {
  double first, second;

  __device__ __forceinline__ void add(const Sums& other) {
    first += other.first;
    second += other.second;
  }
};

// Adds up the block's sums as a tree and writes one per channel.
template <int lanes>
__device__ __forceinline__ void write_partials(const Walk& walk, Sums (&mine)[lanes],
                                               Sums* partials) {
  __shared__ Sums shared[threads];
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  // In rows, threads of one column share channels; in planes all threads have the same channel.
  const int columns = walk.rows() ? blockDim.x : 1;
  const int channels = walk.rows() ? walk.width : 1;
  if (!walk.rows()) {
#pragma unroll
    for (int v = 1; v < lanes; ++v) {
      if (v < walk.width) mine[0].add(mine[v]);
    }
  }
#pragma unroll
  for (int v = 0; v < lanes; ++v) {
    if (v >= channels) break;
    __syncthreads();
    shared[thread] = mine[v];
    for (int half = threads / 2; half >= columns; half /= 2) {
      __syncthreads();
      if (thread < half) shared[thread].add(shared[thread + half]);
    }
    const int64_t channel = walk.channel() + v;
    if (thread < columns && channel < walk.block.channels) {
      partials[blockIdx.y * walk.block.channels + channel] = shared[thread];
    }
  }
}

// Two sums per lane of a thread, over a few values first and then over these sums, to keep rounding
// errors small. The sums of the block are added in double.
template <class Compute, int lanes>
struct SumsOfLanes {
  static constexpr int values_of_part = 32;
  Compute first[lanes] = {}, second[lanes] = {};
  Compute total_first[lanes] = {}, total_second[lanes] = {};
  int values = 0;

  __device__ __forceinline__ void add(int v, Compute a, Compute b) {
    first[v] += a;
    second[v] += b;
  }
  __device__ __forceinline__ void end_of_tile(int count) {
    values += count;
    if (values >= values_of_part) flush();
  }
  __device__ __forceinline__ void flush() {
#pragma unroll
    for (int v = 0; v < lanes; ++v) {
      total_first[v] += first[v];
      total_second[v] += second[v];
      first[v] = second[v] = 0;
    }
    values = 0;
  }
  __device__ __forceinline__ void write(const Walk& walk, Sums* partials) {
    flush();
    Sums mine[lanes];
#pragma unroll
    for (int v = 0; v < lanes; ++v) {
      mine[v] = {static_cast<double>(total_first[v]), static_cast<double>(total_second[v])};
    }
    write_partials(walk, mine, partials);
  }
};

// Few channels per block and many threads per channel: there are far more parts than channels.
constexpr int channels_to_merge = 8;

// Adds up the parts in a fixed order; one thread per channel calls finish(channel, sum).
template <class Finish>
__device__ __forceinline__ void merge_partials(int64_t parts, int64_t channels,
                                               const Sums* __restrict__ partials, Finish finish) {
  __shared__ Sums shared[threads];
  const int64_t channel = int64_t{blockIdx.x} * channels_to_merge + threadIdx.x;
  const int thread = threadIdx.y * channels_to_merge + threadIdx.x;
  Sums mine = {};
  if (channel < channels) {
#pragma unroll 4
    for (int64_t part = threadIdx.y; part < parts; part += threads / channels_to_merge) {
      mine.add(partials[part * channels + channel]);
    }
  }
  shared[thread] = mine;
  for (int half = threads / 2; half >= channels_to_merge; half /= 2) {
    __syncthreads();
    if (thread < half) shared[thread].add(shared[thread + half]);
  }
  if (threadIdx.y == 0 && channel < channels) finish(channel, shared[thread]);
}

inline dim3 grid_to_merge(int64_t channels) {
  return dim3(static_cast<unsigned>(ceil_div(channels, channels_to_merge)));
}
const dim3 block_to_merge(channels_to_merge, threads / channels_to_merge);

inline double values_per_channel(const Block& block) {
  return static_cast<double>(block.outer) * static_cast<double>(block.inner);
}

}  // namespace
}  // namespace cuda
}  // namespace cnngraph
