// The coefficients of one channel of a batch norm, for the CPU and for CUDA: see Coefficients.
#pragma once

#include <math.h>

#include "batch_norm_act_kernels.h"

namespace cnngraph {

CNNGRAPH_ELEMENTWISE double inverse_std(double var, double eps) { return 1.0 / sqrt(var + eps); }

// A null `weight` is ones, a null `bias` zeros.
template <class Scalar>
CNNGRAPH_ELEMENTWISE Scalar scale_of(const Scalar* weight, int64_t channel, double invstd) {
  return static_cast<Scalar>(weight ? weight[channel] * invstd : invstd);
}
template <class Scalar>
CNNGRAPH_ELEMENTWISE Scalar shift_of(const Scalar* bias, int64_t channel) {
  return bias ? bias[channel] : Scalar(0);
}

struct GradientTerms {
  double slope, offset;
};

// With batch statistics, dx = scale * dz + (x - mean) * slope + offset
//   = scale * (dz - mean(dz) - (x - mean) * invstd^2 * mean(dz * (x - mean))).
CNNGRAPH_ELEMENTWISE GradientTerms gradient_terms(double scale, double invstd, double sum_dz,
                                                  double sum_dz_x, double count) {
  return {-scale * invstd * invstd * (sum_dz_x / count), -scale * (sum_dz / count)};
}

}  // namespace cnngraph
