// The loops of Winograd's convolution, compiled once per capability. The transforms are those of
// F(2x2, 3x3) in Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016
// (https://arxiv.org/abs/1509.09308), over vectors of channels.
#pragma once

#include "../cpu/vector.h"
#include "winograd_kernels.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {
namespace {

template <class Element>
void transform_patch(const void* const* pixels, int64_t channels, float* places,
                     int64_t place_stride) {
  for_each_vector_of_channels<Element>(
      channels, [&](auto extent, int64_t channel) CNNGRAPH_LAMBDA_INLINE {
        const auto pixel = [&](int i) CNNGRAPH_LAMBDA_INLINE {
          return extent.load(static_cast<const Element*>(pixels[i]) + channel);
        };
        Floats rows[4][4];
#pragma GCC unroll 4
        for (int x = 0; x < 4; ++x) {
          const Floats first = pixel(x), second = pixel(4 + x), third = pixel(8 + x),
                       fourth = pixel(12 + x);
          rows[0][x] = first - third;
          rows[1][x] = second + third;
          rows[2][x] = third - second;
          rows[3][x] = second - fourth;
        }
#pragma GCC unroll 4
        for (int y = 0; y < 4; ++y) {
          float* to = places + 4 * y * place_stride + channel;
          const Floats* row = rows[y];
          Memory<float>::store(to, row[0] - row[2]);
          Memory<float>::store(to + place_stride, row[1] + row[2]);
          Memory<float>::store(to + 2 * place_stride, row[2] - row[1]);
          Memory<float>::store(to + 3 * place_stride, row[1] - row[3]);
        }
      });
}

template <class Element>
void transform_gradient(const void* const* pixels, int64_t channels, float* places,
                        int64_t place_stride) {
  for_each_vector_of_channels<Element>(
      channels, [&](auto extent, int64_t channel) CNNGRAPH_LAMBDA_INLINE {
        Floats rows[4][2];
#pragma GCC unroll 2
        for (int x = 0; x < 2; ++x) {
          const Floats upper = extent.load(static_cast<const Element*>(pixels[x]) + channel);
          const Floats lower = extent.load(static_cast<const Element*>(pixels[2 + x]) + channel);
          rows[0][x] = upper;
          rows[1][x] = upper + lower;
          rows[2][x] = upper - lower;
          rows[3][x] = -lower;
        }
#pragma GCC unroll 4
        for (int y = 0; y < 4; ++y) {
          float* to = places + 4 * y * place_stride + channel;
          const Floats left = rows[y][0], right = rows[y][1];
          Memory<float>::store(to, left);
          Memory<float>::store(to + place_stride, left + right);
          Memory<float>::store(to + 2 * place_stride, left - right);
          Memory<float>::store(to + 3 * place_stride, -right);
        }
      });
}

template <class Element>
void transform_result(const float* places, int64_t place_stride, int64_t channels,
                      const float* bias, const void* const* addends, bool relu,
                      void* const* pixels) {
  for_each_vector_of_channels<Element>(
      channels, [&](auto extent, int64_t channel) CNNGRAPH_LAMBDA_INLINE {
        Floats rows[2][4];
#pragma GCC unroll 4
        for (int x = 0; x < 4; ++x) {
          const float* from = places + x * place_stride + channel;
          const Floats first = Memory<float>::load(from);
          const Floats second = Memory<float>::load(from + 4 * place_stride);
          const Floats third = Memory<float>::load(from + 8 * place_stride);
          const Floats fourth = Memory<float>::load(from + 12 * place_stride);
          rows[0][x] = first + second + third;
          rows[1][x] = second - third - fourth;
        }
        Floats shift{};
        if (bias) {
          for (int64_t lane = 0; lane < extent.count; ++lane) shift[lane] = bias[channel + lane];
        }
        const auto write = [&](int pixel, Floats value) CNNGRAPH_LAMBDA_INLINE {
          value += shift;
          if (addends) value += extent.load(static_cast<const Element*>(addends[pixel]) + channel);
          if (relu) value = value < 0.0f ? Floats{} : value;  // NaN stays
          extent.store(static_cast<Element*>(pixels[pixel]) + channel, value);
        };
#pragma GCC unroll 2
        for (int y = 0; y < 2; ++y) {
          const Floats* row = rows[y];
          write(2 * y, row[0] + row[1] + row[2]);
          write(2 * y + 1, row[1] - row[2] - row[3]);
        }
      });
}

template <class Element>
void transform_weight(const void* taps, int64_t tap_stride, int64_t channels, bool turned,
                      float* places, int64_t place_stride, int64_t channel_stride) {
  for_each_vector_of_channels<Element>(
      channels, [&](auto extent, int64_t channel) CNNGRAPH_LAMBDA_INLINE {
        const auto tap = [&](int i) CNNGRAPH_LAMBDA_INLINE {
          return extent.load(static_cast<const Element*>(taps) + (turned ? 8 - i : i) * tap_stride +
                             channel);
        };
        const auto spread = [](Floats first, Floats second, Floats third,
                               Floats(&to)[4]) CNNGRAPH_LAMBDA_INLINE {
          const Floats outer = 0.5f * (first + third), inner = 0.5f * second;
          to[0] = first;
          to[1] = outer + inner;
          to[2] = outer - inner;
          to[3] = third;
        };
        Floats columns[3][4];
#pragma GCC unroll 3
        for (int x = 0; x < 3; ++x) spread(tap(x), tap(3 + x), tap(6 + x), columns[x]);
#pragma GCC unroll 4
        for (int y = 0; y < 4; ++y) {
          Floats row[4];
          spread(columns[0][y], columns[1][y], columns[2][y], row);
#pragma GCC unroll 4
          for (int x = 0; x < 4; ++x) {
            float* to = places + (4 * y + x) * place_stride + channel * channel_stride;
            if (channel_stride == 1) {
              Memory<float>::store(to, row[x], extent.count);
            } else {
              for (int64_t lane = 0; lane < extent.count; ++lane)
                to[lane * channel_stride] = row[x][lane];
            }
          }
        }
      });
}

void transform_weight_gradient(const float* places, int64_t place_stride, int64_t channels,
                               float* taps, int64_t tap_stride) {
  for_each_vector_of_channels<float>(
      channels, [&](auto extent, int64_t channel) CNNGRAPH_LAMBDA_INLINE {
        const auto gather = [](Floats first, Floats second, Floats third, Floats fourth,
                               Floats(&to)[3]) CNNGRAPH_LAMBDA_INLINE {
          const Floats sum = 0.5f * (second + third);
          to[0] = first + sum;
          to[1] = 0.5f * (second - third);
          to[2] = sum + fourth;
        };
        Floats columns[4][3];
#pragma GCC unroll 4
        for (int x = 0; x < 4; ++x) {
          const auto place = [&](int y) CNNGRAPH_LAMBDA_INLINE {
            return Memory<float>::load(places + (4 * y + x) * place_stride + channel);
          };
          gather(place(0), place(1), place(2), place(3), columns[x]);
        }
#pragma GCC unroll 3
        for (int y = 0; y < 3; ++y) {
          Floats row[3];
          gather(columns[0][y], columns[1][y], columns[2][y], columns[3][y], row);
#pragma GCC unroll 3
          for (int x = 0; x < 3; ++x)
            extent.store(taps + (3 * y + x) * tap_stride + channel, row[x]);
        }
      });
}

// Calls the function for the element type.
template <auto of_float, auto of_bfloat16, class... Arguments>
void of_type(DataType type, Arguments... arguments) {
  type == DataType::bfloat16 ? of_bfloat16(arguments...) : of_float(arguments...);
}

}  // namespace

extern const WinogradKernels winograd = {
    of_type<transform_patch<float>, transform_patch<BFloat16>>,
    of_type<transform_gradient<float>, transform_gradient<BFloat16>>,
    of_type<transform_result<float>, transform_result<BFloat16>>,
    of_type<transform_weight<float>, transform_weight<BFloat16>>,
    transform_weight_gradient,
};

}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
