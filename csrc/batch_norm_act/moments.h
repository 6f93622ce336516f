// The shift k of running sums: x - k is summed, with k near the mean, so that a mean far from zero
// costs no digits. See the top of batch_norm_act_loops.h.
#pragma once

#include "batch_norm_act_kernels.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {

template <class Scalar>
CNNGRAPH_ELEMENTWISE Scalar finite_or_zero(Scalar value) {
  return value - value == 0 ? value : 0;  // else an infinity would make the mean NaN
}

// Shifts the sums of x - k and (x - k)^2 over `count` values to those about their mean.
template <class Scalar>
CNNGRAPH_ELEMENTWISE void move_shift(double count, double inverse_count, Scalar& k, double& sum,
                                     double& square) {
  const Scalar mean = static_cast<Scalar>(k + sum * inverse_count);
  const double step = mean - mean == 0 ? static_cast<double>(mean) - k : 0;
  square += step * (step * count - 2 * sum);
  sum -= step * count;
  k = mean - mean == 0 ? mean : k;
}

}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
