// Compiles the rest of the file for AVX2 with FMA. By a pragma, not a compiler flag, so that any
// build tool can compile it. System headers come first: an inline function of theirs compiled here
// could be the copy that the linker keeps for processors without AVX2.
#pragma once

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#define CNNGRAPH_CAPABILITY avx2
#define CNNGRAPH_VECTOR_BYTES 32

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
