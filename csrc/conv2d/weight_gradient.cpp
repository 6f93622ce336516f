// dW[o][y][x][i] = sum over the output's pixels of dY[pixel][o] * X[pixel moved by (y, x)][i].
//
// Each place (y, x) of the kernel is a product of two matrices whose rows are pixels. A block of
// output rows of both maps is packed once, and all products over it are computed while it is in the
// cache. Which map is in the rows of a tile and which in the columns depends on the padding.
#include "weight_gradient.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "../cpu/capability.h"
#include "../cpu/range.h"
#include "../cpu/threads.h"
#include "../data_type_of.h"
#include "weight_gradient_kernels.h"

namespace cnngraph {
namespace {

using at::Tensor;

const WeightGradientKernels& kernels() { return CNNGRAPH_KERNELS_IN_USE(weight_gradient); }

constexpr int64_t positions_of_block = 384;
constexpr int64_t most_merged_channels = 64;
constexpr int64_t least_together = 64;
constexpr int64_t most_merged_positions = 1024;
constexpr int64_t most_pixels_made = 64;
constexpr double most_padding = 1.5;
constexpr int64_t most_bytes_of_parts = 4 * 1024 * 1024;

// The size of the fewest equal parts that are no larger than `most`.
int64_t even_share(int64_t size, int64_t most) { return ceil_div(size, ceil_div(size, most)); }

struct Axis {
  int64_t input, output, kernel, stride, padding, dilation;
};

// The convolution as the loops see it. With few input channels, those of a whole row of the kernel
// are treated as channels, to fill the tiles.
struct Problem {
  int64_t images, in_channels, out_channels;
  Axis y, x;
  int64_t row_elements;     // of the input
  int64_t column_elements;  // from one column of the input to the next

  explicit Problem(const ConvSizes& sizes)
      : images(sizes.images),
        in_channels(sizes.in_channels),
        out_channels(sizes.out_channels),
        y(axis(sizes, 0)),
        x(axis(sizes, 1)),
        row_elements(sizes.input[1] * sizes.in_channels),
        column_elements(sizes.in_channels) {
    if (x.kernel > 1 && x.dilation == 1 && in_channels * x.kernel <= most_merged_channels) {
      in_channels *= x.kernel;
      x.kernel = 1;
    }
    const bool pointwise = y.kernel == 1 && y.stride == 1 && y.padding == 0 && x.kernel == 1 &&
                           x.stride == 1 && x.padding == 0 && in_channels == column_elements;
    if (pointwise && y.output * x.output <= most_merged_positions) {
      x.input = x.output = y.output * x.output;
      y.input = y.output = 1;
      row_elements = x.input * in_channels;
    }
  }

  int64_t places() const { return y.kernel * x.kernel; }

 private:
  static Axis axis(const ConvSizes& sizes, int i) {
    const auto& [stride, padding, dilation, groups] = sizes.geometry;
    return {sizes.input[i], sizes.output[i], sizes.kernel[i], stride[i], padding[i], dilation[i]};
  }
};

// How the input is packed: all columns and rows that its windows cover, or, for a kernel of size 1,
// only those that it reads.
struct PackedInput {
  int64_t rows, columns, row_step, column_step;  // steps from one output row or column to the next

  PackedInput(const Problem& problem, int64_t output_rows) {
    const auto cover = [](const Axis& axis, int64_t outputs, int64_t& size, int64_t& step) {
      step = axis.kernel == 1 ? 1 : axis.stride;
      size = (outputs - 1) * step + (axis.kernel - 1) * axis.dilation + 1;
    };
    cover(problem.y, output_rows, rows, row_step);
    cover(problem.x, problem.x.output, columns, column_step);
  }
};

// One operand of the product: channels cut into panels.
struct Operand {
  int64_t channels, width, panels, panel_stride;

  Operand(int64_t count, int64_t panel_width)
      : channels(count),
        width(panel_width),
        panels(ceil_div(count, panel_width)),
        panel_stride(0) {}
  int64_t padded() const { return panels * width; }
};

// The elements of the sums with these numbers of channels in the rows and columns of tiles.
int64_t padding_with(int64_t a, int64_t b) {
  return Operand(a, kernels().height).padded() * Operand(b, kernels().width).padded();
}

class WeightGradient {
 public:
  WeightGradient(const Tensor& grad, const Tensor& input, at::IntArrayRef weight,
                 const ConvGeometry& geometry)
      : WeightGradient(grad, input.sizes(), weight, geometry) {
    input_ = input;
  }
  // For a pointwise convolution.
  WeightGradient(const Tensor& grad, const MakePixels& input, at::IntArrayRef weight)
      : WeightGradient(grad, {grad.size(0), weight[1], grad.size(2), grad.size(3)}, weight,
                       {{1, 1}, {0, 0}, {1, 1}, 1}) {
    make_pixels_ = &input;
  }
  Tensor compute(at::IntArrayRef weight_sizes) {
    sums_.reset(new float[parts_ * size_of_sums()]);
    at::parallel_for(0, parts_ * shares_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        add_blocks(Range::of_part(blocks_, task % parts_, parts_),
                   Range::of_part(b_.panels, task / parts_, shares_),
                   sums_.get() + task % parts_ * size_of_sums());
      }
    });
    const auto options = grad_.options().dtype(at::kFloat);
    Tensor weight = at::empty(weight_sizes, options, at::MemoryFormat::ChannelsLast);
    float* to = weight.mutable_data_ptr<float>();
    at::parallel_for(0, problem_.out_channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t out = begin; out < end; ++out) write(out, to);
    });
    return weight.to(grad_.scalar_type());
  }

 private:
  WeightGradient(const Tensor& grad, at::IntArrayRef input, at::IntArrayRef weight,
                 const ConvGeometry& geometry)
      : problem_({input[0],
                  input[1],
                  grad.size(1),
                  {input[2], input[3]},
                  {grad.size(2), grad.size(3)},
                  {weight[2], weight[3]},
                  geometry}),
        grad_(grad),
        type_(data_type_of(grad, "conv2d")),
        input_is_a_(padding_with(problem_.in_channels, problem_.out_channels) <=
                    padding_with(problem_.out_channels, problem_.in_channels)),
        a_(input_is_a_ ? problem_.in_channels : problem_.out_channels, kernels().height),
        b_(input_is_a_ ? problem_.out_channels : problem_.in_channels, kernels().width) {
    const int64_t pixels = problem_.y.output * problem_.x.output;
    if (pixels >= positions_of_block) {
      rows_of_block_ =
          even_share(problem_.y.output, ceil_div(positions_of_block, problem_.x.output));
      images_of_block_ = 1;
    } else {
      rows_of_block_ = problem_.y.output;
      images_of_block_ = even_share(problem_.images, ceil_div(positions_of_block, pixels));
    }
    blocks_of_image_ = ceil_div(problem_.y.output, rows_of_block_);
    blocks_ = ceil_div(problem_.images, images_of_block_) * blocks_of_image_;
    // Each part of the pixels has its own sums, so a large weight has few parts; its panels of b
    // are shared among threads instead.
    const int64_t threads = threads_to_share();
    parts_ = std::clamp<int64_t>(most_bytes_of_parts / (size_of_sums() * 4), 1,
                                 std::min(threads, blocks_));
    shares_ = std::min(threads / parts_, b_.panels);
    const double terms = static_cast<double>(problem_.images * pixels / parts_);
    together_ =
        std::clamp(static_cast<int64_t>(std::sqrt(terms)), least_together, positions_of_block);
  }

  int64_t size_of_tile() const { return a_.width * b_.width; }
  int64_t size_of_sums() const {
    return a_.panels * b_.panels * problem_.places() * size_of_tile();
  }
  // The offset of a tile, in the order of updates.
  int64_t tile(int64_t panel_a, int64_t panel_b, int64_t place) const {
    return ((panel_b * a_.panels + panel_a) * problem_.places() + place) * size_of_tile();
  }

  void add_blocks(Range blocks, Range panels, float* sums) const {
    const PackedInput most(problem_, rows_of_block_);
    const int64_t positions = images_of_block_ * rows_of_block_ * problem_.x.output;
    Operand a = a_, b = b_;
    (input_is_a_ ? a : b).panel_stride = images_of_block_ * most.rows * most.columns;
    (input_is_a_ ? b : a).panel_stride = positions;
    for (Operand* side : {&a, &b}) {
      side->panel_stride = side->panel_stride * side->width + WeightGradientKernels::overrun;
    }
    std::unique_ptr<float[]> packed_a(new float[a.panels * a.panel_stride]);
    std::unique_ptr<float[]> packed_b(new float[(panels.end - panels.begin) * b.panel_stride]);
    std::vector<int64_t> input_offsets, grad_offsets;
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      const int64_t image = block / blocks_of_image_ * images_of_block_;
      const int64_t row = block % blocks_of_image_ * rows_of_block_;
      const int64_t rows = std::min(rows_of_block_, problem_.y.output - row);
      const int64_t images = std::min(images_of_block_, problem_.images - image);
      const PackedInput packed(problem_, rows);
      pack_input(image, images, row, packed, input_is_a_, panels,
                 input_is_a_ ? packed_a.get() : packed_b.get(), input_is_a_ ? a : b);
      pack_gradient(image, images, row, rows, !input_is_a_, panels,
                    input_is_a_ ? packed_b.get() : packed_a.get(), input_is_a_ ? b : a);

      const Operand &input = input_is_a_ ? a : b, &grad = input_is_a_ ? b : a;
      input_offsets.clear();
      grad_offsets.clear();
      for (int64_t i = 0; i < images * rows; ++i) {
        const int64_t packed_row = i / rows * packed.rows + i % rows * packed.row_step;
        input_offsets.push_back(packed_row * packed.columns * input.width);
        grad_offsets.push_back(i * problem_.x.output * grad.width);
      }
      SummedPositions over{images * rows,       problem_.x.output,
                           together_,           input_offsets.data(),
                           grad_offsets.data(), packed.column_step * input.width,
                           grad.width};
      if (!input_is_a_) {
        std::swap(over.a_offsets, over.b_offsets);
        std::swap(over.a_step, over.b_step);
      }
      for (int64_t panel_b = panels.begin; panel_b < panels.end; ++panel_b) {
        for (int64_t panel_a = 0; panel_a < a.panels; ++panel_a) {
          for (int64_t place = 0; place < problem_.places(); ++place) {
            const int64_t y = place / problem_.x.kernel * problem_.y.dilation;
            const int64_t x = place % problem_.x.kernel * problem_.x.dilation;
            const int64_t moved = (y * packed.columns + x) * input.width;
            kernels().multiply(
                packed_a.get() + panel_a * a.panel_stride + (input_is_a_ ? moved : 0),
                packed_b.get() + (panel_b - panels.begin) * b.panel_stride +
                    (input_is_a_ ? 0 : moved),
                over, block > blocks.begin, sums + tile(panel_a, panel_b, place));
          }
        }
      }
    }
  }

  // Packs only this task's panels of operand b.
  void pack(bool is_a, Range panels, const void* row, RowOfMap map, float* to,
            int64_t panel_stride) const {
    if (is_a) return kernels().pack_a(type_, row, map, to, panel_stride);
    const int64_t before = panels.begin * kernels().width;
    map.first += before;
    map.channels = std::min(map.channels, panels.end * kernels().width) - before;
    kernels().pack_b(type_, row, map, to, panel_stride);
  }

  const char* at(const Tensor& map, int64_t element) const {
    return static_cast<const char*>(map.const_data_ptr()) + element * map.element_size();
  }

  void pack_input(int64_t image, int64_t images, int64_t output_row, const PackedInput& packed,
                  bool is_a, Range panels, float* to, const Operand& side) const {
    if (make_pixels_) {
      const int64_t first = (image * problem_.y.output + output_row) * problem_.x.output;
      return pack_made_pixels(first, images * packed.rows * packed.columns, is_a, panels, to, side);
    }
    const int64_t between_rows = problem_.y.kernel == 1 ? problem_.y.stride : 1;
    const int64_t between_columns = problem_.x.kernel == 1 ? problem_.x.stride : 1;
    for (int64_t i = 0; i < images * packed.rows; ++i) {
      const int64_t row =
          output_row * problem_.y.stride - problem_.y.padding + i % packed.rows * between_rows;
      const bool inside = row >= 0 && row < problem_.y.input;
      const int64_t element =
          inside ? ((image + i / packed.rows) * problem_.y.input + row) * problem_.row_elements : 0;
      pack(is_a, panels, at(input_, element),
           RowOfMap{
               inside ? problem_.row_elements : 0, -problem_.x.padding * problem_.column_elements,
               between_columns * problem_.column_elements, packed.columns, problem_.in_channels},
           to + i * packed.columns * side.width, side.panel_stride);
    }
  }

  void pack_made_pixels(int64_t first, int64_t count, bool is_a, Range panels, float* to,
                        const Operand& side) const {
    const int64_t channels = problem_.in_channels;
    const std::unique_ptr<float[]> pixels(new float[most_pixels_made * channels]);
    for (int64_t made = 0; made < count; made += most_pixels_made) {
      const int64_t more = std::min(most_pixels_made, count - made);
      (*make_pixels_)(first + made, more, pixels.get());
      pack(is_a, panels, pixels.get(), RowOfMap{more * channels, 0, channels, more, channels},
           to + made * side.width, side.panel_stride);
    }
  }

  void pack_gradient(int64_t image, int64_t images, int64_t row, int64_t rows, bool is_a,
                     Range panels, float* to, const Operand& side) const {
    const int64_t elements = problem_.x.output * problem_.out_channels;
    for (int64_t i = 0; i < images * rows; ++i) {
      const int64_t from = (image + i / rows) * problem_.y.output + row + i % rows;
      pack(is_a, panels, at(grad_, from * elements),
           RowOfMap{elements, 0, problem_.out_channels, problem_.x.output, problem_.out_channels},
           to + i * problem_.x.output * side.width, side.panel_stride);
    }
  }

  // Writes the gradient of one output channel, summed over the parts.
  void write(int64_t out, float* weight) const {
    float* to = weight + out * problem_.places() * problem_.in_channels;
    const Operand& in = input_is_a_ ? a_ : b_;
    const int64_t step =
        input_is_a_ ? b_.width : 1;  // from one input channel to the next in a tile
    for (int64_t place = 0; place < problem_.places(); ++place) {
      for (int64_t panel = 0; panel < in.panels; ++panel) {
        const int64_t channels = std::min(in.width, in.channels - panel * in.width);
        const float* from =
            sums_.get() + (input_is_a_
                               ? tile(panel, out / b_.width, place) + out % b_.width
                               : tile(out / a_.width, panel, place) + out % a_.width * b_.width);
        for (int64_t i = 0; i < channels; ++i) to[i] = from[i * step];
        for (int64_t part = 1; part < parts_; ++part) {
          from += size_of_sums();
          for (int64_t i = 0; i < channels; ++i) to[i] += from[i * step];
        }
        to += channels;
      }
    }
  }

  Problem problem_;
  const Tensor& grad_;
  Tensor input_;  // or else:
  const MakePixels* make_pixels_ = nullptr;
  DataType type_;
  bool input_is_a_;
  Operand a_, b_;
  int64_t rows_of_block_, images_of_block_, blocks_of_image_, blocks_, parts_, shares_, together_;
  std::unique_ptr<float[]> sums_;
};

}  // namespace

bool weight_gradient_fills_tiles(const ConvSizes& sizes) {
  const Problem problem(sizes);
  const int64_t in = problem.in_channels, out = problem.out_channels;
  const int64_t padded = std::min(padding_with(in, out), padding_with(out, in));
  return static_cast<double>(padded) <= most_padding * static_cast<double>(in * out);
}

Tensor weight_gradient(const Tensor& grad_output, const Tensor& input, at::IntArrayRef weight_sizes,
                       const ConvGeometry& geometry) {
  const Tensor grad = grad_output.contiguous(at::MemoryFormat::ChannelsLast);
  const Tensor map = input.contiguous(at::MemoryFormat::ChannelsLast);
  return WeightGradient(grad, map, weight_sizes, geometry).compute(weight_sizes);
}

Tensor pointwise_weight_gradient(const Tensor& grad_output, const MakePixels& input,
                                 const Tensor& weight) {
  const Tensor grad = grad_output.contiguous(at::MemoryFormat::ChannelsLast);
  return WeightGradient(grad, input, weight.sizes()).compute(weight.sizes());
}

}  // namespace cnngraph
