// The elements of tensors in CUDA kernels: single ones, converted to float or double to compute
// with, and vectors of 16 bytes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../data_type.h"

namespace cnngraph {
namespace cuda {
namespace {

template <class Element>
struct Type {
  using Compute = float;
};
template <>
struct Type<double> {
  using Compute = double;
};
template <class Element>
using ComputeOf = typename Type<Element>::Compute;

template <class Element>
constexpr int lanes_of = 16 / sizeof(Element);

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void narrow(float x, float& to) { to = x; }
__device__ __forceinline__ void narrow(double x, double& to) { to = x; }
__device__ __forceinline__ void narrow(float x, __half& to) { to = __float2half_rn(x); }
__device__ __forceinline__ void narrow(float x, __nv_bfloat16& to) { to = __float2bfloat16_rn(x); }

template <class Element>
struct alignas(16) Vector {
  Element lane[lanes_of<Element>];
};

// Lanes past `width` are zero.
template <class Element>
__device__ __forceinline__ Vector<Element> load(const Element* from, int width) {
  if (width > 1) return *reinterpret_cast<const Vector<Element>*>(from);
  Vector<Element> vector = {};
  vector.lane[0] = *from;
  return vector;
}

template <class Element>
__device__ __forceinline__ void store(Element* to, const Vector<Element>& vector, int width) {
  if (width > 1) {
    *reinterpret_cast<Vector<Element>*>(to) = vector;
  } else {
    *to = vector.lane[0];
  }
}

template <class Body>
void with_element(DataType data_type, Body body) {
  switch (data_type) {
    case DataType::float32:
      return body(float{});
    case DataType::float64:
      return body(double{});
    case DataType::bfloat16:
      return body(__nv_bfloat16{});
    case DataType::float16:
      return body(__half{});
  }
}

}  // namespace
}  // namespace cuda
}  // namespace cnngraph
