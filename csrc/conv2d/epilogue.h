// What is applied to the results of a convolution for inference before they are written.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>

#include "../checks.h"

namespace cnngraph {

struct Epilogue {
  at::Tensor bias, addend;  // undefined if there is none
  float low, high;          // bounds of the results

  // Raises unless the bias and the residual fit results of these sizes.
  static Epilogue of(const char* op, std::array<int64_t, 4> sizes, const at::Tensor& input,
                     const std::optional<at::Tensor>& bias,
                     const std::optional<at::Tensor>& residual, double low, double high) {
    Epilogue after{{}, {}, static_cast<float>(low), static_cast<float>(high)};
    if (bias.has_value() && bias->defined()) {
      check_sizes(op, "a bias", *bias, {sizes[1]});
      check_kind(op, "a bias", *bias, input);
      after.bias = bias->contiguous();
    }
    if (residual.has_value() && residual->defined()) {
      check_sizes(op, "a residual", *residual, sizes);
      check_kind(op, "a residual", *residual, input);
      after.addend = residual->contiguous(at::MemoryFormat::ChannelsLast);
    }
    return after;
  }

  const float* bias_at(int64_t channel) const { return at(bias, channel); }
  const float* addend_at(int64_t element) const { return at(addend, element); }

 private:
  static const float* at(const at::Tensor& tensor, int64_t element) {
    return tensor.defined() ? tensor.const_data_ptr<float>() + element : nullptr;
  }
};

}  // namespace cnngraph
