// The CUDA kernels of batch_norm_act. They compile for sm_80 and sm_90 and the tests run them on a
// CPU, block by block, but they have not yet run on a GPU: nothing here is tuned.
//
// All kernels walk the tensor alike. A thread has `width` neighbouring elements at a time, 16 bytes
// where the alignment allows it, else one: of as many channels in channels_last, of one channel in
// contiguous tensors. It stays with its channels, whose coefficients it holds in registers. The cut
// depends on the shape and the alignment alone and partial results are merged in a fixed order, so
// results are the same from run to run.
#include <type_traits>

#include "../cuda/elements.h"
#include "batch_norm_act_cuda.h"
#include "scalar_math.h"

namespace cnngraph {
namespace cuda {
namespace {

using scalar::finite_or_zero;
using scalar::move_shift;

constexpr int threads = 256;
constexpr int values_in_float = 32;  // so many are summed before they are added in double

// ---- the walk

struct Walk {
  Block block;
  int64_t outer_of_part, inner_of_part;
  int inner_parts;
  int width;  // elements a thread takes at a time: a vector's, or 1

  __host__ __device__ bool rows() const { return block.inner == 1; }
  __device__ int64_t channel() const {
    return rows() ? (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * width : blockIdx.x;
  }
  __device__ int64_t channel_of_lane(int lane) const { return channel() + (rows() ? lane : 0); }

  // Calls body(offset) for every vector of this thread's.
  template <class Body>
  __device__ __forceinline__ void for_each(Body body) const {
    const int64_t first = channel();
    if (first >= block.channels) return;
    const int64_t outer_begin = blockIdx.y / inner_parts * outer_of_part;
    const int64_t inner_begin = blockIdx.y % inner_parts * inner_of_part;
    const int64_t outer_end = min(outer_begin + outer_of_part, block.outer);
    if (rows()) {
#pragma unroll 4
      for (int64_t o = outer_begin + threadIdx.y; o < outer_end; o += blockDim.y) {
        body(block.offset(o, first));
      }
      return;
    }
    const int64_t inner_end = min(inner_begin + inner_of_part, block.inner);
    for (int64_t o = outer_begin + threadIdx.y; o < outer_end; o += blockDim.y) {
      const Block::Offset plane = block.offset(o, first);
#pragma unroll 4
      for (int64_t i = inner_begin + int64_t{threadIdx.x} * width; i < inner_end;
           i += int64_t{blockDim.x} * width) {
        body(plane + i);
      }
    }
  }
};

struct Plan {
  Walk walk;
  dim3 grid, block;
  int64_t parts;
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

// Cuts the tensor so that a thread has about `vectors` vectors, in at most about `most_blocks`.
Plan make_plan(const Block& block, int width, int64_t vectors, int64_t most_blocks) {
  const auto [outer, channels, inner, x_stride, y_stride] = block;
  const bool rows = inner == 1;
  const int64_t lanes = ceil_div(rows ? channels : inner, width);
  int64_t across = 1;
  while (across < smaller(lanes, rows ? 32 : threads)) across *= 2;
  const int64_t down = threads / across;
  const int64_t columns = rows ? ceil_div(lanes, across) : channels;
  const int64_t most_parts = smaller(larger(most_blocks / columns, 1), 65535);

  const int64_t steps = rows ? 1 : ceil_div(lanes, across);
  const int64_t inner_parts = smaller(ceil_div(steps, vectors), most_parts);
  const int64_t steps_of_part = ceil_div(steps, inner_parts);
  const int64_t rows_of_part = down * larger(vectors / steps_of_part, 1);
  const int64_t outer_parts =
      smaller(ceil_div(outer, rows_of_part), larger(most_parts / inner_parts, 1));

  Plan plan;
  plan.walk = {block, ceil_div(outer, outer_parts), rows ? 1 : steps_of_part * across * width, 0,
               width};
  plan.walk.inner_parts = static_cast<int>(ceil_div(inner, plan.walk.inner_of_part));
  plan.parts = ceil_div(outer, plan.walk.outer_of_part) * plan.walk.inner_parts;
  plan.grid = dim3(static_cast<unsigned>(columns), static_cast<unsigned>(plan.parts));
  plan.block = dim3(static_cast<unsigned>(across), static_cast<unsigned>(down));
  return plan;
}

Plan plan_to_reduce(const Block& block, int width) {
  return make_plan(block, width, /*vectors=*/16, /*most_blocks=*/2048);
}

Plan plan_of_elements(const Block& block, int width) {
  return make_plan(block, width, /*vectors=*/4, /*most_blocks=*/int64_t{1} << 40);
}

// ---- sums

// Mean and squared deviations of some values (Chan et al.).
struct Moments {
  double count, mean, m2;

  __device__ __forceinline__ void merge(const Moments& other) {
    if (other.count == 0) return;
    const double total = count + other.count;
    const double keep = count / total, take = other.count / total;
    const double delta = other.mean - mean;
    // An empty one has no mean to differ from; the other's may be infinite.
    m2 = count == 0 ? other.m2 : m2 + other.m2 + delta * delta * (count * take);
    mean = count == 0 ? other.mean : mean * keep + other.mean * take;
    count = total;
  }
};

struct Sums {
  double first, second;

  __device__ __forceinline__ void merge(const Sums& other) {
    first += other.first;
    second += other.second;
  }
};

// The sums of one thread, per lane: in the type of computation for a while, then in double.
template <class Compute, int lanes>
struct RunningSums {
  Compute first[lanes] = {}, second[lanes] = {};
  Sums total[lanes] = {};
  int pending = 0;

  __device__ __forceinline__ void add(const Compute (&a)[lanes], const Compute (&b)[lanes]) {
#pragma unroll
    for (int v = 0; v < lanes; ++v) {
      first[v] += a[v];
      second[v] += b[v];
    }
    if (++pending == values_in_float) flush();
  }
  __device__ __forceinline__ void flush() {
#pragma unroll
    for (int v = 0; v < lanes; ++v) {
      total[v].merge({static_cast<double>(first[v]), static_cast<double>(second[v])});
      first[v] = second[v] = 0;
    }
    pending = 0;
  }
};

// The same of x - k and its square. The first k is the first value; as on the CPU, no more values
// are summed in float than came before them, and k moves when it turns out to lie far off.
template <class Compute, int lanes>
struct RunningMoments {
  RunningSums<Compute, lanes> sums;
  Compute k[lanes] = {};
  int64_t count = 0;
  int limit = 1;

  __device__ __forceinline__ void add(const Compute (&x)[lanes]) {
    Compute d[lanes], square[lanes];
#pragma unroll
    for (int v = 0; v < lanes; ++v) {
      if (count == 0) k[v] = finite_or_zero(x[v]);
      d[v] = x[v] - k[v];
      square[v] = d[v] * d[v];
    }
    sums.add(d, square);
    ++count;
    if (--limit == 0) flush();
  }
  __device__ __forceinline__ void flush() {
    sums.flush();
    limit = static_cast<int>(count < values_in_float ? count : values_in_float);
#pragma unroll
    for (int v = 0; v < lanes; ++v) {
      Sums& total = sums.total[v];
      const double values = static_cast<double>(count);
      if (total.first * total.first > 0.5 * values * total.second) {
        move_shift(values, 1 / values, k[v], total.first, total.second);
      }
    }
  }
  __device__ __forceinline__ Moments of_lane(int v) const {
    if (count == 0) return {0, 0, 0};
    const double values = static_cast<double>(count);
    const double mean = sums.total[v].first / values;
    const double m2 = sums.total[v].second - sums.total[v].first * mean;
    return {values, k[v] + mean, m2 < 0 ? 0 : m2};
  }
};

// Merges the block's results in the order of a tree and writes one for each of its channels.
template <class Partial, int lanes>
__device__ __forceinline__ void write_partials(const Walk& walk, Partial (&mine)[lanes],
                                               Partial* partials) {
  __shared__ Partial shared[threads];
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  // Threads one above the other have the channels of a row; in a plane all have the same channel.
  const int columns = walk.rows() ? blockDim.x : 1;
  if (!walk.rows()) {
#pragma unroll
    for (int v = 1; v < lanes; ++v) {
      if (v < walk.width) mine[0].merge(mine[v]);
    }
  }
#pragma unroll
  for (int v = 0; v < lanes; ++v) {
    if (v >= (walk.rows() ? walk.width : 1)) break;
    __syncthreads();
    shared[thread] = mine[v];
    for (int half = threads / 2; half >= columns; half /= 2) {
      __syncthreads();
      if (thread < half) shared[thread].merge(shared[thread + half]);
    }
    const int64_t channel = walk.channel_of_lane(v);
    if (thread < columns && channel < walk.block.channels) {
      partials[blockIdx.y * walk.block.channels + channel] = shared[thread];
    }
  }
}

template <class Element>
__global__ void __launch_bounds__(threads)
    statistics_kernel(Walk walk, const Element* __restrict__ x, Moments* partials) {
  using Compute = ComputeOf<Element>;
  constexpr int lanes = lanes_of<Element>;
  RunningMoments<Compute, lanes> moments;
  walk.for_each([&](Block::Offset at) {
    const Vector<Element> vector = load(x + at.x, walk.width);
    Compute values[lanes];
#pragma unroll
    for (int v = 0; v < lanes; ++v) values[v] = widen(vector.lane[v]);
    moments.add(values);
  });
  moments.flush();
  Moments mine[lanes];
#pragma unroll
  for (int v = 0; v < lanes; ++v) mine[v] = moments.of_lane(v);
  write_partials(walk, mine, partials);
}

// Merges the parts of 32 channels, in a fixed order; the thread that calls `finish` has the result.
template <class Partial, class Finish>
__device__ __forceinline__ void merge_partials(int64_t parts, int64_t channels,
                                               const Partial* partials, Finish finish) {
  __shared__ Partial shared[threads];
  const int64_t channel = int64_t{blockIdx.x} * 32 + threadIdx.x;
  const int thread = threadIdx.y * 32 + threadIdx.x;
  Partial mine = {};
  if (channel < channels) {
    for (int64_t part = threadIdx.y; part < parts; part += threads / 32) {
      mine.merge(partials[part * channels + channel]);
    }
  }
  shared[thread] = mine;
  for (int half = threads / 2; half >= 32; half /= 2) {
    __syncthreads();
    if (thread < half) shared[thread].merge(shared[thread + half]);
  }
  if (thread < 32 && channel < channels) finish(channel, shared[thread]);
}

template <class Compute>
__global__ void __launch_bounds__(threads)
    finish_statistics_kernel(int64_t parts, int64_t channels, const Moments* partials,
                             Compute* mean, Compute* var) {
  merge_partials(parts, channels, partials, [&](int64_t channel, const Moments& result) {
    mean[channel] = static_cast<Compute>(result.mean);
    var[channel] = static_cast<Compute>(result.m2 / result.count);
  });
}

// ---- coefficients: rows of mean, scale, shift, slope and offset, see Coefficients

template <class Compute>
__global__ void __launch_bounds__(threads)
    coefficients_kernel(int64_t channels, double eps, const Compute* mean, const Compute* var,
                        const Compute* weight, const Compute* bias, Compute* table) {
  const int64_t c = int64_t{blockIdx.x} * threads + threadIdx.x;
  if (c >= channels) return;
  const double invstd = 1.0 / sqrt(static_cast<double>(var[c]) + eps);
  table[c] = mean[c];
  table[channels + c] = static_cast<Compute>(weight ? weight[c] * invstd : invstd);
  table[2 * channels + c] = bias ? bias[c] : Compute(0);
  table[3 * channels + c] = table[4 * channels + c] = 0;
}

// dx = scale * (dz - mean(dz) - (x - mean) * invstd^2 * mean(dz * (x - mean)))
template <class Compute>
__global__ void __launch_bounds__(threads)
    finish_sums_kernel(int64_t parts, int64_t channels, const Sums* partials, double values,
                       double eps, const Compute* var, bool batch_statistics, Compute* table,
                       Compute* dweight, Compute* dbias) {
  merge_partials(parts, channels, partials, [&](int64_t c, const Sums& sum) {
    const double invstd = 1.0 / sqrt(static_cast<double>(var[c]) + eps);
    if (dweight) dweight[c] = static_cast<Compute>(sum.second * invstd);
    if (dbias) dbias[c] = static_cast<Compute>(sum.first);
    if (!batch_statistics) return;
    const double scale = table[channels + c];
    table[3 * channels + c] =
        static_cast<Compute>(-scale * invstd * invstd * (sum.second / values));
    table[4 * channels + c] = static_cast<Compute>(-scale * (sum.first / values));
  });
}

template <class Compute, int lanes>
struct LaneCoefficients {
  Compute mean[lanes], scale[lanes], shift[lanes], slope[lanes], offset[lanes];

  __device__ __forceinline__ LaneCoefficients(const Walk& walk, const Compute* table) {
    const int64_t channels = walk.block.channels;
#pragma unroll
    for (int v = 0; v < lanes; ++v) {
      const int64_t c = walk.channel_of_lane(v);
      const bool there = v < walk.width && c < channels;
      mean[v] = there ? table[c] : Compute(0);
      scale[v] = there ? table[channels + c] : Compute(0);
      shift[v] = there ? table[2 * channels + c] : Compute(0);
      slope[v] = there ? table[3 * channels + c] : Compute(0);
      offset[v] = there ? table[4 * channels + c] : Compute(0);
    }
  }
};

// ---- element-wise passes

template <class Element, class Act, class Residual>
__global__ void __launch_bounds__(threads)
    forward_kernel(Walk walk, Act act, Residual, const Element* __restrict__ x,
                   const Element* __restrict__ residual,
                   const ComputeOf<Element>* __restrict__ table, Element* __restrict__ y) {
  using Compute = ComputeOf<Element>;
  constexpr int lanes = lanes_of<Element>;
  const LaneCoefficients<Compute, lanes> c(walk, table);
  walk.for_each([&](Block::Offset at) {
    Vector<Element> vector = load(x + at.x, walk.width), added = {};
    if constexpr (Residual::given) added = load(residual + at.x, walk.width);
#pragma unroll
    for (int v = 0; v < lanes; ++v) {
      if (v >= walk.width) break;
      const Compute centred = widen(vector.lane[v]) - c.mean[v];
      Compute z = centred * c.scale[v] + c.shift[v];
      if constexpr (Residual::given) z += widen(added.lane[v]);
      narrow(act.forward(z), vector.lane[v]);
    }
    store(y + at.y, vector, walk.width);
  });
}

// Stands for the residual where what is given is the output of a ReLU, whose sign is z's.
struct Output {
  static constexpr bool given = true;
};

// With a residual it also writes dz, the residual's gradient.
template <class Element, class Act, class Residual>
__global__ void __launch_bounds__(threads)
    backward_sums_kernel(Walk walk, Act act, Residual, const Element* __restrict__ x,
                         const Element* __restrict__ residual, const Element* __restrict__ dy,
                         const ComputeOf<Element>* __restrict__ table,
                         Element* __restrict__ gradient, Sums* partials) {
  using Compute = ComputeOf<Element>;
  constexpr int lanes = lanes_of<Element>;
  const LaneCoefficients<Compute, lanes> c(walk, table);
  RunningSums<Compute, lanes> sums;
  walk.for_each([&](Block::Offset at) {
    const Vector<Element> xs = load(x + at.x, walk.width), dys = load(dy + at.y, walk.width);
    Vector<Element> added = {};
    if constexpr (Residual::given) added = load(residual + at.x, walk.width);
    Compute dz[lanes] = {}, product[lanes] = {};
#pragma unroll
    for (int v = 0; v < lanes; ++v) {
      if (v >= walk.width) break;
      const Compute centred = widen(xs.lane[v]) - c.mean[v];
      Compute z = centred * c.scale[v] + c.shift[v];
      if constexpr (Residual::given) z += widen(added.lane[v]);
      if constexpr (std::is_same_v<Residual, Output>) z = widen(added.lane[v]);
      dz[v] = act.backward(z, widen(dys.lane[v]));
      product[v] = dz[v] * centred;
      if constexpr (Residual::given) narrow(dz[v], added.lane[v]);
    }
    if constexpr (Residual::given) store(gradient + at.x, added, walk.width);
    sums.add(dz, product);
  });
  sums.flush();
  write_partials(walk, sums.total, partials);
}

template <class Element, class Act>
__global__ void __launch_bounds__(threads)
    backward_kernel(Walk walk, Act act, const Element* __restrict__ x,
                    const Element* __restrict__ dy, const ComputeOf<Element>* __restrict__ table,
                    Element* __restrict__ dx) {
  using Compute = ComputeOf<Element>;
  constexpr int lanes = lanes_of<Element>;
  const LaneCoefficients<Compute, lanes> c(walk, table);
  walk.for_each([&](Block::Offset at) {
    Vector<Element> vector = load(x + at.x, walk.width);
    const Vector<Element> dys = load(dy + at.y, walk.width);
#pragma unroll
    for (int v = 0; v < lanes; ++v) {
      if (v >= walk.width) break;
      const Compute centred = widen(vector.lane[v]) - c.mean[v];
      const Compute dz =
          act.backward(centred * c.scale[v] + c.shift[v], widen(dys.lane[v]));
      narrow(dz * c.scale[v] + (centred * c.slope[v] + c.offset[v]), vector.lane[v]);
    }
    store(dx + at.x, vector, walk.width);
  });
}

// ---- launches

// How many elements a thread may take at a time from all of these.
template <class Element, class... Pointers>
int width_of(const Block& block, Pointers... pointers) {
  const uintptr_t address = (reinterpret_cast<uintptr_t>(pointers) | ...);
  const int64_t neighbours = block.inner == 1 ? block.channels : block.inner;
  const int lanes = lanes_of<Element>;
  const bool aligned = address % 16 == 0 && neighbours % lanes == 0 &&
                       block.x_stride % lanes == 0 && block.y_stride % lanes == 0;
  return aligned ? lanes : 1;
}

constexpr int64_t bytes_of_table(int64_t channels) { return 5 * channels * sizeof(double); }

// The workspace: the table of coefficients, then the partial results.
template <class Partial>
Partial* partials_of(const BatchNormAct& call) {
  return reinterpret_cast<Partial*>(static_cast<char*>(call.workspace) +
                                    bytes_of_table(call.block.channels));
}

template <class Compute>
void make_table(const BatchNormAct& call) {
  const dim3 grid(static_cast<unsigned>(ceil_div(call.block.channels, threads)));
  coefficients_kernel<Compute><<<grid, dim3(threads), 0, call.stream>>>(
      call.block.channels, call.eps, static_cast<const Compute*>(call.mean),
      static_cast<const Compute*>(call.var), static_cast<const Compute*>(call.weight),
      static_cast<const Compute*>(call.bias), static_cast<Compute*>(call.workspace));
}

dim3 grid_to_merge(int64_t channels) { return dim3(static_cast<unsigned>(ceil_div(channels, 32))); }
const dim3 block_to_merge(32, threads / 32);

}  // namespace

int64_t workspace_bytes(const Block& block) {
  int64_t parts = 1;
  for (const int width : {1, 2, 4, 8}) {
    parts = larger(parts, plan_to_reduce(block, width).parts);
  }
  return bytes_of_table(block.channels) +
         parts * block.channels * static_cast<int64_t>(sizeof(Moments));
}

cudaError_t statistics(const BatchNormAct& call, void* mean, void* var) {
  with_element(call.data_type, [&](auto element) {
    using Element = decltype(element);
    using Compute = ComputeOf<Element>;
    const Plan plan = plan_to_reduce(call.block, width_of<Element>(call.block, call.input));
    Moments* partials = partials_of<Moments>(call);
    statistics_kernel<Element><<<plan.grid, plan.block, 0, call.stream>>>(
        plan.walk, static_cast<const Element*>(call.input), partials);
    finish_statistics_kernel<Compute>
        <<<grid_to_merge(call.block.channels), block_to_merge, 0, call.stream>>>(
            plan.parts, call.block.channels, partials, static_cast<Compute*>(mean),
            static_cast<Compute*>(var));
  });
  return cudaGetLastError();
}

cudaError_t forward(const BatchNormAct& call, void* output) {
  with_element(call.data_type, [&](auto element) {
    using Element = decltype(element);
    using Compute = ComputeOf<Element>;
    make_table<Compute>(call);
    const Plan plan = plan_of_elements(
        call.block, width_of<Element>(call.block, call.input, call.residual, output));
    scalar::with_activation(call.activation, call.arguments, [&](auto act) {
      scalar::with_residual(call.residual != nullptr, [&](auto given) {
        forward_kernel<Element><<<plan.grid, plan.block, 0, call.stream>>>(
            plan.walk, act, given, static_cast<const Element*>(call.input),
            static_cast<const Element*>(call.residual),
            static_cast<const Compute*>(call.workspace), static_cast<Element*>(output));
      });
    });
  });
  return cudaGetLastError();
}

// With a residual the last kernel reads the dz that was written, and so knows no activation.
cudaError_t backward(const BatchNormAct& call, const void* grad_output, bool batch_statistics,
                     void* dinput, void* dweight, void* dbias, void* dresidual) {
  with_element(call.data_type, [&](auto element) {
    using Element = decltype(element);
    using Compute = ComputeOf<Element>;
    const auto* x = static_cast<const Element*>(call.input);
    const auto* residual =
        static_cast<const Element*>(call.output != nullptr ? call.output : call.residual);
    const auto* dy = static_cast<const Element*>(grad_output);
    auto* dz = static_cast<Element*>(dresidual);
    auto* table = static_cast<Compute*>(call.workspace);
    make_table<Compute>(call);
    const auto write_dinput = [&](auto act, const Element* gradient, const Block& block) {
      if (dinput == nullptr) return;
      const Plan plan =
          plan_of_elements(block, width_of<Element>(block, x, gradient, dinput));
      backward_kernel<Element><<<plan.grid, plan.block, 0, call.stream>>>(
          plan.walk, act, x, gradient, table, static_cast<Element*>(dinput));
    };
    const auto sum = [&](auto act, auto given) {
      const Plan plan =
          plan_to_reduce(call.block, width_of<Element>(call.block, x, residual, dy, dz));
      const double values =
          static_cast<double>(call.block.outer) * static_cast<double>(call.block.inner);
      Sums* partials = partials_of<Sums>(call);
      backward_sums_kernel<Element><<<plan.grid, plan.block, 0, call.stream>>>(
          plan.walk, act, given, x, residual, dy, table, dz, partials);
      finish_sums_kernel<Compute>
          <<<grid_to_merge(call.block.channels), block_to_merge, 0, call.stream>>>(
              plan.parts, call.block.channels, partials, values, call.eps,
              static_cast<const Compute*>(call.var), batch_statistics, table,
              static_cast<Compute*>(dweight), static_cast<Compute*>(dbias));
    };
    if (call.output != nullptr) {
      sum(scalar::ReLU{}, Output{});
    } else {
      scalar::with_activation(call.activation, call.arguments, [&](auto act) {
        if (dweight != nullptr || dbias != nullptr || batch_statistics || residual != nullptr) {
          scalar::with_residual(residual != nullptr, [&](auto given) { sum(act, given); });
        }
        if (residual == nullptr) write_dinput(act, dy, call.block);
      });
    }
    if (residual != nullptr) {
      Block block = call.block;
      block.y_stride = block.x_stride;
      write_dinput(scalar::Identity{}, dz, block);
    }
  });
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace cnngraph
