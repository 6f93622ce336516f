#include "choice.h"

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

using enum ConvKernel;

// An instruction set and a data type.
enum Arithmetic : unsigned {
  avx2 = 1,               // float32 on AVX2 or less, measured on a Zen 3
  avx512 = 2,             // float32 on AVX-512, measured on a Xeon
  scalar_bfloat16 = 4,    // where libraries only have scalar loops for bfloat16
  emulated_bfloat16 = 8,  // on AVX-512 without instructions for bfloat16: emulated
  float32 = avx2 | avx512,
};

// Sets of results.
enum Results : unsigned {
  outputs = 1,
  constant_outputs = 2,
  input_gradients = 4,
  weight_gradients = 8,
  of_training = outputs | input_gradients | weight_gradients,
};

constexpr int64_t any = std::numeric_limits<int64_t>::max();

// A kernel is used for a result if everything fits.
struct Rule {
  unsigned arithmetic;
  ConvKernel kernel;
  unsigned results;
  int64_t channels;      // the fewest of the input and of the output
  int64_t summed;        // the fewest channels that each result sums
  int64_t from, to;      // the fewest and most pixels of all maps of results
  double saving = 1;     // Winograd: the least of multiplications, see below
  int64_t macs = any;    // the most multiply-accumulates
  int64_t stride = any;  // the largest
};

// The first rule that fits chooses the kernel; the library computes the rest. `bench-kernels`
// measures these choices again. Figures: GFLOP/s of the library and of ours, counted as a direct
// sum, with two threads and batch 16, on AVX2 unless they are marked.

// clang-format off
constexpr Rule rules[] = {
    // arithmetic               kernel        results    channels summed from to saving macs stride
    // 16 rows, 9216 to 4096: output 43 and 110, input gradient 44 and 82, weight gradient 77 and
    // 89.
    {float32,                   rows,         of_training,       1,  1,   2,  32},
    {scalar_bfloat16,           rows,         of_training,       1,  1,   1, any},
    // With fewer summed channels, errors are more than twice the library's: 2.2 times for outputs
    // of 64 channels after a ReLU, 1.7 of 96; 1.8 for input gradients of 64, 2.0 of 32.
    // 128 to 128 at 28x28: output 193 and 485, input gradient 182 and 469; 256 to 256 at 14x14: 184
    // and 309, 185 and 405; 512 to 512 at 7x7: 187 and 248, 191 and 278. Weight gradients: 64 to 64
    // at 56x56 93 and 231, 256 to 256 at 14x14 127 and 316. Not measured on AVX-512, where they
    // need 0.56 to 0.77 of the multiplications of 2x2 tiles.
    {float32 | scalar_bfloat16, winograd_4x4, outputs,          16, 96, 192, any, 1.3},
    {float32,                   winograd_4x4, constant_outputs, 16, 96,  96, any, 1.3},
    {float32 | scalar_bfloat16, winograd_4x4, input_gradients,  16, 64, 192, any, 1.3},
    {float32 | scalar_bfloat16, winograd_4x4, weight_gradients, 32,  1, 192, any, 1.3},
    // 64 to 64 at 56x56: output 186 and 268, input gradient 163 and 227; on AVX-512 441 and 576,
    // 405 and 543, weight gradient 403 and 424. At 7x7, where tiles cover much padding, the output
    // of 512 to 512 loses there (349 and 325).
    {avx2 | scalar_bfloat16,    winograd_2x2, outputs,          16,  1, 192, any},
    {avx2,                      winograd_2x2, constant_outputs, 16,  1,  96, any},
    {avx512,                    winograd_2x2, outputs,          16,  1, 192, any, 2},
    {avx512,                    winograd_2x2, constant_outputs, 16,  1,  96, any, 2},
    {float32 | scalar_bfloat16, winograd_2x2, input_gradients,  16,  1, 192, any},
    {float32 | scalar_bfloat16, winograd_2x2, weight_gradients, 32,  1, 192, any},
    // 64 to 64 at 56x56: output 148 and 157, input gradient 142 and 154; 512 to 2048 at 7x7: 174
    // and 181, 162 and 175. Some are equal within the noise of 5%. On AVX-512 they lose: output 358
    // and 262 (64 to 64 at 56x56) to 426 and 378 (1024 to 256 at 14x14), input gradient 355 and
    // 253.
    {avx2,                      pointwise,    outputs,          32,  1, 128, any},
    {avx2,                      pointwise,    input_gradients,  32,  1, 128, any},
    // A call alone takes the library 45 to 110 us. With a bias and ReLU6: 144 to 32 at 28x28 67 and
    // 129 (batch 1), 159 and 165 (batch 16).
    {float32,                   pointwise,    constant_outputs,  8,  1,   1, any, 1, 30'000'000},
    // ms of a 3x3 with ReLU6, batch 16: 144 at 56x56 4.8 and 3.6, 192 at 28x28 1.7 and 1.0. With
    // stride 2, the library is faster at large maps: 96 at 112x112 4.6 and 6.3.
    {avx2,                      depthwise,    constant_outputs,  1,  1,   1, any, 1, any, 1},
    {float32,                   depthwise,    constant_outputs,  1,  1,   1, any, 1, 2'000'000},
    // 3x3 with stride 2, 128 to 128 at 56x56: 84 and 155; 7x7 with stride 2, 3 to 64: 97 and 130;
    // 1x1, 1024 to 256 at 14x14: 123 and 159. On AVX-512 few positions gain: 221 and 254 (2048 to
    // 512 at 7x7), but 311 and 220 (256 to 64 at 56x56).
    {avx2 | scalar_bfloat16,    packed,       weight_gradients,  1,  1, 128, any},
    {emulated_bfloat16,         packed,       weight_gradients,  1,  1, 128, any},
    {avx512,                    packed,       weight_gradients, 32,  1, 128, 1000},
};
// clang-format on

// None if the library computes everything: where the processor multiplies bfloat16, with or without
// AMX (outputs at 1,200 to 4,300 GFLOP/s, weight gradients at 320 to 1,960), and on arm64, where
// nothing was measured.
unsigned arithmetic_here(c10::ScalarType type) {
#if defined(__x86_64__)
  if (type == c10::kFloat) return cpu_capability() == CpuCapability::avx512 ? avx512 : avx2;
  if (type == c10::kBFloat16 && bfloat16_is_slow()) return scalar_bfloat16;
  if (type == c10::kBFloat16 && !multiplies_bfloat16()) return emulated_bfloat16;
#endif
  return 0;
}

constexpr std::pair<Arithmetic, const char*> arithmetic_names[] = {
    {avx2, "avx2"},
    {avx512, "avx512"},
    {scalar_bfloat16, "scalar_bfloat16"},
    {emulated_bfloat16, "emulated_bfloat16"},
};

unsigned set_of(ConvResult result) { return 1u << static_cast<unsigned>(result); }

// The multiplications of a direct sum over those of 2x2 tiles, or those of 2x2 tiles over those of
// 4x4 tiles.
double saving(ConvKernel kernel, const ConvSizes& sizes) {
  const auto [height, width] = sizes.output;
  const auto products = [&, height = height, width = width](int64_t tile) {
    return ceil_div(height, tile) * ceil_div(width, tile) * (tile + 2) * (tile + 2);
  };
  const bool small = kernel == winograd_2x2;
  return static_cast<double>(small ? 9 * height * width : products(2)) /
         static_cast<double>(products(small ? 2 : 4));
}

bool fits(const Rule& rule, ConvResult result, const ConvSizes& sizes) {
  const int64_t summed = result == ConvResult::output || result == ConvResult::constant_output
                             ? sizes.in_channels
                             : sizes.out_channels;
  const int64_t positions = sizes.positions();
  if (!(rule.results & set_of(result)) || summed < rule.summed ||
      std::min(sizes.in_channels, sizes.out_channels) < rule.channels || positions < rule.from ||
      positions > rule.to || sizes.macs() > rule.macs ||
      std::max(sizes.geometry.stride[0], sizes.geometry.stride[1]) > rule.stride) {
    return false;
  }
  switch (rule.kernel) {
    case winograd_2x2:
    case winograd_4x4:
      return saving(rule.kernel, sizes) >= rule.saving;
    case packed:
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
    {library, "library"},           {rows, "rows"},           {winograd_2x2, "winograd_2x2"},
    {winograd_4x4, "winograd_4x4"}, {pointwise, "pointwise"}, {packed, "packed"},
    {depthwise, "depthwise"},
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
  if (kernel == library) return true;
  using Pair = std::array<int64_t, 2>;
  const auto& [stride, padding, dilation, groups] = sizes.geometry;
  const bool is_float = type == c10::kFloat;
  if (kernel == depthwise) {
    return result == ConvResult::constant_output && is_float && groups > 1 &&
           groups == sizes.in_channels && groups == sizes.out_channels;
  }
  if (groups != 1 || sizes.positions() == 0 || !(is_float || type == c10::kBFloat16)) return false;
  const bool unit = sizes.kernel == Pair{1, 1} && stride == Pair{1, 1} && padding == Pair{0, 0};
  switch (kernel) {
    case rows:
      return unit && sizes.input == Pair{1, 1} && result != ConvResult::constant_output;
    case winograd_2x2:
    case winograd_4x4:
      return sizes.kernel == Pair{3, 3} && stride == Pair{1, 1} && dilation == Pair{1, 1} &&
             std::max(padding[0], padding[1]) <= 2;
    case pointwise:
      return unit && is_float && result != ConvResult::weight_gradient;
    default:
      return result == ConvResult::weight_gradient;
  }
}

ConvKernel choose_kernel(ConvResult result, const ConvSizes& sizes, c10::ScalarType type,
                         bool channels_last, const char* arithmetic) {
  const unsigned used =
      arithmetic == nullptr ? arithmetic_here(type) : named(arithmetic_names, arithmetic);
  for (const Rule& rule : rules) {
    if ((rule.arithmetic & used) && (channels_last || rule.kernel == rows) &&
        fits(rule, result, sizes) && supports(rule.kernel, result, sizes, type)) {
      return rule.kernel;
    }
  }
  const bool packs = library_hangs(result, sizes) && supports(packed, result, sizes, type) &&
                     (type == c10::kFloat || !multiplies_bfloat16());
  return packs ? packed : library;
}

}  // namespace cnngraph
