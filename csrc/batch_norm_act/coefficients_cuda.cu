// The per-channel numbers of batch norms on CUDA: the table that the passes over maps read, and the
// gradients that follow from their sums.
#include "batch_norm_act_cuda.h"
#include "channels_cuda.h"
#include "coefficients.h"

namespace cnngraph {
namespace cuda {
namespace {

template <class Compute>
__global__ void __launch_bounds__(threads)
    coefficients_kernel(int64_t channels, double eps, const Compute* mean, const Compute* var,
                        const Compute* weight, const Compute* bias, Compute* table) {
  const int64_t c = int64_t{blockIdx.x} * threads + threadIdx.x;
  if (c >= channels) return;
  table[c] = mean[c];
  table[channels + c] = scale_of(weight, c, inverse_std(var[c], eps));
  table[2 * channels + c] = shift_of(bias, c);
  table[3 * channels + c] = table[4 * channels + c] = 0;
}

// Adds the gradient_terms to `slope` and `offset`.
template <class Compute>
__global__ void __launch_bounds__(threads)
    finish_sums_kernel(int64_t parts, int64_t channels, const Sums* partials, double values,
                       double eps, const Compute* var, const Compute* scale, Compute* slope,
                       Compute* offset, Compute* dweight, Compute* dbias) {
  merge_partials(parts, channels, partials, [&](int64_t c, const Sums& sum) {
    const double invstd = inverse_std(var[c], eps);
    if (dweight) dweight[c] = static_cast<Compute>(sum.second * invstd);
    if (dbias) dbias[c] = static_cast<Compute>(sum.first);
    if (!slope) return;
    const GradientTerms terms = gradient_terms(scale[c], invstd, sum.first, sum.second, values);
    slope[c] += static_cast<Compute>(terms.slope);
    offset[c] += static_cast<Compute>(terms.offset);
  });
}

constexpr int64_t bytes_of_table(int64_t channels) { return 5 * channels * sizeof(double); }

}  // namespace

int64_t workspace_bytes(const Block& block) {
  int64_t parts = 1;
  for (const int width : {1, 2, 4, 8}) {
    parts = larger(parts, plan_to_reduce(block, width).parts);
  }
  return bytes_of_table(block.channels) +
         parts * block.channels * static_cast<int64_t>(sizeof(Sums));
}

void* partials_of(const BatchNormAct& call) {
  return static_cast<char*>(call.workspace) + bytes_of_table(call.block.channels);
}

void make_table(const BatchNormAct& call) {
  const dim3 grid(static_cast<unsigned>(ceil_div(call.block.channels, threads)));
  with_element(call.data_type, [&](auto element) {
    using Compute = ComputeOf<decltype(element)>;
    coefficients_kernel<Compute><<<grid, dim3(threads), 0, call.stream>>>(
        call.block.channels, call.eps, static_cast<const Compute*>(call.mean),
        static_cast<const Compute*>(call.var), static_cast<const Compute*>(call.weight),
        static_cast<const Compute*>(call.bias), static_cast<Compute*>(call.workspace));
  });
}

void finish_sums(const BatchNormAct& call, int64_t parts, void* slope, void* offset, void* dweight,
                 void* dbias) {
  with_element(call.data_type, [&](auto element) {
    using Compute = ComputeOf<decltype(element)>;
    const int64_t channels = call.block.channels;
    finish_sums_kernel<Compute><<<grid_to_merge(channels), block_to_merge, 0, call.stream>>>(
        parts, channels, static_cast<const Sums*>(partials_of(call)),
        values_per_channel(call.block), call.eps, static_cast<const Compute*>(call.var),
        static_cast<const Compute*>(call.workspace) + channels, static_cast<Compute*>(slope),
        static_cast<Compute*>(offset), static_cast<Compute*>(dweight),
        static_cast<Compute*>(dbias));
  });
}

}  // namespace cuda
}  // namespace cnngraph
