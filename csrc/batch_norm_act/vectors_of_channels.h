// Shared by the loops over batch norms: sums over rows, and coefficients of channels. Compiled once
// per capability, like the loops.
#pragma once

#include "../cpu/vector.h"
#include "batch_norm_act_kernels.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {
namespace {

constexpr int64_t rows_summed_in_float = 64;

// Loads the lanes of an extent from a row of per-channel numbers in the type of computation.
template <class Scalar, class Extent>
CNNGRAPH_INLINE typename Memory<Scalar>::Vector load_channels(const Scalar* from, Extent extent) {
  using M = Memory<Scalar>;
  return extent.count == M::lanes ? M::load(from) : M::load(from, extent.count, 0);
}

template <class Scalar, class Extent, class Vector>
CNNGRAPH_INLINE void add_channels(Scalar* to, Extent extent, Vector vector) {
  using M = Memory<Scalar>;
  if (extent.count == M::lanes) {
    M::store(to, M::load(to) + vector);
  } else {
    M::store(to, M::load(to, extent.count, 0) + vector, extent.count);
  }
}

// An extent that prefetches memory ahead of its loads and stores: the hardware prefetcher fetches
// too little of one stream and loses track of interleaved ones.
template <class Extent>
struct Ahead : Extent {
  template <class Element>
  CNNGRAPH_INLINE auto load(const Element* from) const {
    __builtin_prefetch(after(from));
    return Extent::load(from);
  }
  template <class Element, class Vector>
  CNNGRAPH_INLINE void store(Element* to, Vector vector) const {
    __builtin_prefetch(after(to), /*to write=*/1);
    Extent::store(to, vector);
  }

 private:
  // An integer: the address may be past the end of the tensor, where a pointer must not be.
  static CNNGRAPH_INLINE const void* after(const void* here) {
    constexpr uintptr_t bytes = 1024;
    return reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(here) + bytes);
  }
};

template <class Extent>
CNNGRAPH_INLINE Ahead<Extent> ahead(Extent extent) {
  return {extent};
}

// Stores a result, past the caches if `streams`.
template <class Extent, class Element, class Vector>
CNNGRAPH_INLINE void store(Extent extent, Element* to, Vector vector, bool streams) {
  if (can_stream && streams) {
    extent.stream(to, vector);
  } else {
    extent.store(to, vector);
  }
}

template <int64_t rows_count>
struct Rows {
  static constexpr int64_t count = rows_count;

  // The extent to load one of the rows with.
  template <class Extent>
  static CNNGRAPH_INLINE auto one_of(Extent extent) {
    if constexpr (count > 1) {
      return ahead(extent);
    } else {
      return extent;
    }
  }
};

// Calls body(rows, row) with a compile-time number of rows: one unless `grouped`.
template <int64_t together, class Body>
CNNGRAPH_INLINE void for_each_group_of_rows(int64_t begin, int64_t end, Body body,
                                            bool grouped = true) {
  int64_t row = begin;
  if (grouped) {
    for (; row + together <= end; row += together) body(Rows<together>{}, row);
  }
  for (; row < end; ++row) body(Rows<1>{}, row);
}

// Two running sums per channel: over some rows in the type of computation, then in double.
template <class Scalar>
class SumsOfRows {
 public:
  // `scratch` has two numbers per channel. Everything is inlined: an object whose address escapes
  // would be reloaded after every store.
  CNNGRAPH_INLINE SumsOfRows(int64_t channels, double* first, double* second, Scalar* scratch)
      : channels_(channels), first_(first), second_(second), scratch_(scratch) {
    for (int64_t c = 0; c < channels; ++c) first[c] = second[c] = 0;
    for (int64_t c = 0; c < 2 * channels; ++c) scratch[c] = 0;
  }
  template <class Extent, class Vector>
  CNNGRAPH_INLINE void add(Extent extent, int64_t channel, Vector first, Vector second) const {
    add_channels(scratch_ + channel, extent, first);
    add_channels(scratch_ + channels_ + channel, extent, second);
  }
  CNNGRAPH_INLINE void flush() const {
    for (int64_t c = 0; c < channels_; ++c) {
      first_[c] += scratch_[c];
      second_[c] += scratch_[channels_ + c];
      scratch_[c] = scratch_[channels_ + c] = 0;
    }
  }

 private:
  int64_t channels_;
  double *first_, *second_;
  Scalar* scratch_;
};

// Calls body(rows, row) over all rows, and flushes the sums to double regularly.
template <int64_t together, class Scalar, class Body>
CNNGRAPH_INLINE void sum_rows(int64_t rows, const SumsOfRows<Scalar>& sums, Body body,
                              bool grouped = true) {
  for (int64_t begin = 0; begin < rows; begin += rows_summed_in_float) {
    const int64_t end = smaller(begin + rows_summed_in_float, rows);
    for_each_group_of_rows<together>(begin, end, body, grouped);
    sums.flush();
  }
}

template <class Element, bool with_gradient>
struct ChannelCoefficients {
  using Vector = typename Memory<Element>::Vector;
  using Scalar = typename Memory<Element>::Scalar;
  Vector mean, scale, shift, slope, offset;

  template <class Load>
  CNNGRAPH_INLINE ChannelCoefficients(const Coefficients& from, Load load) {
    mean = load(static_cast<const Scalar*>(from.mean));
    scale = load(static_cast<const Scalar*>(from.scale));
    shift = load(static_cast<const Scalar*>(from.shift));
    if constexpr (with_gradient) {
      slope = load(static_cast<const Scalar*>(from.slope));
      offset = load(static_cast<const Scalar*>(from.offset));
    }
  }
  CNNGRAPH_INLINE Vector normalise(Vector centred) const { return centred * scale + shift; }
};

template <class Element, bool with_gradient, class Extent>
CNNGRAPH_INLINE ChannelCoefficients<Element, with_gradient> coefficients_of_channels(
    const Coefficients& from, int64_t channel, Extent extent) {
  using Scalar = typename Memory<Element>::Scalar;
  return {from, [&](const Scalar* values) { return load_channels(values + channel, extent); }};
}

template <class Element, bool with_gradient>
CNNGRAPH_INLINE ChannelCoefficients<Element, with_gradient> coefficients_of_channel(
    const Coefficients& from, int64_t channel) {
  using Vector = typename Memory<Element>::Vector;
  using Scalar = typename Memory<Element>::Scalar;
  return {from, [&](const Scalar* values) { return Vector{} + values[channel]; }};
}

}  // namespace
}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
