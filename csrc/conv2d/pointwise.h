// 1x1 convolutions over channels_last maps as products of rows of pixels, a block at a time: what
// such a product reads may be made, and what it gives be used, while it is in the cache.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>

#include "weight_gradient.h"

namespace cnngraph {

// Whether a weight is one of a pixel, in float32, and fills these products' tiles.
bool pointwise_takes(const at::Tensor& weight);

// Whether these products take such a convolution, and are the faster way: else another must do.
bool pointwise_pays(const at::Tensor& input, const at::Tensor& weight,
                    const ConvGeometry& geometry);

at::Tensor pointwise_convolution(const at::Tensor& input, const at::Tensor& weight);
at::Tensor pointwise_input_gradient(const at::Tensor& grad_output, const at::Tensor& weight);

// A weight as the products read it: those of the convolution, or of its input's gradient.
class PointwiseWeight {
 public:
  enum class Product { convolution, input_gradient };

  PointwiseWeight(const at::Tensor& weight, Product product);

  int64_t channels() const { return channels_; }  // of a result

  // The results of `count` pixels, in dense rows.
  void multiply(const float* pixels, int64_t pixel_stride, int64_t count, float* results) const;

  // About as many as stay in the cache with `channels` channels each.
  static int64_t pixels_of_block(int64_t channels);

 private:
  int64_t depth_, channels_;
  std::unique_ptr<float[]> panels_;
};

}  // namespace cnngraph
