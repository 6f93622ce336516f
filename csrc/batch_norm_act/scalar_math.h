// The activations over single numbers, for CUDA kernels and plain C++; include this instead of
// activations.h.
#pragma once

#include <math.h>

#define CNNGRAPH_CAPABILITY scalar
#include "activations.h"
#include "moments.h"

namespace cnngraph {
namespace scalar {

template <>
struct Math<float> {
  static CNNGRAPH_ELEMENTWISE float set(double value) { return static_cast<float>(value); }
  static CNNGRAPH_ELEMENTWISE float exp(float x) { return ::expf(x); }
  static CNNGRAPH_ELEMENTWISE float expm1(float x) { return ::expm1f(x); }
  static CNNGRAPH_ELEMENTWISE float tanh(float x) { return ::tanhf(x); }
  static CNNGRAPH_ELEMENTWISE float erf(float x) { return ::erff(x); }
};

template <>
struct Math<double> {
  static CNNGRAPH_ELEMENTWISE double set(double value) { return value; }
  static CNNGRAPH_ELEMENTWISE double exp(double x) { return ::exp(x); }
  static CNNGRAPH_ELEMENTWISE double expm1(double x) { return ::expm1(x); }
  static CNNGRAPH_ELEMENTWISE double tanh(double x) { return ::tanh(x); }
  static CNNGRAPH_ELEMENTWISE double erf(double x) { return ::erf(x); }
};

}  // namespace scalar
}  // namespace cnngraph
