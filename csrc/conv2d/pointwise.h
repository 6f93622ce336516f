// 1x1 convolutions over channels_last maps as products of rows of pixels, one block at a time, so
// that a caller can compute a block's input and use its result while they are in the cache.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <memory>
#include <optional>

#include "../cpu/range.h"

namespace cnngraph {

// Whether a float32 weight of these sizes has 1x1 kernels and enough channels to fill the tiles of
// these products. A dense block multiplies such a layer together with its norm.
bool pointwise_takes(at::IntArrayRef weight_sizes);

at::Tensor pointwise_convolution(const at::Tensor& input, const at::Tensor& weight);
at::Tensor pointwise_input_gradient(const at::Tensor& grad_output, const at::Tensor& weight);

// For inference: with a weight packed in advance, a residual, and results between `low` and `high`.
at::Tensor pointwise_weight(const at::Tensor& weight);
at::Tensor pointwise_folded_convolution(const at::Tensor& input, const at::Tensor& packed_weight,
                                        int64_t channels, const std::optional<at::Tensor>& bias,
                                        const std::optional<at::Tensor>& residual, double low,
                                        double high);

// The convolution of relu(batch norm of the input), by constant statistics: each block of pixels is
// normalised in the cache.
at::Tensor batch_norm_relu_pointwise_convolution(const at::Tensor& input, const at::Tensor& mean,
                                                 const at::Tensor& var,
                                                 const std::optional<at::Tensor>& gamma,
                                                 const std::optional<at::Tensor>& beta, double eps,
                                                 const at::Tensor& packed_weight, int64_t channels,
                                                 const std::optional<at::Tensor>& bias, double low,
                                                 double high);

// A weight packed for the products of the convolution or of its input gradient.
class PointwiseWeight {
 public:
  enum class Product { convolution, input_gradient };

  PointwiseWeight(const at::Tensor& weight, Product product);
  // Of `packed`, the values of `pointwise_weight`, which must outlive this.
  PointwiseWeight(const float* packed, int64_t depth, int64_t channels);

  int64_t channels() const { return channels_; }  // of the result

  // Writes the results of `count` pixels as dense rows, or only those of some panels of channels.
  void multiply(const float* pixels, int64_t pixel_stride, int64_t count, Range panels,
                float* results) const;
  void multiply(const float* pixels, int64_t pixel_stride, int64_t count, float* results) const;

  // The number of pixels with `channels` channels that fit in the cache.
  static int64_t pixels_of_block(int64_t channels);

 private:
  int64_t depth_, channels_;
  std::unique_ptr<float[]> own_;
  const float* panels_;
};

}  // namespace cnngraph
