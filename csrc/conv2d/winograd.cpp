// A tile of 2x2 (4x4) results depends on a patch of 4x4 (6x6) pixels. Each place of the transformed
// patch is multiplied with one matrix of the transformed weight, and the products are transformed
// back to the tile. A block of tiles stays in the cache between the three steps.
#include "winograd.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "../checks.h"
#include "../cpu/threads.h"
#include "epilogue.h"
#include "winograd_tiles.h"

namespace cnngraph {
namespace {

using at::Tensor;

constexpr auto channels_last = at::MemoryFormat::ChannelsLast;

constexpr int64_t pixels_of_block = 1536;  // of transformed patches
// The summed channels of one product. The rows and panels of a block stay in the first cache, and
// rounding errors grow with the length of a sum.
constexpr int64_t depth_of_block = 64;

std::array<int64_t, 2> size_of_results(const Tensor& input, std::array<int64_t, 2> padding) {
  return {input.size(2) + 2 * padding[0] - 2, input.size(3) + 2 * padding[1] - 2};
}

// The layout of the transformed weight: for each place, panels of the product's channels. For the
// input gradient, input and output channels are swapped and the kernels rotated.
struct WeightLayout {
  const WinogradKernels& kernels;
  int64_t depth, channels, panels;

  WeightLayout(int64_t tile, int64_t in, int64_t out)
      : kernels(winograd_kernels(tile)),
        depth(in),
        channels(out),
        panels(ceil_div(out, row_product().width)) {}

  int64_t panel_size() const { return depth * row_product().width; }
  // The same for every panel width, and not a power of two: the places of a weight would map to few
  // cache lines.
  int64_t place_stride() const {
    return depth * round_up(channels, RowProductKernels::width_multiple) + 16;
  }
  int64_t size() const { return kernels.places() * place_stride(); }
};

void transform(const Tensor& weight, bool for_gradient, const WeightLayout& layout, float* values) {
  const Tensor taps = weight.contiguous(channels_last);
  const int64_t width = row_product().width, outs = taps.size(0), ins = taps.size(1);
  const auto transform_channels = [&](int64_t out, int64_t in) {
    const int64_t to = for_gradient ? in / width * layout.panel_size() + out * width
                                    : out / width * layout.panel_size() + in * width + out % width;
    layout.kernels.transform_weight(data_type_of(taps, "conv2d"),
                                    static_cast<const char*>(taps.const_data_ptr()) +
                                        (out * 9 * ins + in) * taps.element_size(),
                                    ins, std::min(width, ins - in), for_gradient, values + to,
                                    layout.place_stride(), for_gradient ? 1 : width);
  };
  // In squares of channels, so that writes are close together.
  at::parallel_for(0, ceil_div(outs, width), 1, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * width; first < std::min(end * width, outs); first += width) {
      for (int64_t in = 0; in < ins; in += width) {
        for (int64_t out = first; out < std::min(first + width, outs); ++out) {
          transform_channels(out, in);
        }
      }
    }
  });
}

Tensor convolve(const Tensor& input, const WeightLayout& weight, const float* values,
                std::array<int64_t, 2> padding, const Epilogue& after) {
  const WinogradKernels& kernels = weight.kernels;
  const int64_t width = row_product().width;
  const DataType type = data_type_of(input, "conv2d");
  const auto [height, columns] = size_of_results(input, padding);
  Tensor result =
      at::empty({input.size(0), weight.channels, height, columns}, input.options(), channels_last);
  const Tiles tiles(kernels.tile, input.size(0), height, columns);
  if (tiles.count == 0) return result;
  const int64_t threads = threads_to_share();
  const int64_t blocks = std::max(ceil_div(tiles.count * kernels.places(), pixels_of_block),
                                  std::min(threads, tiles.count));
  const int64_t most = ceil_div(tiles.count, blocks);
  share_out(blocks, [&](Tasks& tasks) {
    const Places transformed(kernels.places(), most, weight.depth),
        products(kernels.places(), most, weight.channels);
    std::vector<float> nothing(weight.depth), discarded(weight.channels);
    const Pixels<const void> from(input, input.const_data_ptr(), nothing.data());
    const Pixels<void> to(result, result.mutable_data_ptr(), discarded.data());
    const Pixels<const void> addends(
        result, after.addend.defined() ? after.addend.const_data_ptr() : nullptr, discarded.data());
    tasks.each([&](int64_t block) {
      const Range range = Range::of_part(tiles.count, block, blocks);
      tiles.each(range, [&](int64_t tile, int64_t image, int64_t y, int64_t x) {
        const auto patch = from.square(kernels.patch(), image, y - padding[0], x - padding[1]);
        kernels.transform_patch(type, patch.data(), weight.depth, transformed.tile(tile),
                                transformed.stride);
      });
      for (int64_t place = 0; place < kernels.places(); ++place) {
        for (int64_t first = 0; first < weight.depth; first += depth_of_block) {
          for (int64_t panel = 0; panel < weight.panels; ++panel) {
            row_product().multiply(transformed.of_place(place) + first, range.end - range.begin,
                                   transformed.tile_stride,
                                   values + place * weight.place_stride() +
                                       panel * weight.panel_size() + first * width,
                                   std::min(depth_of_block, weight.depth - first),
                                   /*add=*/first > 0, products.of_place(place) + panel * width,
                                   products.tile_stride, width);
          }
        }
      }
      tiles.each(range, [&](int64_t tile, int64_t image, int64_t y, int64_t x) {
        const auto pixels = to.square(kernels.tile, image, y, x);
        Pixels<const void>::Square added;
        if (after.addend.defined()) added = addends.square(kernels.tile, image, y, x);
        kernels.transform_result(type, products.tile(tile), products.stride, weight.channels,
                                 after.bias_at(0), after.addend.defined() ? added.data() : nullptr,
                                 after.low, after.high, pixels.data());
      });
    });
  });
  return result;
}

}  // namespace

Tensor winograd_convolution(const Tensor& input, const Tensor& weight,
                            const std::optional<Tensor>& bias, const ConvGeometry& geometry,
                            int64_t tile) {
  const WeightLayout layout(tile, weight.size(1), weight.size(0));
  const std::unique_ptr<float[]> values(new float[layout.size()]);
  transform(weight, /*for_gradient=*/false, layout, values.get());
  return convolve(input.contiguous(channels_last), layout, values.get(), geometry.padding,
                  Epilogue::with_bias(bias));
}

Tensor winograd_input_gradient(const Tensor& grad_output, const Tensor& weight,
                               const ConvGeometry& geometry, int64_t tile) {
  const std::array<int64_t, 2> padding = {2 - geometry.padding[0], 2 - geometry.padding[1]};
  const WeightLayout layout(tile, weight.size(0), weight.size(1));
  const std::unique_ptr<float[]> values(new float[layout.size()]);
  transform(weight, /*for_gradient=*/true, layout, values.get());
  return convolve(grad_output.contiguous(channels_last), layout, values.get(), padding, {});
}

Tensor winograd_weight(const Tensor& weight, int64_t tile) {
  TORCH_CHECK(weight.dim() == 4 && weight.size(2) == 3 && weight.size(3) == 3 &&
                  weight.numel() > 0 &&
                  (weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kBFloat16),
              "winograd_weight: expected 3x3 kernels in float32 or bfloat16, got ",
              weight.scalar_type(), " of ", weight.sizes());
  check_memory("winograd_weight", "the weight", weight);
  TORCH_CHECK(tile == 2 || tile == 4, "winograd_weight: expected a tile of 2 or 4, got ", tile);
  const WeightLayout layout(tile, weight.size(1), weight.size(0));
  Tensor values = at::zeros({layout.size()}, weight.options().dtype(at::kFloat));
  transform(weight, /*for_gradient=*/false, layout, values.mutable_data_ptr<float>());
  return values;
}

Tensor winograd_folded_convolution(const Tensor& input, const Tensor& transformed_weight,
                                   int64_t channels, const std::optional<Tensor>& bias,
                                   at::IntArrayRef padding, const std::optional<Tensor>& residual,
                                   double low, double high) {
  const char* op = "winograd_conv2d";
  TORCH_CHECK(input.dim() == 4 &&
                  (input.scalar_type() == at::kFloat || input.scalar_type() == at::kBFloat16),
              op, ": expected a float32 or bfloat16 input of 4 dimensions, got ",
              input.scalar_type(), " of ", input.sizes());
  check_memory(op, "the input", input);
  const auto pads = check_pair(op, "padding", padding, 0);
  TORCH_CHECK(pads[0] <= 2 && pads[1] <= 2, op, ": expected paddings from 0 to 2, got ", padding);
  const auto [height, width] = size_of_results(input, pads);
  const std::array<int64_t, 4> sizes = {input.size(0), channels, height, width};
  TORCH_CHECK(sizes[2] >= 0 && sizes[3] >= 0, op, ": a 3x3 kernel does not fit into ",
              input.sizes(), " with padding ", padding);
  TORCH_CHECK(channels > 0 && channels <= most_of_geometry && input.size(1) > 0 &&
                  input.size(1) <= most_of_geometry / channels,
              op, ": expected channels, got ", channels, " from ", input.sizes());
  const auto layout_of = [&](int64_t tile) { return WeightLayout(tile, input.size(1), channels); };
  const WeightLayout layout = layout_of(transformed_weight.numel() == layout_of(4).size() ? 4 : 2);
  TORCH_CHECK(transformed_weight.sizes() == at::IntArrayRef{layout.size()} &&
                  transformed_weight.scalar_type() == at::kFloat &&
                  transformed_weight.device() == input.device(),
              op, ": expected the transformed weight of ", channels, " kernels over ",
              input.size(1), " channels");
  check_memory(op, "the transformed weight", transformed_weight);
  const auto after = Epilogue::of(op, sizes, input, bias, residual, low, high);
  const Tensor packed = transformed_weight.contiguous();
  return convolve(input.contiguous(channels_last), layout, packed.const_data_ptr<float>(), pads,
                  after);
}

}  // namespace cnngraph
