// The CUDA kernels of batch_norm_act. They compile for sm_80 and sm_90 and the tests run them on a
// CPU, block by block, but they have not run on a GPU yet and are not tuned.
#include <type_traits>

#include "batch_norm_act_cuda.h"
#include "channels_cuda.h"
#include "scalar_math.h"

namespace cnngraph {
namespace cuda {
namespace {

using scalar::finite_or_zero;

// ---- statistics

// Sums are of x - origin and its square, where the origin is the channel's first value. As it is
// one of the values, however far it is from the others, the variance is at least as large as the
// rounding error of subtracting the squares of the sums in double.
template <class Element>
__device__ __forceinline__ ComputeOf<Element> origin_of(const Element* x, const Block& block,
                                                        int64_t channel) {
  return finite_or_zero(widen(x[channel * block.inner]));
}

// These sums for one lane. A few values at a time are summed in the type of computation, shifted by
// the first of them for the same reason.
template <class Element>
struct Moments {
  static constexpr int most_values = 32;
  using Compute = ComputeOf<Element>;
  Compute shift = 0, sum = 0, square = 0;

  __device__ __forceinline__ void add(Compute value, bool first) {
    if (first) shift = finite_or_zero(value);
    const Compute d = value - shift;
    sum += d;
    square += d * d;
  }
  __device__ __forceinline__ void flush(double values, Compute origin, Sums& total) {
    const double step = static_cast<double>(shift) - static_cast<double>(origin);
    const double part = static_cast<double>(sum);
    total.add(
        {part + values * step, static_cast<double>(square) + step * (2 * part + values * step)});
    sum = square = 0;
  }
};

template <class Element>
__global__ void __launch_bounds__(threads, 2)
    statistics_kernel(Walk walk, const Element* __restrict__ x, Sums* partials) {
  constexpr int lanes = lanes_of<Element>;
  Moments<Element> moments[lanes];
  Sums total[lanes] = {};
  ComputeOf<Element> origin[lanes];
#pragma unroll
  for (int v = 0; v < lanes; ++v) {
    const int64_t channel = walk.channel() + (walk.rows() ? v : 0);
    origin[v] = channel < walk.block.channels ? origin_of(x, walk.block, channel) : 0;
  }
  int values = 0;
  const auto flush = [&] {
#pragma unroll
    for (int v = 0; v < lanes; ++v) {
      if (values > 0 && v < walk.width) moments[v].flush(values, origin[v], total[v]);
    }
    values = 0;
  };
  walk.for_each_tile<1>([&](const auto& tile) {
    const VectorsOfTile xs(tile, x, walk.block.x_stride, walk.width);
    tile.for_each([&](int t) {
#pragma unroll
      for (int v = 0; v < lanes; ++v) {
        if (v < walk.width) moments[v].add(widen(xs.vector[t].lane[v]), values == 0 && t == 0);
      }
    });
    values += tile.count;
    if (values >= Moments<Element>::most_values) flush();
  });
  flush();
  write_partials(walk, total, partials);
}

template <class Element>
__global__ void __launch_bounds__(threads)
    finish_statistics_kernel(int64_t parts, Block block, double values, const Sums* partials,
                             const Element* x, ComputeOf<Element>* mean, ComputeOf<Element>* var) {
  using Compute = ComputeOf<Element>;
  merge_partials(parts, block.channels, partials, [&](int64_t c, const Sums& sum) {
    const double step = sum.first / values;
    const double m2 = sum.second - sum.first * step;
    mean[c] = static_cast<Compute>(static_cast<double>(origin_of(x, block, c)) + step);
    var[c] = static_cast<Compute>(m2 < 0 ? 0 : m2 / values);
  });
}

// ---- element-wise passes

template <class Element, class Act, class Residual>
__global__ void __launch_bounds__(threads)
    forward_kernel(Walk walk, Act act, Residual, const Element* __restrict__ x,
                   const Element* __restrict__ residual,
                   const ComputeOf<Element>* __restrict__ table, Element* __restrict__ y) {
  using Compute = ComputeOf<Element>;
  const auto [outer, channels, inner, x_stride, y_stride, dense_stride] = walk.block;
  const Normalisation<Element> norm(walk, table);
  walk.for_each_tile<Residual::given ? 2 : 1>([&](const auto& tile) {
    VectorsOfTile xs(tile, x, x_stride, walk.width), added = xs;
    if constexpr (Residual::given) added = {tile, residual, dense_stride, walk.width};
    tile.for_each([&](int t) {
      Vector<Element>& vector = xs.vector[t];
#pragma unroll
      for (int v = 0; v < lanes_of<Element>; ++v) {
        if (v >= walk.width) break;
        Compute z = norm.of(norm.centred(vector.lane[v], v), v);
        if constexpr (Residual::given) z += widen(added.vector[t].lane[v]);
        narrow(act.forward(z), vector.lane[v]);
      }
      store(y + tile.at(t, y_stride), vector, walk.width);
    });
  });
}

// Replaces Residual when the output of a ReLU is given; it has the sign of z.
struct Output {
  static constexpr bool given = true;
};

// With a residual it also writes dz, the residual's gradient.
template <class Element, class Act, class Residual>
__global__ void __launch_bounds__(threads, 2)
    backward_sums_kernel(Walk walk, Act act, Residual, const Element* __restrict__ x,
                         const Element* __restrict__ residual, const Element* __restrict__ dy,
                         const ComputeOf<Element>* __restrict__ table,
                         Element* __restrict__ gradient, Sums* partials) {
  using Compute = ComputeOf<Element>;
  const auto [outer, channels, inner, x_stride, y_stride, dense_stride] = walk.block;
  const Normalisation<Element> norm(walk, table);
  SumsOfLanes<Compute, lanes_of<Element>> sums;
  walk.for_each_tile<Residual::given ? 3 : 2>([&](const auto& tile) {
    const VectorsOfTile xs(tile, x, x_stride, walk.width);
    const VectorsOfTile dys(tile, dy, y_stride, walk.width);
    VectorsOfTile added = xs;
    if constexpr (Residual::given) added = {tile, residual, dense_stride, walk.width};
    tile.for_each([&](int t) {
#pragma unroll
      for (int v = 0; v < lanes_of<Element>; ++v) {
        if (v >= walk.width) break;
        const Compute centred = norm.centred(xs.vector[t].lane[v], v);
        Element& other = added.vector[t].lane[v];
        Compute z = norm.of(centred, v);
        if constexpr (Residual::given) z += widen(other);
        if constexpr (std::is_same_v<Residual, Output>) z = widen(other);
        const Compute dz = act.backward(z, widen(dys.vector[t].lane[v]));
        sums.add(v, dz, dz * centred);
        if constexpr (Residual::given) narrow(dz, other);
      }
      if constexpr (Residual::given) {
        store(gradient + tile.at(t, dense_stride), added.vector[t], walk.width);
      }
    });
    sums.end_of_tile(tile.count);
  });
  sums.write(walk, partials);
}

template <class Element, class Act>
__global__ void __launch_bounds__(threads)
    backward_kernel(Walk walk, Act act, const Element* __restrict__ x,
                    const Element* __restrict__ dy, const ComputeOf<Element>* __restrict__ table,
                    Element* __restrict__ dx) {
  using Compute = ComputeOf<Element>;
  const auto [outer, channels, inner, x_stride, y_stride, dense_stride] = walk.block;
  const Normalisation<Element> norm(walk, table);
  const PerLane<Compute, lanes_of<Element>> slope(walk, table + 3 * channels);
  const PerLane<Compute, lanes_of<Element>> offset(walk, table + 4 * channels);
  walk.for_each_tile<2>([&](const auto& tile) {
    VectorsOfTile xs(tile, x, x_stride, walk.width);
    const VectorsOfTile dys(tile, dy, y_stride, walk.width);
    tile.for_each([&](int t) {
      Vector<Element>& vector = xs.vector[t];
#pragma unroll
      for (int v = 0; v < lanes_of<Element>; ++v) {
        if (v >= walk.width) break;
        const Compute centred = norm.centred(vector.lane[v], v);
        const Compute dz = act.backward(norm.of(centred, v), widen(dys.vector[t].lane[v]));
        narrow(dz * norm.scale[v] + (centred * slope[v] + offset[v]), vector.lane[v]);
      }
      store(dx + tile.at(t, dense_stride), vector, walk.width);
    });
  });
}

}  // namespace

cudaError_t statistics(const BatchNormAct& call, void* mean, void* var) {
  const Block& block = call.block;
  with_element(call.data_type, [&](auto element) {
    using Element = decltype(element);
    using Compute = ComputeOf<Element>;
    const Plan plan =
        plan_to_reduce(block, width_of<Element>(block, {call.input}, {block.x_stride}));
    const auto* x = static_cast<const Element*>(call.input);
    auto* partials = static_cast<Sums*>(partials_of(call));
    statistics_kernel<Element><<<plan.grid, plan.block, 0, call.stream>>>(plan.walk, x, partials);
    finish_statistics_kernel<Element>
        <<<grid_to_merge(block.channels), block_to_merge, 0, call.stream>>>(
            plan.parts, block, values_per_channel(block), partials, x, static_cast<Compute*>(mean),
            static_cast<Compute*>(var));
  });
  return cudaGetLastError();
}

cudaError_t forward(const BatchNormAct& call, void* output) {
  make_table(call);
  const Block& block = call.block;
  with_element(call.data_type, [&](auto element) {
    using Element = decltype(element);
    using Compute = ComputeOf<Element>;
    const int width = width_of<Element>(block, {call.input, call.residual, output},
                                        {block.x_stride, block.y_stride});
    const Plan plan = plan_of_elements(block, width, /*from_end=*/true);
    scalar::with_activation(call.activation, call.arguments, [&](auto act) {
      scalar::with_residual(call.residual != nullptr, [&](auto given) {
        forward_kernel<Element><<<plan.grid, plan.block, 0, call.stream>>>(
            plan.walk, act, given, static_cast<const Element*>(call.input),
            static_cast<const Element*>(call.residual), static_cast<const Compute*>(call.workspace),
            static_cast<Element*>(output));
      });
    });
  });
  return cudaGetLastError();
}

// With a residual the last kernel reads the dz that was written, and so knows no activation.
cudaError_t backward(const BatchNormAct& call, const void* grad_output, bool batch_statistics,
                     void* dinput, void* dweight, void* dbias, void* dresidual) {
  make_table(call);
  with_element(call.data_type, [&](auto element) {
    using Element = decltype(element);
    using Compute = ComputeOf<Element>;
    const auto* x = static_cast<const Element*>(call.input);
    const auto* residual =
        static_cast<const Element*>(call.output != nullptr ? call.output : call.residual);
    const auto* dy = static_cast<const Element*>(grad_output);
    auto* dz = static_cast<Element*>(dresidual);
    auto* table = static_cast<Compute*>(call.workspace);
    const auto plan_width = [&](const Block& block, std::initializer_list<const void*> pointers) {
      return width_of<Element>(block, pointers, {block.x_stride, block.y_stride});
    };
    const auto write_dinput = [&](auto act, const Element* gradient, const Block& block) {
      if (dinput == nullptr) return;
      const Plan plan = plan_of_elements(block, plan_width(block, {x, gradient, dinput}),
                                         /*from_end=*/true);
      backward_kernel<Element><<<plan.grid, plan.block, 0, call.stream>>>(
          plan.walk, act, x, gradient, table, static_cast<Element*>(dinput));
    };
    const auto sum = [&](auto act, auto given) {
      const Plan plan = plan_to_reduce(call.block, plan_width(call.block, {x, residual, dy, dz}));
      backward_sums_kernel<Element><<<plan.grid, plan.block, 0, call.stream>>>(
          plan.walk, act, given, x, residual, dy, table, dz, static_cast<Sums*>(partials_of(call)));
      Compute* terms = batch_statistics ? table + 3 * call.block.channels : nullptr;
      finish_sums(call, plan.parts, terms, terms ? terms + call.block.channels : nullptr, dweight,
                  dbias);
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
      block.y_stride = block.dense_stride;
      write_dinput(scalar::Identity{}, dz, block);
    }
  });
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace cnngraph
