// Compiles the rest of the file for AVX-512 (F, BW, DQ, VL), by a pragma: see target_avx2.h.
#pragma once

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#define CNNGRAPH_CAPABILITY avx512
#define CNNGRAPH_VECTOR_BYTES 64

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#endif
