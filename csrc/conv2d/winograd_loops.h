// The loops of Winograd's convolution over vectors of channels, compiled once per capability. See
// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016
// (https://arxiv.org/abs/1509.09308).
#pragma once

#include "../cpu/vector.h"
#include "winograd_kernels.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {
namespace {

// The transforms of F(tile, 3) in one dimension. `gradient` is the transpose of `result`, and
// `weight_gradient` that of `weight`.
template <int tile>
struct Transforms;

template <>
struct Transforms<2> {
  static CNNGRAPH_INLINE void patch(const Floats (&in)[4], Floats (&out)[4]) {
    out[0] = in[0] - in[2];
    out[1] = in[1] + in[2];
    out[2] = in[2] - in[1];
    out[3] = in[1] - in[3];
  }
  static CNNGRAPH_INLINE void result(const Floats (&in)[4], Floats (&out)[2]) {
    out[0] = in[0] + in[1] + in[2];
    out[1] = in[1] - in[2] - in[3];
  }
  static CNNGRAPH_INLINE void gradient(const Floats (&in)[2], Floats (&out)[4]) {
    out[0] = in[0];
    out[1] = in[0] + in[1];
    out[2] = in[0] - in[1];
    out[3] = -in[1];
  }
  static CNNGRAPH_INLINE void weight(const Floats (&in)[3], Floats (&out)[4]) {
    const Floats outer = 0.5f * (in[0] + in[2]), inner = 0.5f * in[1];
    out[0] = in[0];
    out[1] = outer + inner;
    out[2] = outer - inner;
    out[3] = in[2];
  }
  static CNNGRAPH_INLINE void weight_gradient(const Floats (&in)[4], Floats (&out)[3]) {
    const Floats sum = 0.5f * (in[1] + in[2]);
    out[0] = in[0] + sum;
    out[1] = 0.5f * (in[1] - in[2]);
    out[2] = sum + in[3];
  }
};

// Interpolates at 0, a, -a, b, -b and infinity. With a = 5/8 and b = 3/2, errors are half of what
// the usual 1 and 2 give, and all constants of `patch` and `result` are exact.
template <>
struct Transforms<4> {
  static constexpr float a = 0.625f, b = 1.5f, aa = a * a, bb = b * b;
  static constexpr float of_zero = 1 / (aa * bb), of_a = 0.5f / (aa * (aa - bb)),
                         of_b = 0.5f / (bb * (bb - aa));

  static CNNGRAPH_INLINE void patch(const Floats (&in)[6], Floats (&out)[6]) {
    const Floats even_a = in[4] - bb * in[2], odd_a = a * (in[3] - bb * in[1]);
    const Floats even_b = in[4] - aa * in[2], odd_b = b * (in[3] - aa * in[1]);
    out[0] = aa * bb * in[0] - (aa + bb) * in[2] + in[4];
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = aa * bb * in[1] - (aa + bb) * in[3] + in[5];
  }
  static CNNGRAPH_INLINE void result(const Floats (&in)[6], Floats (&out)[4]) {
    const Floats even_a = in[1] + in[2], odd_a = a * (in[1] - in[2]);
    const Floats even_b = in[3] + in[4], odd_b = b * (in[3] - in[4]);
    out[0] = in[0] + even_a + even_b;
    out[1] = odd_a + odd_b;
    out[2] = aa * even_a + bb * even_b;
    out[3] = aa * odd_a + bb * odd_b + in[5];
  }
  static CNNGRAPH_INLINE void gradient(const Floats (&in)[4], Floats (&out)[6]) {
    const Floats even_a = in[0] + aa * in[2], odd_a = a * (in[1] + aa * in[3]);
    const Floats even_b = in[0] + bb * in[2], odd_b = b * (in[1] + bb * in[3]);
    out[0] = in[0];
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = in[3];
  }
  static CNNGRAPH_INLINE void weight(const Floats (&in)[3], Floats (&out)[6]) {
    const Floats even_a = of_a * (in[0] + aa * in[2]), odd_a = of_a * a * in[1];
    const Floats even_b = of_b * (in[0] + bb * in[2]), odd_b = of_b * b * in[1];
    out[0] = of_zero * in[0];
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = in[2];
  }
  static CNNGRAPH_INLINE void weight_gradient(const Floats (&in)[6], Floats (&out)[3]) {
    const Floats even_a = of_a * (in[1] + in[2]), even_b = of_b * (in[3] + in[4]);
    out[0] = of_zero * in[0] + even_a + even_b;
    out[1] = of_a * a * (in[1] - in[2]) + of_b * b * (in[3] - in[4]);
    out[2] = aa * even_a + bb * even_b + in[5];
  }
};

// Applies a transform of `from` to `to` numbers to the columns and then to the rows of a square:
// at(y, x) gives an element of the square, and put(y, x, value) takes one of the result.
template <int from, int to, class Transform, class At, class Put>
CNNGRAPH_INLINE void transform_square(Transform transform, At at, Put put) {
  Floats rows[to][from];
#pragma GCC unroll 6
  for (int x = 0; x < from; ++x) {
    Floats column[from], transformed[to];
#pragma GCC unroll 6
    for (int y = 0; y < from; ++y) column[y] = at(y, x);
    transform(column, transformed);
#pragma GCC unroll 6
    for (int y = 0; y < to; ++y) rows[y][x] = transformed[y];
  }
#pragma GCC unroll 6
  for (int y = 0; y < to; ++y) {
    Floats transformed[to];
    transform(rows[y], transformed);
#pragma GCC unroll 6
    for (int x = 0; x < to; ++x) put(y, x, transformed[x]);
  }
}

template <int tile>
struct Loops {
  using Of = Transforms<tile>;
  static constexpr int patch = tile + 2;

  template <class Element>
  static void transform_patch(const void* const* pixels, int64_t channels, float* places,
                              int64_t place_stride) {
    for_each_vector_of_channels<Element>(
        channels, [&](auto extent, int64_t channel) CNNGRAPH_LAMBDA_INLINE {
          transform_square<patch, patch>(
              [](const auto& in, auto& out) CNNGRAPH_LAMBDA_INLINE { Of::patch(in, out); },
              [&](int y, int x) CNNGRAPH_LAMBDA_INLINE {
                return extent.load(static_cast<const Element*>(pixels[patch * y + x]) + channel);
              },
              [&](int y, int x, Floats value) CNNGRAPH_LAMBDA_INLINE {
                Memory<float>::store(places + (patch * y + x) * place_stride + channel, value);
              });
        });
  }

  template <class Element>
  static void transform_gradient(const void* const* pixels, int64_t channels, float* places,
                                 int64_t place_stride) {
    for_each_vector_of_channels<Element>(
        channels, [&](auto extent, int64_t channel) CNNGRAPH_LAMBDA_INLINE {
          transform_square<tile, patch>(
              [](const auto& in, auto& out) CNNGRAPH_LAMBDA_INLINE { Of::gradient(in, out); },
              [&](int y, int x) CNNGRAPH_LAMBDA_INLINE {
                return extent.load(static_cast<const Element*>(pixels[tile * y + x]) + channel);
              },
              [&](int y, int x, Floats value) CNNGRAPH_LAMBDA_INLINE {
                Memory<float>::store(places + (patch * y + x) * place_stride + channel, value);
              });
        });
  }

  template <class Element>
  static void transform_result(const float* places, int64_t place_stride, int64_t channels,
                               const float* bias, const void* const* addends, float low, float high,
                               void* const* pixels) {
    for_each_vector_of_channels<Element>(channels, [&](auto extent,
                                                       int64_t channel) CNNGRAPH_LAMBDA_INLINE {
      Floats shift{};
      if (bias) {
        for (int64_t lane = 0; lane < extent.count; ++lane) shift[lane] = bias[channel + lane];
      }
      transform_square<patch, tile>(
          [](const auto& in, auto& out) CNNGRAPH_LAMBDA_INLINE { Of::result(in, out); },
          [&](int y, int x) CNNGRAPH_LAMBDA_INLINE {
            return Memory<float>::load(places + (patch * y + x) * place_stride + channel);
          },
          [&](int y, int x, Floats value) CNNGRAPH_LAMBDA_INLINE {
            const int pixel = tile * y + x;
            value += shift;
            if (addends)
              value += extent.load(static_cast<const Element*>(addends[pixel]) + channel);
            extent.store(static_cast<Element*>(pixels[pixel]) + channel, clamp(value, low, high));
          });
    });
  }

  template <class Element>
  static void transform_weight(const void* taps, int64_t tap_stride, int64_t channels, bool turned,
                               float* places, int64_t place_stride, int64_t channel_stride) {
    for_each_vector_of_channels<Element>(
        channels, [&](auto extent, int64_t channel) CNNGRAPH_LAMBDA_INLINE {
          transform_square<3, patch>(
              [](const auto& in, auto& out) CNNGRAPH_LAMBDA_INLINE { Of::weight(in, out); },
              [&](int y, int x) CNNGRAPH_LAMBDA_INLINE {
                const int tap = 3 * y + x;
                return extent.load(static_cast<const Element*>(taps) +
                                   (turned ? 8 - tap : tap) * tap_stride + channel);
              },
              [&](int y, int x, Floats value) CNNGRAPH_LAMBDA_INLINE {
                float* to = places + (patch * y + x) * place_stride + channel * channel_stride;
                if (channel_stride == 1) {
                  Memory<float>::store(to, value, extent.count);
                } else {
                  for (int64_t lane = 0; lane < extent.count; ++lane)
                    to[lane * channel_stride] = value[lane];
                }
              });
        });
  }

  static void transform_weight_gradient(const float* places, int64_t place_stride, int64_t channels,
                                        float* taps, int64_t tap_stride) {
    for_each_vector_of_channels<float>(channels, [&](auto extent,
                                                     int64_t channel) CNNGRAPH_LAMBDA_INLINE {
      transform_square<patch, 3>(
          [](const auto& in, auto& out) CNNGRAPH_LAMBDA_INLINE { Of::weight_gradient(in, out); },
          [&](int y, int x) CNNGRAPH_LAMBDA_INLINE {
            return Memory<float>::load(places + (patch * y + x) * place_stride + channel);
          },
          [&](int y, int x, Floats value) CNNGRAPH_LAMBDA_INLINE {
            extent.store(taps + (3 * y + x) * tap_stride + channel, value);
          });
    });
  }
};

// Calls the function for the element type.
template <auto of_float, auto of_bfloat16, class... Arguments>
void of_type(DataType type, Arguments... arguments) {
  type == DataType::bfloat16 ? of_bfloat16(arguments...) : of_float(arguments...);
}

template <int tile>
constexpr WinogradKernels kernels = {
    tile,
    of_type<Loops<tile>::template transform_patch<float>,
            Loops<tile>::template transform_patch<BFloat16>>,
    of_type<Loops<tile>::template transform_gradient<float>,
            Loops<tile>::template transform_gradient<BFloat16>>,
    of_type<Loops<tile>::template transform_result<float>,
            Loops<tile>::template transform_result<BFloat16>>,
    of_type<Loops<tile>::template transform_weight<float>,
            Loops<tile>::template transform_weight<BFloat16>>,
    Loops<tile>::transform_weight_gradient,
};

}  // namespace

extern const WinogradKernels winograd_2x2 = kernels<2>;
extern const WinogradKernels winograd_4x4 = kernels<4>;

}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
