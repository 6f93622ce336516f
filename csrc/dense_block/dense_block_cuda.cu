// The CUDA kernels of dense_block. They compile for sm_80 and sm_90 and the tests run them on a
// CPU, block by block, but they have not run on a GPU yet and are not tuned.
#include "../batch_norm_act/channels_cuda.h"
#include "../batch_norm_act/scalar_math.h"
#include "dense_block_cuda.h"

namespace cnngraph {
namespace cuda {
namespace {

// batch_norm_act's backward_sums; adds to the gradient from later layers.
template <class Element, class Act>
__global__ void __launch_bounds__(threads, 2)
    add_gradient_kernel(Walk walk, Act act, const Element* __restrict__ x,
                        const Element* __restrict__ dy, const Element* addend,
                        int64_t addend_stride, const ComputeOf<Element>* __restrict__ table,
                        Element* sum, int64_t sum_stride, Sums* partials) {
  using Compute = ComputeOf<Element>;
  const Normalisation<Element> norm(walk, table);
  SumsOfLanes<Compute, lanes_of<Element>> sums;
  walk.for_each_tile<3>([&](const auto& tile) {
    const VectorsOfTile xs(tile, x, walk.block.x_stride, walk.width);
    const VectorsOfTile dys(tile, dy, walk.block.y_stride, walk.width);
    VectorsOfTile added(tile, addend, addend_stride, walk.width);
    tile.for_each([&](int t) {
#pragma unroll
      for (int v = 0; v < lanes_of<Element>; ++v) {
        if (v >= walk.width) break;
        const Compute centred = norm.centred(xs.vector[t].lane[v], v);
        const Compute dz = act.backward(norm.of(centred, v), widen(dys.vector[t].lane[v]));
        Element& result = added.vector[t].lane[v];
        narrow(widen(result) + dz * norm.scale[v], result);
        sums.add(v, dz, dz * centred);
      }
      store(sum + tile.at(t, sum_stride), added.vector[t], walk.width);
    });
    sums.end_of_tile(tile.count);
  });
  sums.write(walk, partials);
}

template <class Element>
__global__ void __launch_bounds__(threads)
    finish_gradient_kernel(Walk walk, const Element* __restrict__ x,
                           const Element* __restrict__ partial,
                           const ComputeOf<Element>* __restrict__ means,
                           const ComputeOf<Element>* __restrict__ slopes,
                           const ComputeOf<Element>* __restrict__ offsets, int64_t dx_stride,
                           Element* __restrict__ dx) {
  using Compute = ComputeOf<Element>;
  const PerLane<Compute, lanes_of<Element>> mean(walk, means), slope(walk, slopes),
      offset(walk, offsets);
  walk.for_each_tile<2>([&](const auto& tile) {
    const VectorsOfTile xs(tile, x, walk.block.x_stride, walk.width);
    VectorsOfTile sums(tile, partial, walk.block.y_stride, walk.width);
    tile.for_each([&](int t) {
#pragma unroll
      for (int v = 0; v < lanes_of<Element>; ++v) {
        if (v >= walk.width) break;
        Element& result = sums.vector[t].lane[v];
        const Compute centred = widen(xs.vector[t].lane[v]) - mean[v];
        narrow(widen(result) + (centred * slope[v] + offset[v]), result);
      }
      store(dx + tile.at(t, dx_stride), sums.vector[t], walk.width);
    });
  });
}

}  // namespace

cudaError_t add_gradient(const BatchNormAct& call, const void* dy, Strided addend,
                         MutableStrided sum, void* slope, void* offset, void* dweight,
                         void* dbias) {
  make_table(call);
  const Block& block = call.block;
  with_element(call.data_type, [&](auto element) {
    using Element = decltype(element);
    using Compute = ComputeOf<Element>;
    const int width =
        width_of<Element>(block, {call.input, dy, addend.data, sum.data},
                          {block.x_stride, block.y_stride, addend.stride, sum.stride});
    const Plan plan = plan_to_reduce(block, width);
    scalar::with_activation(call.activation, call.arguments, [&](auto act) {
      add_gradient_kernel<Element><<<plan.grid, plan.block, 0, call.stream>>>(
          plan.walk, act, static_cast<const Element*>(call.input), static_cast<const Element*>(dy),
          static_cast<const Element*>(addend.data), addend.stride,
          static_cast<const Compute*>(call.workspace), static_cast<Element*>(sum.data), sum.stride,
          static_cast<Sums*>(partials_of(call)));
    });
    finish_sums(call, plan.parts, slope, offset, dweight, dbias);
  });
  return cudaGetLastError();
}

cudaError_t finish_gradient(DataType data_type, const Block& part, Strided x, Strided partial,
                            const void* mean, const void* slope, const void* offset,
                            MutableStrided dx, cudaStream_t stream) {
  Block block = part;
  block.x_stride = x.stride;
  block.y_stride = partial.stride;
  with_element(data_type, [&](auto element) {
    using Element = decltype(element);
    using Compute = ComputeOf<Element>;
    const int width = width_of<Element>(block, {x.data, partial.data, dx.data, mean, slope, offset},
                                        {x.stride, partial.stride, dx.stride});
    const Plan plan = plan_of_elements(block, width, /*from_end=*/false);
    finish_gradient_kernel<Element><<<plan.grid, plan.block, 0, stream>>>(
        plan.walk, static_cast<const Element*>(x.data), static_cast<const Element*>(partial.data),
        static_cast<const Compute*>(mean), static_cast<const Compute*>(slope),
        static_cast<const Compute*>(offset), dx.stride, static_cast<Element*>(dx.data));
  });
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace cnngraph
