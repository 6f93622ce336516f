// What is applied to the results of a convolution before they are written.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <limits>
#include <optional>

#include "../checks.h"

namespace cnngraph {

// clamp(results + bias + addend, low, high), where NaN stays.
struct Epilogue {
  at::Tensor bias;    // in float32; undefined if there is none
  at::Tensor addend;  // channels_last, in the type of the results; undefined if there is none
  float low = -std::numeric_limits<float>::infinity();
  float high = std::numeric_limits<float>::infinity();

  static Epilogue with_bias(const std::optional<at::Tensor>& bias) {
    Epilogue after;
    if (bias.has_value() && bias->defined()) after.bias = bias->to(at::kFloat).contiguous();
    return after;
  }

  // Raises unless the bias and the residual fit results of these sizes.
  static Epilogue of(const char* op, std::array<int64_t, 4> sizes, const at::Tensor& input,
                     const std::optional<at::Tensor>& bias,
                     const std::optional<at::Tensor>& residual, double low, double high) {
    if (bias.has_value() && bias->defined()) {
      check_sizes(op, "a bias", *bias, {sizes[1]});
      check_kind(op, "a bias", *bias, input);
    }
    Epilogue after = with_bias(bias);
    if (residual.has_value() && residual->defined()) {
      check_sizes(op, "a residual", *residual, sizes);
      check_kind(op, "a residual", *residual, input);
      after.addend = residual->contiguous(at::MemoryFormat::ChannelsLast);
    }
    after.low = static_cast<float>(low);
    after.high = static_cast<float>(high);
    return after;
  }

  const float* bias_at(int64_t channel) const { return at(bias, channel); }
  // Of an addend in float32.
  const float* addend_at(int64_t element) const { return at(addend, element); }

 private:
  static const float* at(const at::Tensor& tensor, int64_t element) {
    return tensor.defined() ? tensor.const_data_ptr<float>() + element : nullptr;
  }
};

}  // namespace cnngraph
