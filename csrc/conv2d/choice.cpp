#include "choice.h"

#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>

#include "../cpu/capability.h"
#include "../cpu/range.h"
#include "weight_gradient.h"

namespace cnngraph {
namespace {

constexpr int64_t any = std::numeric_limits<int64_t>::max();
// Sets of results.
constexpr unsigned outputs = 1, constant_outputs = 2, input_gradients = 4, weight_gradients = 8;

// A kernel is used for a result if everything fits.
struct Rule {
  ConvKernel kernel;
  unsigned results;
  int64_t least_channels = 1;  // of the input and of the output
  int64_t least_summed = 1;    // of the channels that each result sums
  int64_t least_positions = 1, most_positions = any;
  double least_saving = 1;  // Winograd: of multiplications, see `saving`
};

// The first rule that fits chooses the kernel; the library computes the rest. `bench-kernels`
// measures these choices again. Figures: GFLOP/s of the library and of ours, counted as a direct
// sum, with two threads and batch 16.

// AVX2 (Zen 3), float32.
constexpr Rule avx2[] = {
    // 16 rows, 9216 to 4096: output 43 and 110, input gradient 44 and 82, weight gradient 77
    // and 89.
    {ConvKernel::rows, outputs | input_gradients | weight_gradients, 1, 1, 2, 32},
    // 128 to 128 at 28x28: output 193 and 485, input gradient 182 and 469; 256 to 256 at 14x14: 184
    // and 309, 185 and 405; 512 to 512 at 7x7: 187 and 248, 191 and 278. With fewer summed
    // channels,
    // errors are more than twice the library's: 2.2 for outputs of 64 channels after a ReLU, 1.7 of
    // 96; 1.8 for input gradients of 64, 2.0 of 32.
    {ConvKernel::winograd_4x4, outputs, 16, 96, 192, any, 1.3},
    {ConvKernel::winograd_4x4, constant_outputs, 16, 96, 96, any, 1.3},
    {ConvKernel::winograd_4x4, input_gradients, 16, 64, 192, any, 1.3},
    // 64 to 64 at 56x56: 93 and 231; 256 to 256 at 14x14: 127 and 316; 512 to 512 at 7x7: 117 and
    // 190.
    {ConvKernel::winograd_4x4, weight_gradients, 32, 1, 192, any, 1.3},
    // 64 to 64 at 56x56: output 186 and 268, input gradient 163 and 227.
    {ConvKernel::winograd_2x2, outputs | input_gradients, 16, 1, 192},
    {ConvKernel::winograd_2x2, constant_outputs, 16, 1, 96},
    {ConvKernel::winograd_2x2, weight_gradients, 32, 1, 192},
    // 64 to 64 at 56x56: output 148 and 157, input gradient 142 and 154; 512 to 2048 at 7x7: 174
    // and 181, 162 and 175. Some are equal within the noise of 5%.
    {ConvKernel::pointwise, outputs | input_gradients, 32, 1, 128},
    // 3x3 with stride 2, 128 to 128 at 56x56: 84 and 155; 7x7 with stride 2, 3 to 64: 97 and 130;
    // 1x1, 1024 to 256 at 14x14: 123 and 159.
    {ConvKernel::packed, weight_gradients, 1, 1, 128},
};

// AVX-512 (a Xeon with AMX), float32.
constexpr Rule avx512[] = {
    {ConvKernel::rows, outputs | input_gradients | weight_gradients, 1, 1, 2, 32},
    // Tiles of 4x4 have not been measured here; they need 0.44 to 0.77 of the multiplications.
    {ConvKernel::winograd_4x4, outputs, 16, 96, 192, any, 1.3},
    {ConvKernel::winograd_4x4, constant_outputs, 16, 96, 96, any, 1.3},
    {ConvKernel::winograd_4x4, input_gradients, 16, 64, 192, any, 1.3},
    {ConvKernel::winograd_4x4, weight_gradients, 32, 1, 192, any, 1.3},
    // 64 to 64 at 56x56: output 441 and 576, input gradient 405 and 543, weight gradient 403 and
    // 424; 256 to 256 at 14x14: 463 and 623, 454 and 604, 372 and 512. At 7x7, where tiles cover
    // much padding, the output of 512 to 512 loses (349 and 325).
    {ConvKernel::winograd_2x2, outputs, 16, 1, 192, any, 2},
    {ConvKernel::winograd_2x2, constant_outputs, 16, 1, 96, any, 2},
    {ConvKernel::winograd_2x2, input_gradients, 16, 1, 192},
    {ConvKernel::winograd_2x2, weight_gradients, 32, 1, 192},
    // 1x1 kernels lose: output 358 and 262 (64 to 64 at 56x56) to 426 and 378 (1024 to 256 at
    // 14x14), input gradient 355 and 253 (256 to 64 at 56x56), weight gradient 311 and 220. Few
    // positions gain: weight gradient 221 and 254 (2048 to 512 at 7x7).
    {ConvKernel::packed, weight_gradients, 32, 1, 128, 1000},
};

// bfloat16 on processors where libraries only have scalar loops for it.
constexpr Rule slow_bfloat16[] = {
    {ConvKernel::rows, outputs | input_gradients | weight_gradients},
    {ConvKernel::winograd_4x4, outputs, 16, 96, 192, any, 1.3},
    {ConvKernel::winograd_4x4, input_gradients, 16, 64, 192, any, 1.3},
    {ConvKernel::winograd_4x4, weight_gradients, 32, 1, 192, any, 1.3},
    {ConvKernel::winograd_2x2, outputs | input_gradients, 16, 1, 192},
    {ConvKernel::winograd_2x2, weight_gradients, 32, 1, 192},
    {ConvKernel::packed, weight_gradients, 1, 1, 128},
};

// bfloat16 on AVX-512 without instructions for it, which the library emulates.
constexpr Rule emulated_bfloat16[] = {{ConvKernel::packed, weight_gradients, 1, 1, 128}};

// Where the processor multiplies bfloat16, with or without AMX, the library computes it: outputs at
// 1,200 to 4,300 GFLOP/s, weight gradients at 320 to 1,960. So it does everything on arm64, where
// nothing was measured.
c10::ArrayRef<Rule> rules_for(c10::ScalarType type) {
#if defined(__x86_64__)
  const bool wide = cpu_capability() == CpuCapability::avx512;
  if (type == c10::kFloat) {
    return wide ? c10::ArrayRef<Rule>(avx512) : c10::ArrayRef<Rule>(avx2);
  }
  if (type == c10::kBFloat16 && bfloat16_is_slow()) return slow_bfloat16;
  if (type == c10::kBFloat16 && !multiplies_bfloat16()) return emulated_bfloat16;
#endif
  return {};
}

unsigned set_of(ConvResult result) { return 1u << static_cast<unsigned>(result); }

// The multiplications of a direct sum over those of 2x2 tiles, or those of 2x2 tiles over those of
// 4x4 tiles.
double saving(ConvKernel kernel, const ConvSizes& sizes) {
  const auto [height, width] = sizes.output;
  const auto products = [&, height = height, width = width](int64_t tile) {
    return ceil_div(height, tile) * ceil_div(width, tile) * (tile + 2) * (tile + 2);
  };
  const bool small = kernel == ConvKernel::winograd_2x2;
  return static_cast<double>(small ? 9 * height * width : products(2)) /
         static_cast<double>(products(small ? 2 : 4));
}

bool fits(const Rule& rule, ConvResult result, const ConvSizes& sizes) {
  const int64_t summed = result == ConvResult::output || result == ConvResult::constant_output
                             ? sizes.in_channels
                             : sizes.out_channels;
  const int64_t positions = sizes.positions();
  if (!(rule.results & set_of(result)) || summed < rule.least_summed ||
      std::min(sizes.in_channels, sizes.out_channels) < rule.least_channels ||
      positions < rule.least_positions || positions > rule.most_positions) {
    return false;
  }
  switch (rule.kernel) {
    case ConvKernel::winograd_2x2:
    case ConvKernel::winograd_4x4:
      return saving(rule.kernel, sizes) >= rule.least_saving;
    case ConvKernel::packed:
      return weight_gradient_fills_tiles(sizes);
    default:
      return true;
  }
}

// oneDNN's weight gradient of strided 1x1 kernels occasionally never returns.
bool library_hangs(ConvResult result, const ConvSizes& sizes) {
  const auto [vertical, horizontal] = sizes.geometry.stride;
  return result == ConvResult::weight_gradient && sizes.kernel == std::array<int64_t, 2>{1, 1} &&
         std::max(vertical, horizontal) > 1;
}

constexpr std::pair<ConvKernel, const char*> kernel_names[] = {
    {ConvKernel::library, "library"},           {ConvKernel::rows, "rows"},
    {ConvKernel::winograd_2x2, "winograd_2x2"}, {ConvKernel::winograd_4x4, "winograd_4x4"},
    {ConvKernel::pointwise, "pointwise"},       {ConvKernel::packed, "packed"},
};
constexpr std::pair<ConvResult, const char*> result_names[] = {
    {ConvResult::output, "output"},
    {ConvResult::constant_output, "constant_output"},
    {ConvResult::input_gradient, "input_gradient"},
    {ConvResult::weight_gradient, "weight_gradient"},
};

template <class Names>
auto named(const Names& names, std::string_view wanted) {
  for (const auto& [value, name] : names) {
    if (name == wanted) return value;
  }
  TORCH_CHECK(false, "unknown name ", wanted);
}

}  // namespace

const char* name_of(ConvKernel kernel) { return kernel_names[static_cast<size_t>(kernel)].second; }
ConvKernel conv_kernel_of(const char* name) { return named(kernel_names, name); }
ConvResult conv_result_of(const char* name) { return named(result_names, name); }

bool supports(ConvKernel kernel, ConvResult result, const ConvSizes& sizes, c10::ScalarType type) {
  if (kernel == ConvKernel::library) return true;
  using Pair = std::array<int64_t, 2>;
  const auto& [stride, padding, dilation, groups] = sizes.geometry;
  const bool is_float = type == c10::kFloat;
  if (groups != 1 || sizes.positions() == 0 || !(is_float || type == c10::kBFloat16)) return false;
  const bool unit = sizes.kernel == Pair{1, 1} && stride == Pair{1, 1} && padding == Pair{0, 0};
  switch (kernel) {
    case ConvKernel::rows:
      return unit && sizes.input == Pair{1, 1} && result != ConvResult::constant_output;
    case ConvKernel::winograd_2x2:
    case ConvKernel::winograd_4x4:
      return sizes.kernel == Pair{3, 3} && stride == Pair{1, 1} && dilation == Pair{1, 1} &&
             std::max(padding[0], padding[1]) <= 2;
    case ConvKernel::pointwise:
      return unit && is_float &&
             (result == ConvResult::output || result == ConvResult::input_gradient);
    default:
      return result == ConvResult::weight_gradient;
  }
}

ConvKernel choose_kernel(ConvResult result, const ConvSizes& sizes, c10::ScalarType type,
                         bool channels_last) {
  for (const Rule& rule : rules_for(type)) {
    if ((channels_last || rule.kernel == ConvKernel::rows) && fits(rule, result, sizes) &&
        supports(rule.kernel, result, sizes, type)) {
      return rule.kernel;
    }
  }
  const bool packs = library_hangs(result, sizes) &&
                     supports(ConvKernel::packed, result, sizes, type) &&
                     (type == c10::kFloat || !multiplies_bfloat16());
  return packs ? ConvKernel::packed : ConvKernel::library;
}

}  // namespace cnngraph
