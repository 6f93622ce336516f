// Cuts tensors into tasks for the CPU loops, with their coefficients and sums. The cut depends only
// on the shape and sums are merged in its order, so results are bitwise equal for any number of
// threads.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "../cpu/range.h"
#include "../cpu/threads.h"
#include "batch_norm_act.h"
#include "coefficients.h"

namespace cnngraph {

const BatchNormActKernels& batch_norm_act_kernels();

inline constexpr int64_t bytes_of_task = 128 * 1024;
inline constexpr int64_t bytes_of_run = 16 * 1024;  // contiguous memory a task walks at a time
// Half of a typical last-level cache: nothing of a larger tensor is still cached when the next
// layer reads it.
inline constexpr int64_t least_bytes_to_stream = 16 * 1024 * 1024;
inline constexpr int64_t most_parts = 128;
inline constexpr int64_t least_rows_of_part = 32;
inline constexpr int64_t merge_grain = 32 * 1024;
inline constexpr int64_t most_folded_columns = 1024;

// How a tensor is cut. Parts cut the outer dimension: each has its own sums for every channel.
//
// channels_last with few channels, or an odd number of them: `fold` pixels form one row of
// fold * channels columns, so that rows fill whole vectors; the remaining pixels form one shorter
// row, the tail. Rows of many channels fill enough vectors without folding.
struct Cut {
  int64_t outer, columns, inner, fold = 1, tail = 0;
  int64_t x_stride, y_stride;  // of the input, and of the output or its gradient
  int64_t outer_of_part, parts, channels_of_run, runs;
  int64_t element_size;

  explicit Cut(const BatchNormArguments& call) : Cut(call, call.stride()) {}

  // The input may be a slice of channels, and so may the output, or its gradient.
  Cut(const BatchNormArguments& call, int64_t stride_of_output)
      : Cut(call.outer, call.channels, call.inner, call.input.element_size(),
            call.input_stride == call.stride() && stride_of_output == call.stride()) {
    if (call.input_stride != call.stride()) x_stride = call.input_stride;
    if (stride_of_output != call.stride()) y_stride = stride_of_output;
  }

  // The pixels of a tensor that is not dense are not adjacent and cannot be folded.
  Cut(int64_t outer_size, int64_t channels, int64_t inner_size, int64_t bytes, bool dense)
      : outer(outer_size), columns(channels), inner(inner_size), element_size(bytes) {
    if (inner == 1) {
      while (dense && (columns * fold % 16 != 0 || columns * fold < 64)) fold *= 2;
      if (outer < 16 * fold || columns * fold > most_folded_columns) fold = 1;
      tail = outer % fold * columns;
      outer /= fold;
      columns *= fold;
      const int64_t rows = std::max(bytes_of_task / (columns * element_size), least_rows_of_part);
      outer_of_part = std::max(rows, ceil_div(outer, most_parts));
      channels_of_run = columns;
    } else {
      const int64_t plane = inner * element_size;
      channels_of_run = std::clamp<int64_t>(ceil_div(bytes_of_run, plane), 1, columns);
      const int64_t samples = bytes_of_task / (channels_of_run * plane);
      outer_of_part = std::max({samples, ceil_div(outer, most_parts), int64_t{1}});
    }
    x_stride = y_stride = stride();
    parts = ceil_div(outer, outer_of_part);
    runs = ceil_div(columns, channels_of_run);
  }

  int64_t stride() const { return columns * inner; }

  // Whether stores to `tensor` bypass the caches.
  bool streams(const at::Tensor& tensor, int64_t stride_of_tensor) const {
    const auto whole = [](int64_t bytes) { return bytes % BatchNormActKernels::streams_by == 0; };
    return tensor.numel() * element_size >= least_bytes_to_stream &&
           whole(reinterpret_cast<intptr_t>(tensor.const_data_ptr())) &&
           whole(stride_of_tensor * element_size) &&
           whole((inner == 1 ? columns : inner) * element_size);
  }
  int64_t rows_of_sums() const { return parts * fold + (tail ? fold : 0); }
  int64_t channels() const { return columns / fold; }
};

struct Task {
  Block block;
  Block::Offset begin;  // of the block in the tensors
  int64_t column;       // of the block in the coefficients
  int64_t sums;         // of the block in the sums
  int64_t outer;        // its first outer index
};

// Calls body(task, scratch). `backwards` starts at the end, where a previous pass left the cache
// warm.
template <class Body>
void for_each_task(const Cut& cut, bool backwards, const Body& body) {
  const int64_t tasks = cut.parts * cut.runs + (cut.tail ? 1 : 0);
  share_out(tasks, [&](Tasks& shared) {
    std::unique_ptr<double[]> scratch(
        new double[BatchNormActKernels::scratch_per_channel * cut.channels_of_run]);
    shared.each([&](int64_t i) {
      const int64_t task = backwards ? tasks - 1 - i : i;
      const int64_t part = task / cut.runs, run = task % cut.runs;
      const int64_t outer = part * cut.outer_of_part, column = run * cut.channels_of_run;
      if (part == cut.parts) {
        const int64_t begin = cut.outer * cut.columns;
        body(Task{{1, cut.tail, 1, cut.tail, cut.tail, cut.tail},
                  {begin, begin, begin},
                  0,
                  part * cut.columns,
                  cut.outer},
             scratch.get());
        return;
      }
      const Block block = {std::min(cut.outer_of_part, cut.outer - outer),
                           std::min(cut.channels_of_run, cut.columns - column),
                           cut.inner,
                           cut.x_stride,
                           cut.y_stride,
                           cut.stride()};
      body(Task{block, block.offset(outer, column), column, part * cut.columns + column, outer},
           scratch.get());
    });
  });
}

// Two sums per channel and part.
class PartialSums {
 public:
  explicit PartialSums(const Cut& cut)
      : cut_(cut),
        size_(cut.rows_of_sums() * cut.channels()),
        values_(new double[2 * size_]),
        counts_(new double[cut.rows_of_sums()]) {
    int64_t row = 0;
    for (int64_t part = 0; part < cut.parts; ++part) {
      const int64_t outer = std::min(cut.outer_of_part, cut.outer - part * cut.outer_of_part);
      for (int64_t i = 0; i < cut.fold; ++i) {
        counts_[row++] = static_cast<double>(outer) * static_cast<double>(cut.inner);
      }
    }
    rows_ = row;
    for (int64_t i = 0; i < cut.tail / cut.channels(); ++i) counts_[rows_++] = 1;
  }

  double* first(const Task& task) { return values_.get() + task.sums; }
  double* second(const Task& task) { return values_.get() + size_ + task.sums; }

  void merge_statistics(double* mean, double* m2) const {
    over_channels([&](int64_t begin, int64_t end) {
      batch_norm_act_kernels().merge_statistics(
          rows_, end - begin, cut_.channels(), counts_.get(), values_.get() + begin,
          values_.get() + size_ + begin, mean + begin, m2 + begin);
    });
  }

  void add(double* first, double* second) const {
    over_channels([&](int64_t begin, int64_t end) {
      std::fill(first + begin, first + end, 0.0);
      std::fill(second + begin, second + end, 0.0);
      for (int64_t row = 0; row < rows_; ++row) {
        const double* values = values_.get() + row * cut_.channels();
        for (int64_t c = begin; c < end; ++c) {
          first[c] += values[c];
          second[c] += values[size_ + c];
        }
      }
    });
  }

 private:
  template <class Body>
  void over_channels(const Body& body) const {
    at::parallel_for(0, cut_.channels(), std::max<int64_t>(1, merge_grain / rows_), body);
  }

  const Cut& cut_;
  int64_t size_;
  std::unique_ptr<double[]> values_, counts_;
  int64_t rows_;
};

// The five coefficients of every column, in the type of computation.
template <class Scalar>
class CoefficientTable {
 public:
  CoefficientTable(const at::Tensor& weight, const at::Tensor& bias, const Cut& cut,
                   const at::Tensor& mean, const at::Tensor& var, double eps)
      : cut_(cut), values_(new Scalar[5 * cut.columns]), invstd_(new double[cut.channels()]) {
    const Scalar* means = mean.const_data_ptr<Scalar>();
    const Scalar* vars = var.const_data_ptr<Scalar>();
    const Scalar* weights = weight.defined() ? weight.const_data_ptr<Scalar>() : nullptr;
    const Scalar* biases = bias.defined() ? bias.const_data_ptr<Scalar>() : nullptr;
    for (int64_t c = 0; c < cut.channels(); ++c) {
      invstd_[c] = inverse_std(vars[c], eps);
      row(0)[c] = means[c];
      row(1)[c] = scale_of(weights, c, invstd_[c]);
      row(2)[c] = shift_of(biases, c);
    }
    for (int i = 0; i < 3; ++i) repeat(row(i));
  }

  double invstd(int64_t channel) const { return invstd_[channel]; }

  void set_gradient(const double* sum_dz, const double* sum_dz_x, double count) {
    for (int64_t c = 0; c < cut_.channels(); ++c) {
      const auto terms = gradient_terms(row(1)[c], invstd_[c], sum_dz[c], sum_dz_x[c], count);
      row(3)[c] = static_cast<Scalar>(terms.slope);
      row(4)[c] = static_cast<Scalar>(terms.offset);
    }
    repeat(row(3));
    repeat(row(4));
  }
  // For fixed statistics: an affine map.
  void set_gradient_of_affine() { std::fill(row(3), row(3) + 2 * cut_.columns, Scalar(0)); }

  Coefficients from(const Task& task) const {
    const auto at = [&](int i) { return values_.get() + i * cut_.columns + task.column; };
    return {at(0), at(1), at(2), at(3), at(4)};
  }

 private:
  Scalar* row(int i) { return values_.get() + i * cut_.columns; }
  void repeat(Scalar* values) {
    for (int64_t i = 1; i < cut_.fold; ++i) {
      std::copy_n(values, cut_.channels(), values + i * cut_.channels());
    }
  }

  const Cut& cut_;
  std::unique_ptr<Scalar[]> values_;
  std::unique_ptr<double[]> invstd_;
};

// Null for an undefined tensor.
inline const char* at_element(const at::Tensor& tensor, int64_t element) {
  if (!tensor.defined()) return nullptr;
  return static_cast<const char*>(tensor.const_data_ptr()) + element * tensor.element_size();
}

inline char* at_mutable_element(const at::Tensor& tensor, int64_t element) {
  if (!tensor.defined()) return nullptr;
  return static_cast<char*>(tensor.mutable_data_ptr()) + element * tensor.element_size();
}

// The mean and the biased variance of every channel.
template <class Scalar>
Statistics statistics_of_batch(const BatchNormArguments& call, const Cut& cut) {
  const DataType data_type = call.data_type;
  PartialSums sums(cut);
  for_each_task(cut, false, [&](const Task& task, double* scratch) {
    batch_norm_act_kernels().statistics(data_type, at_element(call.input, task.begin.x), task.block,
                                        sums.first(task), sums.second(task), scratch);
  });
  const int64_t channels = call.channels;
  std::unique_ptr<double[]> merged(new double[2 * channels]);
  sums.merge_statistics(merged.get(), merged.get() + channels);
  const auto options = call.input.options().dtype(call.compute_type);
  at::Tensor mean = at::empty({channels}, options), var = at::empty({channels}, options);
  const double count = static_cast<double>(call.values_per_channel());
  Scalar* means = mean.mutable_data_ptr<Scalar>();
  Scalar* vars = var.mutable_data_ptr<Scalar>();
  for (int64_t c = 0; c < channels; ++c) {
    means[c] = static_cast<Scalar>(merged[c]);
    vars[c] = static_cast<Scalar>(merged[channels + c] / count);
  }
  return {mean, var};
}

}  // namespace cnngraph
