#include "pointwise.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "../cpu/capability.h"
#include "../cpu/range.h"
#include "../cpu/threads.h"
#include "row_product_kernels.h"

namespace cnngraph {
namespace {

using at::Tensor;

constexpr auto channels_last = at::MemoryFormat::ChannelsLast;

constexpr int64_t bytes_of_block = 192 * 1024;
constexpr int64_t most_pixels_of_block = 384;
constexpr int64_t least_channels = 32;  // fewer leave much of a tile empty
// Channel counts are mostly powers of two; as strides these map to few cache lines.
constexpr int64_t gap = 16;

const RowProductKernels& kernels() { return CNNGRAPH_KERNELS_IN_USE(row_product); }

Tensor product(const Tensor& map, const PointwiseWeight& weight) {
  const Tensor pixels = map.contiguous(channels_last);
  const int64_t channels = pixels.size(1), stride = channels + gap;
  Tensor result = at::empty({map.size(0), weight.channels(), map.size(2), map.size(3)},
                            map.options(), channels_last);
  const float* from = pixels.const_data_ptr<float>();
  float* to = result.mutable_data_ptr<float>();
  const int64_t count = pixels.numel() / channels;
  const int64_t block = PointwiseWeight::pixels_of_block(channels);
  share_out(ceil_div(count, block), [&](Tasks& tasks) {
    const std::unique_ptr<float[]> rows(new float[block * stride]);
    tasks.each([&](int64_t task) {
      const int64_t first = task * block, size = std::min(block, count - first);
      for (int64_t i = 0; i < size; ++i) {
        std::copy_n(from + (first + i) * channels, channels, rows.get() + i * stride);
      }
      weight.multiply(rows.get(), stride, size, to + first * weight.channels());
    });
  });
  return result;
}

}  // namespace

bool pointwise_takes(at::IntArrayRef weight_sizes) {
  return weight_sizes.size() == 4 && weight_sizes[2] == 1 && weight_sizes[3] == 1 &&
         std::min(weight_sizes[0], weight_sizes[1]) >= least_channels;
}

Tensor pointwise_convolution(const Tensor& input, const Tensor& weight) {
  return product(input, {weight, PointwiseWeight::Product::convolution});
}

Tensor pointwise_input_gradient(const Tensor& grad_output, const Tensor& weight) {
  return product(grad_output, {weight, PointwiseWeight::Product::input_gradient});
}

PointwiseWeight::PointwiseWeight(const Tensor& weight, Product product) {
  Tensor matrix = weight.reshape({weight.size(0), weight.size(1)});
  if (product == Product::input_gradient) matrix = matrix.t();
  channels_ = matrix.size(0);
  depth_ = matrix.size(1);
  const int64_t width = kernels().width, panels = ceil_div(channels_, width);
  panels_.reset(new float[panels * depth_ * width]);
  const float* values = matrix.const_data_ptr<float>();
  const int64_t channel_stride = matrix.stride(0), depth_stride = matrix.stride(1);
  at::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      float* to = panels_.get() + panel * depth_ * width;
      const float* from = values + panel * width * channel_stride;
      const int64_t columns = std::min(width, channels_ - panel * width);
      for (int64_t d = 0; d < depth_; ++d, to += width) {
        for (int64_t c = 0; c < columns; ++c) to[c] = from[c * channel_stride + d * depth_stride];
        std::fill(to + columns, to + width, 0.0f);
      }
    }
  });
}

void PointwiseWeight::multiply(const float* pixels, int64_t pixel_stride, int64_t count,
                               float* results) const {
  const int64_t width = kernels().width;
  const float* panel = panels_.get();
  for (int64_t channel = 0; channel < channels_; channel += width, panel += depth_ * width) {
    kernels().multiply(pixels, count, pixel_stride, panel, depth_, /*add=*/false, results + channel,
                       channels_, std::min(width, channels_ - channel));
  }
}

int64_t PointwiseWeight::pixels_of_block(int64_t channels) {
  const int64_t bytes = channels * static_cast<int64_t>(sizeof(float));
  const int64_t pixels = std::min(bytes_of_block / bytes, most_pixels_of_block);
  return std::max<int64_t>(pixels / kernels().height, 1) * kernels().height;
}

}  // namespace cnngraph
