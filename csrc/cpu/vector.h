// Vectors of one register, as compiler vector types: the same source serves every instruction set
// and arm64. Include a target_*.h first: everything here is in the namespace of its capability, so
// that no function compiled for one processor is linked into another's.
//
// Elementary functions are accurate to about 2 units in the last place in float; in double they are
// the C library's, lane by lane.
#pragma once

#include <math.h>
#include <stdint.h>

#include "../data_type.h"

#define CNNGRAPH_INLINE inline __attribute__((always_inline))
#define CNNGRAPH_LAMBDA_INLINE __attribute__((always_inline))

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {

typedef float Floats __attribute__((vector_size(CNNGRAPH_VECTOR_BYTES)));
typedef double Doubles __attribute__((vector_size(CNNGRAPH_VECTOR_BYTES)));
typedef int32_t Ints __attribute__((vector_size(CNNGRAPH_VECTOR_BYTES)));
typedef uint32_t UnsignedInts __attribute__((vector_size(CNNGRAPH_VECTOR_BYTES)));
typedef uint16_t HalfWords __attribute__((vector_size(CNNGRAPH_VECTOR_BYTES / 2)));

struct BFloat16 {
  uint16_t bits;
};

template <class To, class From>
CNNGRAPH_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

// Between 16 and 32 bits, for numbers that fit. gcc compiles __builtin_convertvector to several
// shuffles.
#if defined(__x86_64__) && CNNGRAPH_VECTOR_BYTES == 64
CNNGRAPH_INLINE UnsignedInts zero_extend(HalfWords words) {
  return bit_cast<UnsignedInts>(_mm512_maskz_cvtepu16_epi32(0xffff, bit_cast<__m256i>(words)));
}
CNNGRAPH_INLINE HalfWords low_halves(UnsignedInts words) {
  return bit_cast<HalfWords>(_mm512_maskz_cvtepi32_epi16(0xffff, bit_cast<__m512i>(words)));
}
#elif defined(__x86_64__) && CNNGRAPH_VECTOR_BYTES == 32
CNNGRAPH_INLINE UnsignedInts zero_extend(HalfWords words) {
  return bit_cast<UnsignedInts>(_mm256_cvtepu16_epi32(bit_cast<__m128i>(words)));
}
CNNGRAPH_INLINE HalfWords low_halves(UnsignedInts words) {
  const __m256i both = bit_cast<__m256i>(words);
  return bit_cast<HalfWords>(
      _mm_packus_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)));
}
#else
CNNGRAPH_INLINE UnsignedInts zero_extend(HalfWords words) {
  return __builtin_convertvector(words, UnsignedInts);
}
CNNGRAPH_INLINE HalfWords low_halves(UnsignedInts words) {
  return __builtin_convertvector(words, HalfWords);
}
#endif

// Stores past the caches, which neither reads the line first nor evicts others: for tensors too
// large to stay cached. `to` is aligned to the vector's size. Call after_streams() before another
// thread reads. A plain store unless `can_stream`.
#if defined(__x86_64__) && CNNGRAPH_VECTOR_BYTES >= 32
constexpr bool can_stream = true;

template <class Vector>
CNNGRAPH_INLINE void stream(void* to, Vector vector) {
  static_assert(sizeof(Vector) == 16 || sizeof(Vector) == 32 || CNNGRAPH_VECTOR_BYTES == 64);
  if constexpr (sizeof(Vector) == 16) {
    _mm_stream_si128(static_cast<__m128i*>(to), bit_cast<__m128i>(vector));
  } else if constexpr (sizeof(Vector) == 32) {
    _mm256_stream_si256(static_cast<__m256i*>(to), bit_cast<__m256i>(vector));
  } else {
#if CNNGRAPH_VECTOR_BYTES == 64
    _mm512_stream_si512(static_cast<__m512i*>(to), bit_cast<__m512i>(vector));
#endif
  }
}

CNNGRAPH_INLINE void after_streams() { _mm_sfence(); }
#else
constexpr bool can_stream = false;

template <class Vector>
CNNGRAPH_INLINE void stream(void* to, Vector vector) {
  __builtin_memcpy(to, &vector, sizeof(vector));
}

CNNGRAPH_INLINE void after_streams() {}
#endif

// Converts between a tensor's elements and a vector to compute with. The partial forms touch only
// `count` elements; the other lanes are `fill`.
template <class Element, class VectorType, class ScalarType>
struct PlainMemory {
  using Vector = VectorType;
  using Scalar = ScalarType;
  static constexpr int lanes = sizeof(Vector) / sizeof(Scalar);

  static CNNGRAPH_INLINE Vector load(const Element* from) {
    Vector vector;
    __builtin_memcpy(&vector, from, sizeof(vector));
    return vector;
  }
  static CNNGRAPH_INLINE void store(Element* to, Vector vector) {
    __builtin_memcpy(to, &vector, sizeof(vector));
  }
  static CNNGRAPH_INLINE void stream(Element* to, Vector vector) {
    CNNGRAPH_CAPABILITY::stream(to, vector);
  }
  static CNNGRAPH_INLINE Vector load(const Element* from, int64_t count, Scalar fill) {
    Vector vector = Vector{} + fill;
    __builtin_memcpy(&vector, from, count * sizeof(Element));
    return vector;
  }
  static CNNGRAPH_INLINE void store(Element* to, Vector vector, int64_t count) {
    __builtin_memcpy(to, &vector, count * sizeof(Element));
  }
};

template <class Element>
struct Memory;

template <>
struct Memory<float> : PlainMemory<float, Floats, float> {};

template <>
struct Memory<double> : PlainMemory<double, Doubles, double> {};

template <>
struct Memory<BFloat16> {
  using Vector = Floats;
  using Scalar = float;
  static constexpr int lanes = sizeof(Vector) / sizeof(Scalar);

  static CNNGRAPH_INLINE Vector widen(HalfWords words) {
    return bit_cast<Floats>(zero_extend(words) << 16);
  }
  // Rounds to nearest, ties to even; every NaN becomes the one that PyTorch writes.
  static CNNGRAPH_INLINE HalfWords narrow(Floats vector) {
    const UnsignedInts bits = bit_cast<UnsignedInts>(vector);
    const UnsignedInts rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const UnsignedInts nan = UnsignedInts{} + 0x7fc0u;
    return low_halves(vector == vector ? rounded : nan);
  }
  static CNNGRAPH_INLINE Vector load(const BFloat16* from) {
    HalfWords words;
    __builtin_memcpy(&words, from, sizeof(words));
    return widen(words);
  }
  static CNNGRAPH_INLINE void store(BFloat16* to, Vector vector) {
    const HalfWords words = narrow(vector);
    __builtin_memcpy(to, &words, sizeof(words));
  }
  static CNNGRAPH_INLINE void stream(BFloat16* to, Vector vector) {
    CNNGRAPH_CAPABILITY::stream(to, narrow(vector));
  }
  static CNNGRAPH_INLINE Vector load(const BFloat16* from, int64_t count, Scalar fill) {
    Vector vector = Vector{} + fill;
    for (int64_t lane = 0; lane < count; ++lane) {
      vector[lane] = bit_cast<float>(uint32_t{from[lane].bits} << 16);
    }
    return vector;
  }
  static CNNGRAPH_INLINE void store(BFloat16* to, Vector vector, int64_t count) {
    const HalfWords words = narrow(vector);
    __builtin_memcpy(to, &words, count * sizeof(BFloat16));
  }
};

// Calls `body` with a value of the element type.
template <class Body>
inline void with_element(DataType data_type, Body body) {
  switch (data_type) {
    case DataType::float32:
      return body(float{});
    case DataType::float64:
      return body(double{});
    case DataType::bfloat16:
      return body(BFloat16{});
    case DataType::float16:
      return;  // rejected by data_type_of
  }
}

// The same for float32 and bfloat16 only.
template <class Body>
inline void with_float_or_bfloat16(DataType data_type, Body body) {
  if (data_type == DataType::bfloat16) return body(BFloat16{});
  body(float{});
}

// How many lanes of a vector are in memory: all (the usual case), or the first `count`.
template <class Element>
struct Whole {
  using M = Memory<Element>;
  using Vector = typename M::Vector;
  static constexpr int64_t count = M::lanes;
  CNNGRAPH_INLINE Vector load(const Element* from) const { return M::load(from); }
  CNNGRAPH_INLINE void store(Element* to, Vector vector) const { M::store(to, vector); }
  CNNGRAPH_INLINE void stream(Element* to, Vector vector) const { M::stream(to, vector); }
};

template <class Element>
struct Part {
  using M = Memory<Element>;
  using Vector = typename M::Vector;
  int64_t count;
  CNNGRAPH_INLINE Vector load(const Element* from) const { return M::load(from, count, 0); }
  CNNGRAPH_INLINE void store(Element* to, Vector vector) const { M::store(to, vector, count); }
  CNNGRAPH_INLINE void stream(Element* to, Vector vector) const { store(to, vector); }
};

// NaN stays.
CNNGRAPH_INLINE Floats clamp(Floats value, float low, float high) {
  value = value < low ? Floats{} + low : value;
  return value > high ? Floats{} + high : value;
}

// Calls body(extent, channel) over vectors that cover the channels.
template <class Element, class Body>
CNNGRAPH_INLINE void for_each_vector_of_channels(int64_t channels, Body body) {
  constexpr int64_t lanes = Memory<Element>::lanes;
  int64_t channel = 0;
  for (; channel + lanes <= channels; channel += lanes) body(Whole<Element>{}, channel);
  if (channel < channels) body(Part<Element>{channels - channel}, channel);
}

// Adds as a tree, so that rounding errors do not grow with the number of lanes.
template <class Vector>
CNNGRAPH_INLINE double sum_of_lanes(Vector vector) {
  using Scalar = decltype(vector[0] + vector[0]);
  constexpr int lanes = sizeof(Vector) / sizeof(Scalar);
  Scalar values[lanes];
  __builtin_memcpy(values, &vector, sizeof(vector));
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) values[lane] += values[lane + half];
  }
  return values[0];
}

template <class T>
struct Math;

template <>
struct Math<Floats> {
  using Scalar = float;

  static CNNGRAPH_INLINE Floats set(double value) { return Floats{} + static_cast<float>(value); }

  // e^x = 2^n (1 + expm1(r)), |r| <= ln(2) / 2; the clamp lets NaN through and still overflows.
  static CNNGRAPH_INLINE void reduce(Floats x, Floats& expm1_r, Ints& n) {
    x = x < -104.0f ? set(-104.0) : x;
    x = x > 89.0f ? set(89.0) : x;
    const Floats round_to_integer = set(12582912.0);  // 1.5 * 2^23
    const Floats shifted = x * 1.44269504f + round_to_integer;
    n = bit_cast<Ints>(shifted) - bit_cast<Ints>(round_to_integer);
    const Floats whole = shifted - round_to_integer;
    const Floats r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Floats p = set(0.00139505218);
    p = p * r + 0.00836890843f;
    p = p * r + 0.041666206f;
    p = p * r + 0.166665182f;
    p = p * r + 0.5f;
    expm1_r = p * (r * r) + r;
  }
  static CNNGRAPH_INLINE Floats power_of_two(Ints n) { return bit_cast<Floats>((n + 127) << 23); }

  static CNNGRAPH_INLINE Floats exp(Floats x) {
    Floats expm1_r;
    Ints n;
    reduce(x, expm1_r, n);
    const Ints half = n >> 1;  // 2^n may overflow where the product does not
    return (expm1_r + 1.0f) * power_of_two(half) * power_of_two(n - half);
  }
  // Only for x <= 0, as ELU needs it.
  static CNNGRAPH_INLINE Floats expm1(Floats x) {
    Floats expm1_r;
    Ints n;
    reduce(x < -40.0f ? set(-40.0) : x, expm1_r, n);
    const Floats scale = power_of_two(n);
    return expm1_r * scale + (scale - 1.0f);
  }
  static CNNGRAPH_INLINE Floats tanh(Floats x) {
    const Floats magnitude = x < 0.0f ? -x : x;
    const Floats s = x * x;
    Floats p = set(-0.00571703631);
    p = p * s + 0.0206505787f;
    p = p * s - 0.0537434965f;
    p = p * s + 0.133314908f;
    p = p * s - 0.333332837f;
    const Floats small = x + x * (s * p);
    const Floats large = 1.0f - 2.0f / (exp(magnitude + magnitude) + 1.0f);
    return magnitude < 0.625f ? small : (x < 0.0f ? -large : large);
  }
  static CNNGRAPH_INLINE Floats erf(Floats x) {
    Floats magnitude = x < 0.0f ? -x : x;
    const Floats s = x * x;
    Floats p = set(-0.000566015311);
    p = p * s + 0.00492478907f;
    p = p * s - 0.0267177075f;
    p = p * s + 0.112804115f;
    p = p * s - 0.376123548f;
    p = p * s + 0.128379121f;
    const Floats small = x + x * p;
    const Floats t = magnitude > 4.0f ? set(4.0) : magnitude;
    Floats q = set(0.0001855749);  // log(1 - erf(t)) on [1, 4]
    q = q * t - 0.00293961586f;
    q = q * t + 0.0218053516f;
    q = q * t - 0.103037439f;
    q = q * t - 0.638225615f;
    q = q * t - 1.12704003f;
    q = q * t - 0.000353708921f;
    const Floats large = 1.0f - exp(q);
    return magnitude < 1.0f ? small : (x < 0.0f ? -large : large);
  }
};

template <>
struct Math<Doubles> {
  using Scalar = double;

  template <class Function>
  static CNNGRAPH_INLINE Doubles each(Doubles x, Function function) {
    for (unsigned lane = 0; lane < sizeof(x) / sizeof(double); ++lane) x[lane] = function(x[lane]);
    return x;
  }
  static CNNGRAPH_INLINE Doubles set(double value) { return Doubles{} + value; }
  static Doubles exp(Doubles x) {
    return each(x, [](double value) { return ::exp(value); });
  }
  static Doubles expm1(Doubles x) {
    return each(x, [](double value) { return ::expm1(value); });
  }
  static Doubles tanh(Doubles x) {
    return each(x, [](double value) { return ::tanh(value); });
  }
  static Doubles erf(Doubles x) {
    return each(x, [](double value) { return ::erf(value); });
  }
};

}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
