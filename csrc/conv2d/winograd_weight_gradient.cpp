// The gradient of the transformed weight is, at each place, a sum over tiles of the
// outer product of two vectors: the transformed patch and the transformed gradient of the tile's
// results. WeightGradientKernels computes these products.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "../cpu/threads.h"
#include "weight_gradient_kernels.h"
#include "winograd.h"
#include "winograd_tiles.h"

namespace cnngraph {
namespace {

using at::Tensor;

constexpr auto channels_last = at::MemoryFormat::ChannelsLast;

constexpr int64_t pixels_of_block = 1536;  // of transformed patches
constexpr int64_t least_panels = 2;
constexpr int64_t most_bytes_of_parts = 4 * 1024 * 1024;

class Sums {
 public:
  Sums(const Tensor& grad_output, const Tensor& input, const ConvGeometry& geometry, int64_t tile)
      : grad_(grad_output),
        input_(input),
        geometry_(geometry),
        kernels_(winograd_kernels(tile)),
        tiles_(kernels_.tile, input.size(0), grad_output.size(2), grad_output.size(3)),
        out_channels_(grad_output.size(1)),
        in_channels_(input.size(1)),
        out_panels_(ceil_div(out_channels_, product().height)),
        in_panels_(ceil_div(in_channels_, product().width)),
        blocks_(ceil_div(tiles_.count, tiles_of_block())) {
    // Sums computed by one thread and read by another cost more than transforming in both, as long
    // as each thread has some panels.
    const int64_t threads = threads_to_share();
    shares_ = std::clamp<int64_t>(in_panels_ / least_panels, 1, threads);
    parts_ = std::min(
        {threads / shares_, blocks_, std::max<int64_t>(1, most_bytes_of_parts / (size() * 4))});
    sums_.reset(new float[parts_ * size()]);
  }

  Tensor compute() {
    Tensor weight = at::empty({out_channels_, in_channels_, 3, 3},
                              input_.options().dtype(at::kFloat), channels_last);
    float* taps = weight.mutable_data_ptr<float>();
    at::parallel_for(0, parts_ * shares_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const Range panels = Range::of_part(in_panels_, task / parts_, shares_);
        add_blocks(Range::of_part(blocks_, task % parts_, parts_), panels,
                   sums_.get() + task % parts_ * size());
        if (parts_ == 1) write(panels, taps);
      }
    });
    if (parts_ > 1) {
      at::parallel_for(0, in_panels_, 1,
                       [&](int64_t begin, int64_t end) { write({begin, end}, taps); });
    }
    return weight.to(input_.scalar_type());
  }

 private:
  static const WeightGradientKernels& product() { return CNNGRAPH_KERNELS_IN_USE(weight_gradient); }

  int64_t places() const { return kernels_.places(); }
  int64_t tiles_of_block() const { return pixels_of_block / places(); }
  int64_t size_of_tile() const { return product().height * product().width; }
  int64_t size() const { return in_panels_ * out_panels_ * places() * size_of_tile(); }
  // The offset of the first place of a tile.
  int64_t tile(int64_t in_panel, int64_t out_panel) const {
    return (in_panel * out_panels_ + out_panel) * places() * size_of_tile();
  }

  void add_blocks(Range blocks, Range panels, float* sums) const {
    const int64_t first = panels.begin * product().width;
    const int64_t channels = std::min(in_channels_, panels.end * product().width) - first;
    const Places patches(places(), tiles_of_block(), channels),
        gradients(places(), tiles_of_block(), out_channels_);
    std::vector<float> nothing(std::max(in_channels_, out_channels_));
    const Pixels<const void> inputs(input_, input_.const_data_ptr(), nothing.data(), first);
    const Pixels<const void> grads(grad_, grad_.const_data_ptr(), nothing.data());
    const DataType type = data_type_of(input_, "conv2d");
    const int64_t start = 0;
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      const Range range = Range::of_part(tiles_.count, block, blocks_);
      tiles_.each(range, [&](int64_t index, int64_t image, int64_t y, int64_t x) {
        const auto patch = inputs.square(kernels_.patch(), image, y - geometry_.padding[0],
                                         x - geometry_.padding[1]);
        kernels_.transform_patch(type, patch.data(), channels, patches.tile(index), patches.stride);
        const auto pixels = grads.square(kernels_.tile, image, y, x);
        kernels_.transform_gradient(type, pixels.data(), out_channels_, gradients.tile(index),
                                    gradients.stride);
      });
      const int64_t count = range.end - range.begin;
      const SummedPositions over{
          1, count, count, &start, &start, gradients.tile_stride, patches.tile_stride};
      for (int64_t place = 0; place < places(); ++place) {
        for (int64_t in = panels.begin; in < panels.end; ++in) {
          for (int64_t out = 0; out < out_panels_; ++out) {
            product().multiply(gradients.of_place(place) + out * product().height,
                               patches.of_place(place) + (in - panels.begin) * product().width,
                               over, block > blocks.begin,
                               sums + tile(in, out) + place * size_of_tile());
          }
        }
      }
    }
  }

  // Writes the taps of panels of input channels, summed over the parts.
  void write(Range panels, float* taps) const {
    for (int64_t in = panels.begin; in < panels.end; ++in) {
      for (int64_t out = 0; out < out_panels_; ++out) {
        float* sums = sums_.get() + tile(in, out);
        for (int64_t part = 1; part < parts_; ++part) {
          const float* more = sums + part * size();
          for (int64_t i = 0; i < places() * size_of_tile(); ++i) sums[i] += more[i];
        }
        const int64_t first_in = in * product().width, first_out = out * product().height;
        for (int64_t i = 0; i < std::min(product().height, out_channels_ - first_out); ++i) {
          kernels_.transform_weight_gradient(sums + i * product().width, size_of_tile(),
                                             std::min(product().width, in_channels_ - first_in),
                                             taps + (first_out + i) * 9 * in_channels_ + first_in,
                                             in_channels_);
        }
      }
    }
  }

  const Tensor &grad_, &input_;
  const ConvGeometry geometry_;
  const WinogradKernels& kernels_;
  const Tiles tiles_;
  const int64_t out_channels_, in_channels_, out_panels_, in_panels_, blocks_;
  int64_t parts_, shares_;
  std::unique_ptr<float[]> sums_;
};

}  // namespace

Tensor winograd_weight_gradient(const Tensor& grad_output, const Tensor& input,
                                const ConvGeometry& geometry, int64_t tile) {
  const Tensor grad = grad_output.contiguous(channels_last), map = input.contiguous(channels_last);
  return Sums(grad, map, geometry, tile).compute();
}

}  // namespace cnngraph
