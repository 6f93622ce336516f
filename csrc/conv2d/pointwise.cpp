#include "pointwise.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "../checks.h"
#include "../cpu/capability.h"
#include "../cpu/range.h"
#include "../cpu/threads.h"
#include "epilogue.h"
#include "row_product_kernels.h"

namespace cnngraph {
namespace {

using at::Tensor;

constexpr auto channels_last = at::MemoryFormat::ChannelsLast;

constexpr int64_t bytes_of_block = 192 * 1024;
constexpr int64_t most_pixels_of_block = 384;
constexpr int64_t least_channels = 32;  // fewer leave much of a tile empty

// The same for every panel width.
int64_t size_of_packed(int64_t channels, int64_t depth) {
  return depth * round_up(channels, RowProductKernels::width_multiple);
}

const RowProductKernels& kernels() { return CNNGRAPH_KERNELS_IN_USE(row_product); }

int64_t panels_of(int64_t channels) { return ceil_div(channels, kernels().width); }

// Packs the matrix into panels of rows: panel[depth][row].
void pack(const Tensor& matrix, float* packed) {
  const int64_t channels = matrix.size(0), depth = matrix.size(1), width = kernels().width;
  const float* values = matrix.const_data_ptr<float>();
  const int64_t channel_stride = matrix.stride(0), depth_stride = matrix.stride(1);
  at::parallel_for(0, panels_of(channels), 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      float* to = packed + panel * depth * width;
      const float* from = values + panel * width * channel_stride;
      const int64_t columns = std::min(width, channels - panel * width);
      for (int64_t d = 0; d < depth; ++d, to += width) {
        for (int64_t c = 0; c < columns; ++c) to[c] = from[c * channel_stride + d * depth_stride];
        std::fill(to + columns, to + width, 0.0f);
      }
    }
  });
}

// The pixels of maps as rows, `stride` apart.
struct Rows {
  const float* first;
  int64_t stride;
};

// Calls rows(first pixel, count, memory) before each block of the product, where `memory` belongs
// to the thread, and finish(results, first pixel, count, panel) after each panel of it. With few
// pixels the panels are shared among threads too.
template <class GetRows, class Finish>
Tensor product(const Tensor& map, const PointwiseWeight& weight, const GetRows& rows,
               const Finish& finish) {
  const int64_t depth = map.size(1), channels = weight.channels();
  Tensor result =
      at::empty({map.size(0), channels, map.size(2), map.size(3)}, map.options(), channels_last);
  float* to = result.mutable_data_ptr<float>();
  const int64_t count = map.numel() / depth, panels = panels_of(channels);
  if (count == 0) return result;
  const int64_t blocks = ceil_div(count, PointwiseWeight::pixels_of_block(depth));
  const int64_t block = round_up(ceil_div(count, blocks), kernels().height);
  const int64_t shares = std::clamp<int64_t>(threads_to_share() / blocks, 1, panels);
  share_out(blocks * shares, [&](Tasks& tasks) {
    std::unique_ptr<float[]> memory;
    tasks.each([&](int64_t task) {
      const int64_t first = task / shares * block, size = std::min(block, count - first);
      if (size <= 0) return;
      const Range range = Range::of_part(panels, task % shares, shares);
      const Rows from = rows(first, size, memory);
      float* results = to + first * channels;
      for (int64_t panel = range.begin; panel < range.end; ++panel) {
        weight.multiply(from.first, from.stride, size, {panel, panel + 1}, results);
        finish(results, first, size, panel);
      }
    });
  });
  return result;
}

template <class Finish>
Tensor product(const Tensor& map, const PointwiseWeight& weight, const Finish& finish) {
  const Tensor pixels = map.contiguous(channels_last);
  const float* from = pixels.const_data_ptr<float>();
  const int64_t depth = map.size(1);
  const auto rows = [&](int64_t first, int64_t, auto&) {
    return Rows{from + first * depth, depth};
  };
  return product(map, weight, rows, finish);
}

Tensor product(const Tensor& map, const PointwiseWeight& weight) {
  return product(map, weight, [](auto...) {});
}

auto finish_with(const Epilogue& after, int64_t channels) {
  return [&after, channels](float* results, int64_t first, int64_t count, int64_t panel) {
    const int64_t width = kernels().width, column = panel * width;
    kernels().finish(results + column, count, channels, std::min(width, channels - column),
                     after.bias_at(column), after.addend_at(first * channels + column), after.low,
                     after.high);
  };
}

// Raises unless the packed weight fits an input of the operator.
Tensor packed_for(const char* op, const Tensor& input, const Tensor& packed_weight,
                  int64_t channels) {
  TORCH_CHECK(input.dim() == 4 && input.scalar_type() == at::kFloat && input.size(1) > 0, op,
              ": expected a float32 input of 4 dimensions, got ", input.scalar_type(), " of ",
              input.sizes());
  TORCH_CHECK(channels > 0 && channels <= most_of_geometry / input.size(1), op,
              ": expected channels, got ", channels, " from ", input.sizes());
  check_memory(op, "the input", input);
  check_sizes(op, "the packed weight", packed_weight, {size_of_packed(channels, input.size(1))});
  check_kind(op, "the packed weight", packed_weight, input);
  return packed_weight.contiguous();
}

// Maps whose pixels are equally far apart, such as a slice of the channels of channels_last maps.
Tensor with_even_pixels(const Tensor& map) {
  const int64_t stride = map.stride(3), row = map.size(3) * stride;
  const bool even =
      map.stride(1) == 1 && map.stride(2) == row && map.stride(0) == map.size(2) * row;
  return even ? map : map.contiguous(channels_last);
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

Tensor pointwise_weight(const Tensor& weight) {
  TORCH_CHECK(weight.dim() == 4 && weight.size(2) == 1 && weight.size(3) == 1 &&
                  weight.numel() > 0 && weight.scalar_type() == at::kFloat,
              "pointwise_weight: expected 1x1 kernels in float32, got ", weight.scalar_type(),
              " of ", weight.sizes());
  check_memory("pointwise_weight", "the weight", weight);
  const int64_t channels = weight.size(0), depth = weight.size(1);
  Tensor packed = at::zeros({size_of_packed(channels, depth)}, weight.options());
  pack(weight.reshape({channels, depth}), packed.mutable_data_ptr<float>());
  return packed;
}

Tensor pointwise_folded_convolution(const Tensor& input, const Tensor& packed_weight,
                                    int64_t channels, const std::optional<Tensor>& bias,
                                    const std::optional<Tensor>& residual, double low,
                                    double high) {
  const char* op = "pointwise_conv2d";
  const Tensor packed = packed_for(op, input, packed_weight, channels);
  const auto after = Epilogue::of(op, {input.size(0), channels, input.size(2), input.size(3)},
                                  input, bias, residual, low, high);
  const PointwiseWeight weight(packed.const_data_ptr<float>(), input.size(1), channels);
  return product(input, weight, finish_with(after, channels));
}

Tensor batch_norm_relu_pointwise_convolution(const Tensor& input, const Tensor& mean,
                                             const Tensor& var, const std::optional<Tensor>& gamma,
                                             const std::optional<Tensor>& beta, double eps,
                                             const Tensor& packed_weight, int64_t channels,
                                             const std::optional<Tensor>& bias, double low,
                                             double high) {
  const char* op = "batch_norm_relu_pointwise_conv2d";
  const Tensor packed = packed_for(op, input, packed_weight, channels);
  const int64_t depth = input.size(1);
  const auto values_of = [&](const char* name, const Tensor& tensor) {
    check_sizes(op, name, tensor, {depth});
    check_kind(op, name, tensor, input);
    return tensor.contiguous();
  };
  Tensor scale = (values_of("the variance", var) + eps).rsqrt_();
  if (gamma.has_value() && gamma->defined())
    scale.mul_(values_of("the weight of the norm", *gamma));
  Tensor shift = -values_of("the mean", mean) * scale;
  if (beta.has_value() && beta->defined()) shift.add_(values_of("the bias of the norm", *beta));
  const auto after = Epilogue::of(op, {input.size(0), channels, input.size(2), input.size(3)},
                                  input, bias, {}, low, high);
  const Tensor map = with_even_pixels(input);
  const float *from = map.const_data_ptr<float>(), *scales = scale.const_data_ptr<float>(),
              *shifts = shift.const_data_ptr<float>();
  const int64_t stride = map.stride(3);
  const PointwiseWeight weight(packed.const_data_ptr<float>(), depth, channels);
  const auto rows = [&](int64_t first, int64_t count, std::unique_ptr<float[]>& memory) {
    // Channel counts are mostly powers of two; as strides these map to few cache lines.
    const int64_t apart = depth + 16;
    if (!memory) memory.reset(new float[PointwiseWeight::pixels_of_block(depth) * apart]);
    kernels().normalise(from + first * stride, count, stride, depth, scales, shifts, memory.get(),
                        apart);
    return Rows{memory.get(), apart};
  };
  return product(input, weight, rows, finish_with(after, channels));
}

PointwiseWeight::PointwiseWeight(const Tensor& weight, Product product) {
  Tensor matrix = weight.reshape({weight.size(0), weight.size(1)});
  if (product == Product::input_gradient) matrix = matrix.t();
  channels_ = matrix.size(0);
  depth_ = matrix.size(1);
  own_.reset(new float[panels_of(channels_) * depth_ * kernels().width]);
  pack(matrix, own_.get());
  panels_ = own_.get();
}

PointwiseWeight::PointwiseWeight(const float* packed, int64_t depth, int64_t channels)
    : depth_(depth), channels_(channels), panels_(packed) {}

void PointwiseWeight::multiply(const float* pixels, int64_t pixel_stride, int64_t count,
                               Range panels, float* results) const {
  const int64_t width = kernels().width;
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const int64_t channel = panel * width;
    kernels().multiply(pixels, count, pixel_stride, panels_ + panel * depth_ * width, depth_,
                       /*add=*/false, results + channel, channels_,
                       std::min(width, channels_ - channel));
  }
}

void PointwiseWeight::multiply(const float* pixels, int64_t pixel_stride, int64_t count,
                               float* results) const {
  multiply(pixels, pixel_stride, count, {0, panels_of(channels_)}, results);
}

int64_t PointwiseWeight::pixels_of_block(int64_t channels) {
  const int64_t bytes = channels * static_cast<int64_t>(sizeof(float));
  const int64_t pixels = std::min(bytes_of_block / bytes, most_pixels_of_block);
  return std::max<int64_t>(pixels / kernels().height, 1) * kernels().height;
}

}  // namespace cnngraph
