// The CPU loops of dense_block, compiled once per capability: batch_norm_act's backward over
// tensors of different strides, which adds to the gradient from later layers.
#pragma once

#include "../batch_norm_act/activations.h"
#include "../batch_norm_act/vectors_of_channels.h"
#include "dense_block_kernels.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {
namespace {

constexpr int64_t vectors_in_tile = 256;

template <class Element>
struct From {
  const Element* data;
  int64_t stride;
  explicit From(Strided from) : data(static_cast<const Element*>(from.data)), stride(from.stride) {}
  CNNGRAPH_INLINE const Element* at(int64_t outer, int64_t element) const {
    return data + outer * stride + element;
  }
};

template <class Element>
struct To {
  Element* data;
  int64_t stride;
  explicit To(MutableStrided to) : data(static_cast<Element*>(to.data)), stride(to.stride) {}
  CNNGRAPH_INLINE Element* at(int64_t outer, int64_t element) const {
    return data + outer * stride + element;
  }
};

// Calls body(extent, element) over vectors that cover elements [begin, end) of a plane once.
template <class Element, class Body>
CNNGRAPH_INLINE void for_each_vector_of_plane(int64_t begin, int64_t end, Body body) {
  constexpr int64_t lanes = Memory<Element>::lanes;
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) body(Whole<Element>{}, i);
  if (i < end) body(Part<Element>{end - i}, i);
}

// Calls body(coefficients, extent, outer, element) for every vector of a block.
template <class Element, class Body>
CNNGRAPH_INLINE void for_each_vector(Coefficients coefficients, Block block, Body body) {
  for (int64_t outer = 0; outer < block.outer; ++outer) {
    if (block.inner == 1) {
      for_each_vector_of_channels<Element>(block.channels, [&](auto extent, int64_t channel) {
        body(coefficients_of_channels<Element, true>(coefficients, channel, extent), extent, outer,
             channel);
      });
      continue;
    }
    for (int64_t channel = 0; channel < block.channels; ++channel) {
      const auto c = coefficients_of_channel<Element, true>(coefficients, channel);
      for_each_vector_of_plane<Element>(0, block.inner, [&](auto extent, int64_t i) {
        body(c, extent, outer, channel * block.inner + i);
      });
    }
  }
}

template <class Element>
void finish(From<Element> x, From<Element> partial, Coefficients coefficients, To<Element> dx,
            Block block) {  // scale and shift are not used
  for_each_vector<Element>(
      coefficients, block,
      [&](const auto& c, auto extent, int64_t outer, int64_t element) CNNGRAPH_LAMBDA_INLINE {
        const auto centred = extent.load(x.at(outer, element)) - c.mean;
        const auto sum = extent.load(partial.at(outer, element));
        extent.store(dx.at(outer, element), sum + (centred * c.slope + c.offset));
      });
}

// `vector` with zeros in the lanes past the extent.
template <class Extent, class Vector>
CNNGRAPH_INLINE Vector only_lanes_of(Extent extent, Vector vector) {
  constexpr int64_t lanes = sizeof(Vector) / sizeof(vector[0]);
  for (int64_t lane = extent.count; lane < lanes; ++lane) vector[lane] = 0;
  return vector;
}

// One vector of the backward: adds to the gradient, and returns dz and x - mean.
template <class Element, class Act>
struct Gradient {
  using Vector = typename Memory<Element>::Vector;
  Act act;
  From<Element> x, dy, addend;
  To<Element> sum;

  template <class Channels, class Extent>
  CNNGRAPH_INLINE Vector add(const Channels& c, Extent extent, int64_t outer, int64_t element,
                             Vector& centred) const {
    centred = extent.load(x.at(outer, element)) - c.mean;
    const Vector dz = act.backward(c.normalise(centred), extent.load(dy.at(outer, element)));
    extent.store(sum.at(outer, element), extent.load(addend.at(outer, element)) + dz * c.scale);
    return dz;
  }
};

template <class Element, class Gradient>
void backward_rows(Gradient gradient, Coefficients coefficients, Block block, double* sum_dz,
                   double* sum_dz_x, double* scratch) {
  using Vector = typename Memory<Element>::Vector;
  using Scalar = typename Memory<Element>::Scalar;
  const SumsOfRows<Scalar> totals(block.channels, sum_dz, sum_dz_x,
                                  reinterpret_cast<Scalar*>(scratch));
  sum_rows<1>(block.outer, totals, [&](auto, int64_t row) {
    for_each_vector_of_channels<Element>(block.channels, [&](auto extent, int64_t channel) {
      const auto c = coefficients_of_channels<Element, false>(coefficients, channel, extent);
      Vector centred;
      const Vector dz = gradient.add(c, extent, row, channel, centred);
      totals.add(extent, channel, dz, dz * centred);
    });
  });
}

template <class Element, class Gradient>
void backward_planes(Gradient gradient, Coefficients coefficients, Block block, double* sum_dz,
                     double* sum_dz_x) {
  using Vector = typename Memory<Element>::Vector;
  constexpr int64_t tile = vectors_in_tile * Memory<Element>::lanes;
  for (int64_t channel = 0; channel < block.channels; ++channel) {
    const auto c = coefficients_of_channel<Element, false>(coefficients, channel);
    sum_dz[channel] = sum_dz_x[channel] = 0;
    for (int64_t sample = 0; sample < block.outer; ++sample) {
      for (int64_t begin = 0; begin < block.inner; begin += tile) {
        const int64_t end = smaller(begin + tile, block.inner);
        Vector sum = {}, product = {};
        for_each_vector_of_plane<Element>(begin, end, [&](auto extent, int64_t i) {
          Vector centred;
          const Vector dz = gradient.add(c, extent, sample, channel * block.inner + i, centred);
          sum += only_lanes_of(extent, dz);
          product += only_lanes_of(extent, dz * centred);
        });
        sum_dz[channel] += sum_of_lanes(sum);
        sum_dz_x[channel] += sum_of_lanes(product);
      }
    }
  }
}

}  // namespace

extern const DenseBlockKernels dense_block = {
    /*backward=*/
    [](DataType data_type, Activation activation, ActivationArguments arguments, Strided x,
       Strided dy, Strided addend, Coefficients coefficients, MutableStrided sum, Block block,
       double* sum_dz, double* sum_dz_x, double* scratch) {
      with_element(data_type, [&](auto element) {
        using Element = decltype(element);
        with_activation(activation, arguments, [&](auto act) {
          const Gradient<Element, decltype(act)> gradient{act, From<Element>(x), From<Element>(dy),
                                                          From<Element>(addend), To<Element>(sum)};
          if (block.inner == 1) {
            backward_rows<Element>(gradient, coefficients, block, sum_dz, sum_dz_x, scratch);
          } else {
            backward_planes<Element>(gradient, coefficients, block, sum_dz, sum_dz_x);
          }
        });
      });
    },
    /*finish=*/
    [](DataType data_type, Strided x, Strided partial, const void* mean, const void* slope,
       const void* offset, MutableStrided dx, Block block) {
      const Coefficients coefficients{mean, /*scale=*/mean, /*shift=*/mean, slope, offset};
      with_element(data_type, [&](auto element) {
        using Element = decltype(element);
        finish(From<Element>(x), From<Element>(partial), coefficients, To<Element>(dx), block);
      });
    },
};

}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
