// The CPU loops of batch_norm_act, compiled once per capability. Outside the cache they are bound
// by memory, so they walk it in order, row after row: several wide rows at a time were up to twice
// as slow, as the hardware prefetcher loses track of them. Short rows are processed several at a
// time, so that coefficients are loaded once for all of them, and so are the rows of the
// statistics, which read only one tensor.
//
// Accuracy: float sums run over few values and are then added in double. Statistics are of x - k,
// where k is the mean of the preceding values, so a mean far from zero costs no digits. The first
// tile uses its own mean, and no tile is larger than all tiles before it: values far from k then
// add at least half their square to the variance, whatever the first values were.
#pragma once

#include "activations.h"
#include "moments.h"
#include "vectors_of_channels.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {
namespace {

constexpr int64_t rows_together = 8;  // of the statistics
constexpr int64_t short_rows_together = 4;
constexpr int64_t bytes_of_short_row = 256;
constexpr int64_t rows_for_shift = 16;
constexpr int vectors_in_plane_tile = 256;
constexpr int vectors_for_shift = 16;

// ---- statistics

template <class Scalar>
inline void finish_statistics(int64_t channels, double count, const Scalar* k, const double* sums,
                              double* mean, double* m2) {
  for (int64_t c = 0; c < channels; ++c) {
    const double deviation = m2[c] - sums[c] * (sums[c] / count);
    m2[c] = deviation < 0 ? 0 : deviation;
    mean[c] = k[c] + sums[c] / count;
  }
}

template <class Element>
void statistics_rows(const Element* x, Block block, double* mean, double* m2, double* scratch) {
  using Vector = typename Memory<Element>::Vector;
  using Scalar = typename Memory<Element>::Scalar;
  double* sums = scratch;
  Scalar* k = reinterpret_cast<Scalar*>(scratch + block.channels);
  Scalar* sums_scratch = k + block.channels;
  const int64_t first_rows = smaller(rows_for_shift, block.outer);
  for (int64_t c = 0; c < block.channels; ++c) k[c] = 0;
  for_each_group_of_rows<rows_together>(0, first_rows, [&](auto rows, int64_t row) {
    for_each_vector_of_channels<Element>(block.channels, [&](auto extent, int64_t channel) {
      Vector sum = {};
      for (int64_t r = 0; r < rows.count; ++r) {
        sum += extent.load(x + (row + r) * block.x_stride + channel);
      }
      add_channels(k + channel, extent, sum);
    });
  });
  for (int64_t c = 0; c < block.channels; ++c) {
    k[c] = finite_or_zero(k[c] / static_cast<Scalar>(first_rows));
  }
  const SumsOfRows<Scalar> totals(block.channels, sums, m2, sums_scratch);
  for (int64_t begin = 0, end = first_rows; begin < block.outer;) {
    for_each_group_of_rows<rows_together>(begin, end, [&](auto rows, int64_t row) {
      for_each_vector_of_channels<Element>(block.channels, [&](auto extent, int64_t channel) {
        const Vector shift = load_channels<Scalar>(k + channel, extent);
        Vector sum[2] = {}, square[2] = {};
        for (int64_t r = 0; r < rows.count; ++r) {
          const Element* at = x + (row + r) * block.x_stride + channel;
          const Vector d = rows.one_of(extent).load(at) - shift;
          sum[r % 2] += d;
          square[r % 2] += d * d;
        }
        totals.add(extent, channel, sum[0] + sum[1], square[0] + square[1]);
      });
    });
    totals.flush();
    const double count = static_cast<double>(end), inverse_count = 1 / count;
    for (int64_t c = 0; c < block.channels; ++c) {
      move_shift(count, inverse_count, k[c], sums[c], m2[c]);
    }
    begin = end;
    end = smaller(begin + smaller(begin, rows_summed_in_float), block.outer);
  }
  finish_statistics(block.channels, static_cast<double>(block.outer), k, sums, mean, m2);
}

// The last vector of a plane, which ends at `end`: only its last `count` lanes are new.
template <class Element>
struct Tail {
  using M = Memory<Element>;
  using Vector = typename M::Vector;
  using Scalar = typename M::Scalar;
  bool whole;
  int64_t count;
  Vector lane;

  // A plane shorter than a vector has no preceding elements to overlap with.
  CNNGRAPH_INLINE Tail(int64_t inner, int64_t new_lanes)
      : whole(inner >= M::lanes), count(new_lanes) {
    Scalar lanes[M::lanes];
    for (int i = 0; i < M::lanes; ++i) lanes[i] = static_cast<Scalar>(i);
    __builtin_memcpy(&lane, lanes, sizeof(lane));
  }
  CNNGRAPH_INLINE Vector load(const Element* end, Scalar fill = 0) const {
    return whole ? M::load(end - M::lanes) : M::load(end - count, count, fill);
  }
  // Lanes that are not new are rewritten with the same values.
  CNNGRAPH_INLINE void store(Element* end, Vector vector) const {
    if (whole) {
      M::store(end - M::lanes, vector);
    } else {
      M::store(end - count, vector, count);
    }
  }
  // Not reached: streamed planes consist of whole vectors.
  CNNGRAPH_INLINE void stream(Element* end, Vector vector) const { store(end, vector); }
  // `vector` with zeros in the lanes that are not new.
  CNNGRAPH_INLINE Vector only_new(Vector vector) const {
    const Vector first = Vector{} + static_cast<Scalar>(whole ? M::lanes - count : 0);
    return lane >= first ? vector : Vector{};
  }
};

template <class Element>
void statistics_planes(const Element* x, Block block, double* mean, double* m2, double* scratch) {
  using M = Memory<Element>;
  using Vector = typename M::Vector;
  using Scalar = typename M::Scalar;
  constexpr int64_t first_tile = vectors_for_shift * M::lanes;
  constexpr int64_t largest_tile = vectors_in_plane_tile * M::lanes;
  double* sums = scratch;
  Scalar* shifts = reinterpret_cast<Scalar*>(scratch + block.channels);
  for (int64_t channel = 0; channel < block.channels; ++channel) {
    const Element* plane = x + channel * block.inner;
    const int64_t count = smaller(first_tile, block.inner);
    Vector sum = {};
    int64_t i = 0;
    for (; i + M::lanes <= count; i += M::lanes) sum += M::load(plane + i);
    if (i < count) sum += M::load(plane + i, count - i, 0);
    shifts[channel] =
        finite_or_zero<Scalar>(static_cast<Scalar>(sum_of_lanes(sum) / static_cast<double>(count)));
    m2[channel] = sums[channel] = 0;
  }
  for (int64_t sample = 0; sample < block.outer; ++sample) {
    for (int64_t channel = 0; channel < block.channels; ++channel) {
      const Element* plane = x + sample * block.x_stride + channel * block.inner;
      Scalar k = shifts[channel];
      double total = sums[channel], total_square = m2[channel];
      for (int64_t begin = 0, end; begin < block.inner; begin = end) {
        const int64_t before = sample * block.inner + begin;
        const int64_t tile = before < first_tile ? first_tile : smaller(before, largest_tile);
        end = smaller(begin + tile, block.inner);
        Vector sum[4] = {}, square[4] = {};
        int64_t i = begin;
        for (; i + 4 * M::lanes <= end; i += 4 * M::lanes) {
          for (int v = 0; v < 4; ++v) {
            const Vector d = ahead(Whole<Element>{}).load(plane + i + v * M::lanes) - k;
            sum[v] += d;
            square[v] += d * d;
          }
        }
        for (; i + M::lanes <= end; i += M::lanes) {
          const Vector d = M::load(plane + i) - k;
          sum[0] += d;
          square[0] += d * d;
        }
        if (i < end) {
          const Tail<Element> tail(block.inner, end - i);
          const Vector d = tail.only_new(tail.load(plane + end, k) - k);
          sum[1] += d;
          square[1] += d * d;
        }
        total += sum_of_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
        total_square += sum_of_lanes((square[0] + square[1]) + (square[2] + square[3]));
        // Only when it matters: the next tile depends on it.
        const double count = static_cast<double>(sample * block.inner + end);
        if (total * total > 0.5 * count * total_square) {
          move_shift(count, 1 / count, k, total, total_square);
        }
      }
      shifts[channel] = k;
      sums[channel] = total;
      m2[channel] = total_square;
    }
  }
  const double count = static_cast<double>(block.outer) * static_cast<double>(block.inner);
  finish_statistics(block.channels, count, shifts, sums, mean, m2);
}

inline void merge_statistics(int64_t parts, int64_t channels, int64_t stride, const double* counts,
                             const double* __restrict means, const double* __restrict m2s,
                             double* __restrict mean, double* __restrict m2) {
  for (int64_t c = 0; c < channels; ++c) {
    mean[c] = means[c];
    m2[c] = m2s[c];
  }
  double count = counts[0];
  for (int64_t part = 1; part < parts; ++part) {
    const double added = counts[part], total = count + added;
    const double keep = count / total, take = added / total;
    const double* part_mean = means + part * stride;
    const double* part_m2 = m2s + part * stride;
    for (int64_t c = 0; c < channels; ++c) {
      const double delta = part_mean[c] - mean[c];
      mean[c] = mean[c] * keep + part_mean[c] * take;
      m2[c] += part_m2[c] + delta * delta * (count * take);
    }
    count = total;
  }
}

// ---- element-wise passes

template <class Element>
inline bool has_short_rows(const Block& block) {
  return block.channels * static_cast<int64_t>(sizeof(Element)) <= bytes_of_short_row;
}

// Calls body(coefficients, extent, offset) for every vector of a block.
template <class Element, bool with_gradient, class Body>
CNNGRAPH_INLINE void for_each_vector(Coefficients coefficients, Block block, Body body) {
  constexpr int64_t lanes = Memory<Element>::lanes;
  if (block.inner == 1) {
    const auto body_of_rows = [&](auto rows, int64_t row) {
      for_each_vector_of_channels<Element>(block.channels, [&](auto extent, int64_t channel) {
        const auto c =
            coefficients_of_channels<Element, with_gradient>(coefficients, channel, extent);
        for (int64_t r = 0; r < rows.count; ++r) {
          body(c, rows.one_of(extent), block.offset(row + r, channel));
        }
      });
    };
    for_each_group_of_rows<short_rows_together>(0, block.outer, body_of_rows,
                                                has_short_rows<Element>(block));
    return;
  }
  for (int64_t sample = 0; sample < block.outer; ++sample) {
    for (int64_t channel = 0; channel < block.channels; ++channel) {
      const auto c = coefficients_of_channel<Element, with_gradient>(coefficients, channel);
      const Block::Offset begin = block.offset(sample, channel);
      int64_t i = 0;
      for (; i + lanes <= block.inner; i += lanes) body(c, ahead(Whole<Element>{}), begin + i);
      if (i == block.inner) continue;
      if (block.inner >= lanes) {  // some elements twice, with the same result
        body(c, Whole<Element>{}, begin + (block.inner - lanes));
      } else {
        body(c, Part<Element>{block.inner}, begin);
      }
    }
  }
}

template <class Element, class Act, class Residual>
void forward(Act act, Residual, const Element* x, const Element* residual,
             Coefficients coefficients, Element* y, Block block, bool streams) {
  for_each_vector<Element, false>(coefficients, block,
                                  [&](const auto& c, auto extent, Block::Offset at)
                                      CNNGRAPH_LAMBDA_INLINE {
                                        auto z = c.normalise(extent.load(x + at.x) - c.mean);
                                        if constexpr (Residual::given)
                                          z += extent.load(residual + at.dense);
                                        store(extent, y + at.y, act.forward(z), streams);
                                      });
  if (streams) after_streams();
}

template <class Element, class Act>
void backward(Act act, const Element* x, const Element* dy, Coefficients coefficients, Element* dx,
              Block block, bool streams) {
  for_each_vector<Element, true>(
      coefficients, block,
      [&](const auto& c, auto extent, Block::Offset at) CNNGRAPH_LAMBDA_INLINE {
        const auto centred = extent.load(x + at.x) - c.mean;
        const auto dz = act.backward(c.normalise(centred), extent.load(dy + at.y));
        store(extent, dx + at.dense, dz * c.scale + (centred * c.slope + c.offset), streams);
      });
  if (streams) after_streams();
}

// ---- sums for the backward

// dz from the values before the activation; written if it is the residual's gradient.
template <class Element, class Act, class Residual>
struct Gradient {
  using Vector = typename Memory<Element>::Vector;
  Act act;
  const Element *residual, *dy;
  Element* dz;
  bool streams;

  template <class Channels, class Extent>
  CNNGRAPH_INLINE Vector at(const Channels& c, Vector centred, Extent extent,
                            Block::Offset at) const {
    Vector z = c.normalise(centred);
    if constexpr (Residual::given) z += extent.load(residual + at.dense);
    const Vector result = act.backward(z, extent.load(dy + at.y));
    if constexpr (Residual::given) store(extent, dz + at.dense, result, streams);
    return result;
  }
};

// The same for a ReLU of a sum, given its output, which is positive where z is.
template <class Element>
struct GradientFromOutput {
  using Vector = typename Memory<Element>::Vector;
  const Element *output, *dy;
  Element* dz;
  bool streams;

  template <class Channels, class Extent>
  CNNGRAPH_INLINE Vector at(const Channels&, Vector, Extent extent, Block::Offset at) const {
    const Vector result = ReLU{}.backward(extent.load(output + at.dense), extent.load(dy + at.y));
    store(extent, dz + at.dense, result, streams);
    return result;
  }
};

template <class Element, class Gradient>
void backward_sums_rows(Gradient gradient, const Element* x, Coefficients coefficients, Block block,
                        double* sum_dz, double* sum_dz_x, double* scratch) {
  using Vector = typename Memory<Element>::Vector;
  using Scalar = typename Memory<Element>::Scalar;
  const SumsOfRows<Scalar> totals(block.channels, sum_dz, sum_dz_x,
                                  reinterpret_cast<Scalar*>(scratch));
  const auto sum = [&](auto rows, int64_t row) {
    for_each_vector_of_channels<Element>(block.channels, [&](auto extent, int64_t channel) {
      const auto c = coefficients_of_channels<Element, false>(coefficients, channel, extent);
      Vector sum_dz = {}, product = {};
      for (int64_t r = 0; r < rows.count; ++r) {
        const Block::Offset at = block.offset(row + r, channel);
        const Vector centred = rows.one_of(extent).load(x + at.x) - c.mean;
        const Vector dz = gradient.at(c, centred, rows.one_of(extent), at);
        sum_dz += dz;
        product += dz * centred;
      }
      totals.add(extent, channel, sum_dz, product);
    });
  };
  sum_rows<short_rows_together>(block.outer, totals, sum, has_short_rows<Element>(block));
}

template <class Element, class Gradient>
void backward_sums_planes(Gradient gradient, const Element* x, Coefficients coefficients,
                          Block block, double* sum_dz, double* sum_dz_x) {
  using M = Memory<Element>;
  using Vector = typename M::Vector;
  using Scalar = typename M::Scalar;
  constexpr int64_t tile = vectors_in_plane_tile * M::lanes;
  const auto extent = ahead(Whole<Element>{});
  for (int64_t channel = 0; channel < block.channels; ++channel) {
    sum_dz[channel] = sum_dz_x[channel] = 0;
  }
  for (int64_t sample = 0; sample < block.outer; ++sample) {
    for (int64_t channel = 0; channel < block.channels; ++channel) {
      const auto c = coefficients_of_channel<Element, false>(coefficients, channel);
      const Block::Offset plane = block.offset(sample, channel);
      const Scalar mean = static_cast<const Scalar*>(coefficients.mean)[channel];
      for (int64_t begin = 0; begin < block.inner; begin += tile) {
        const int64_t end = smaller(begin + tile, block.inner);
        Vector sum[2] = {}, product[2] = {};
        int64_t i = begin;
        for (; i + 2 * M::lanes <= end; i += 2 * M::lanes) {
          for (int v = 0; v < 2; ++v) {
            const Block::Offset at = plane + (i + v * M::lanes);
            const Vector centred = extent.load(x + at.x) - c.mean;
            const Vector dz = gradient.at(c, centred, extent, at);
            sum[v] += dz;
            product[v] += dz * centred;
          }
        }
        if (i + M::lanes <= end) {
          const Vector centred = M::load(x + plane.x + i) - c.mean;
          const Vector dz = gradient.at(c, centred, Whole<Element>{}, plane + i);
          sum[0] += dz;
          product[0] += dz * centred;
          i += M::lanes;
        }
        if (i < end) {
          const Tail<Element> tail(block.inner, end - i);
          const Vector centred = tail.load(x + plane.x + end, mean) - c.mean;
          const Vector dz = tail.only_new(gradient.at(c, centred, tail, plane + end));
          sum[1] += dz;
          product[1] += tail.only_new(dz * centred);
        }
        sum_dz[channel] += sum_of_lanes(sum[0] + sum[1]);
        sum_dz_x[channel] += sum_of_lanes(product[0] + product[1]);
      }
    }
  }
}

}  // namespace

extern const BatchNormActKernels batch_norm_act = {
    /*statistics=*/
    [](DataType data_type, const void* x, Block block, double* mean, double* m2, double* scratch) {
      with_element(data_type, [&](auto element) {
        using Element = decltype(element);
        const auto* typed = static_cast<const Element*>(x);
        if (block.inner == 1) {
          statistics_rows(typed, block, mean, m2, scratch);
        } else {
          statistics_planes(typed, block, mean, m2, scratch);
        }
      });
    },
    /*merge_statistics=*/merge_statistics,
    /*forward=*/
    [](DataType data_type, Activation activation, ActivationArguments arguments, const void* x,
       const void* residual, Coefficients coefficients, void* y, Block block, bool streams) {
      with_element(data_type, [&](auto element) {
        using Element = decltype(element);
        with_activation(activation, arguments, [&](auto act) {
          with_residual(residual != nullptr, [&](auto given) {
            forward(act, given, static_cast<const Element*>(x),
                    static_cast<const Element*>(residual), coefficients, static_cast<Element*>(y),
                    block, streams);
          });
        });
      });
    },
    /*backward_sums=*/
    [](DataType data_type, Activation activation, ActivationArguments arguments, const void* x,
       const void* residual, const void* output, const void* dy, Coefficients coefficients,
       void* dz, Block block, double* sum_dz, double* sum_dz_x, double* scratch, bool streams) {
      with_element(data_type, [&](auto element) {
        using Element = decltype(element);
        const auto* typed_dy = static_cast<const Element*>(dy);
        auto* typed_dz = static_cast<Element*>(dz);
        const auto sum = [&](auto gradient) {
          const auto* typed = static_cast<const Element*>(x);
          if (block.inner == 1) {
            backward_sums_rows(gradient, typed, coefficients, block, sum_dz, sum_dz_x, scratch);
          } else {
            backward_sums_planes(gradient, typed, coefficients, block, sum_dz, sum_dz_x);
          }
          if (streams) after_streams();
        };
        if (output != nullptr) {
          const auto* typed_output = static_cast<const Element*>(output);
          return sum(GradientFromOutput<Element>{typed_output, typed_dy, typed_dz, streams});
        }
        with_activation(activation, arguments, [&](auto act) {
          with_residual(residual != nullptr, [&](auto given) {
            sum(Gradient<Element, decltype(act), decltype(given)>{
                act, static_cast<const Element*>(residual), typed_dy, typed_dz, streams});
          });
        });
      });
    },
    /*backward=*/
    [](DataType data_type, Activation activation, ActivationArguments arguments, const void* x,
       const void* dy, Coefficients coefficients, void* dx, Block block, bool streams) {
      with_element(data_type, [&](auto element) {
        using Element = decltype(element);
        with_activation(activation, arguments, [&](auto act) {
          backward(act, static_cast<const Element*>(x), static_cast<const Element*>(dy),
                   coefficients, static_cast<Element*>(dx), block, streams);
        });
      });
    },
};

}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
