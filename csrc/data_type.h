// What kernels and their callers agree on, with torch and without: the types of elements.
#pragma once

#if defined(__CUDACC__)
#define CNNGRAPH_ELEMENTWISE __host__ __device__ __forceinline__
#else
#define CNNGRAPH_ELEMENTWISE inline __attribute__((always_inline))
#endif

namespace cnngraph {

enum class DataType { float32, float64, bfloat16, float16 };

}  // namespace cnngraph
