#include "depthwise.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "../checks.h"
#include "../cpu/capability.h"
#include "../cpu/range.h"
#include "../cpu/threads.h"
#include "arguments.h"
#include "depthwise_kernels.h"
#include "epilogue.h"

namespace cnngraph {
namespace {

using at::Tensor;

constexpr auto channels_last = at::MemoryFormat::ChannelsLast;
constexpr int64_t tasks_per_thread = 8;
constexpr int64_t most_rows_of_task = 16;

const DepthwiseKernels& kernels() { return CNNGRAPH_KERNELS_IN_USE(depthwise); }

}  // namespace

Tensor depthwise_folded_convolution(const Tensor& input, const Tensor& weight,
                                    const std::optional<Tensor>& bias, at::IntArrayRef stride,
                                    at::IntArrayRef padding, at::IntArrayRef dilation,
                                    const std::optional<Tensor>& residual, double low,
                                    double high) {
  const char* op = "depthwise_conv2d";
  TORCH_CHECK(input.dim() == 4 && weight.dim() == 3 && input.scalar_type() == at::kFloat &&
                  weight.size(2) == input.size(1) && weight.numel() > 0,
              op,
              ": expected a float32 input of 4 dimensions and a weight of 3 with its channels, ",
              "got ", input.scalar_type(), " of ", input.sizes(), " and ", weight.sizes());
  TORCH_CHECK(std::max(weight.size(0), weight.size(1)) <= most_of_geometry, op,
              ": the kernel is too large: ", weight.sizes());
  check_memory(op, "the input", input);
  check_kind(op, "the weight", weight, input);
  const int64_t channels = input.size(1);
  const ConvGeometry geometry = {check_pair(op, "stride", stride, 1),
                                 check_pair(op, "padding", padding, 0),
                                 check_pair(op, "dilation", dilation, 1), channels};
  const ConvSizes sizes =
      sizes_of(input.sizes(), {channels, 1, weight.size(0), weight.size(1)}, geometry);
  const auto [rows, columns] = sizes.output;
  TORCH_CHECK(rows > 0 && columns > 0, op, ": a kernel of ", weight.sizes().slice(0, 2),
              " does not fit into an input of ", input.sizes().slice(2));
  const auto after =
      Epilogue::of(op, {input.size(0), channels, rows, columns}, input, bias, residual, low, high);
  const Tensor map = input.contiguous(channels_last), taps = weight.contiguous();
  Tensor result =
      at::empty({input.size(0), channels, rows, columns}, input.options(), channels_last);
  const float* from = map.const_data_ptr<float>();
  const float* values = taps.const_data_ptr<float>();
  float* to = result.mutable_data_ptr<float>();
  const auto [height, width] = sizes.input;
  const auto [kernel_height, kernel_width] = sizes.kernel;
  // Columns [first, last) of the results read every column of the kernel.
  const int64_t step = geometry.stride[1], apart = geometry.dilation[1];
  const int64_t reach = width + geometry.padding[1] - (kernel_width - 1) * apart;
  const int64_t first = std::min(ceil_div(geometry.padding[1], step), columns);
  const int64_t last = std::clamp(ceil_div(std::max<int64_t>(reach, 0), step), first, columns);
  // Neighbouring rows read the same rows of the input, so a thread takes several.
  const int64_t all = input.size(0) * rows;
  const int64_t together =
      std::clamp<int64_t>(all / (tasks_per_thread * threads_to_share()), 1, most_rows_of_task);
  share_out(ceil_div(all, together), [&, rows = rows, columns = columns, height = height,
                                      width = width, kernel_height = kernel_height,
                                      kernel_width = kernel_width](Tasks& tasks) {
    std::vector<const float*> pixels(kernel_height * kernel_width), weights(pixels.size());
    const auto compute = [&](int64_t row) {
      const int64_t image = row / rows, top = row % rows * geometry.stride[0] - geometry.padding[0];
      for (int64_t column = 0, count; column < columns; column += count) {
        count = first <= column && column < last ? last - column : 1;
        const int64_t left = column * step - geometry.padding[1];
        int64_t read = 0;
        for (int64_t i = 0; i < kernel_height; ++i) {
          const int64_t y = top + i * geometry.dilation[0];
          if (y < 0 || y >= height) continue;
          for (int64_t j = 0; j < kernel_width; ++j) {
            const int64_t x = left + j * apart;
            if (x < 0 || x >= width) continue;
            pixels[read] = from + ((image * height + y) * width + x) * channels;
            weights[read++] = values + (i * kernel_width + j) * channels;
          }
        }
        const int64_t at = (row * columns + column) * channels;
        kernels().convolve({pixels.data(), weights.data(), read, step * channels, count, channels,
                            after.bias_at(0), after.addend_at(at), after.low, after.high, to + at});
      }
    };
    tasks.each([&](int64_t task) {
      const int64_t end = std::min((task + 1) * together, all);
      for (int64_t row = task * together; row < end; ++row) compute(row);
    });
  });
  return result;
}

}  // namespace cnngraph
