// 1x1 convolutions over channels_last maps as products of rows of pixels, one block at a time, so
// that a caller can compute a block's input and use its result while they are in the cache.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <memory>

namespace cnngraph {

// Whether a float32 weight of these sizes has 1x1 kernels and enough channels to fill the tiles of
// these products. A dense block multiplies such a layer together with its norm.
bool pointwise_takes(at::IntArrayRef weight_sizes);

at::Tensor pointwise_convolution(const at::Tensor& input, const at::Tensor& weight);
at::Tensor pointwise_input_gradient(const at::Tensor& grad_output, const at::Tensor& weight);

// A weight packed for the products of the convolution or of its input gradient.
class PointwiseWeight {
 public:
  enum class Product { convolution, input_gradient };

  PointwiseWeight(const at::Tensor& weight, Product product);

  int64_t channels() const { return channels_; }  // of the result

  // Writes the results of `count` pixels as dense rows.
  void multiply(const float* pixels, int64_t pixel_stride, int64_t count, float* results) const;

  // The number of pixels with `channels` channels that fit in the cache.
  static int64_t pixels_of_block(int64_t channels);

 private:
  int64_t depth_, channels_;
  std::unique_ptr<float[]> panels_;
};

}  // namespace cnngraph
