// The loops of linear layers over few rows, compiled once per capability. The weight is read (or
// its gradient written) once and in order; the other operand stays in the cache.
#pragma once

#include "../cpu/vector.h"
#include "linear_kernels.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {
namespace {

constexpr int lanes = Memory<float>::lanes;
constexpr int tile_rows = 4;
constexpr int tile_vectors = 3;
constexpr int tile_outputs = 3;
constexpr int64_t inputs_of_block = 1024;
constexpr int64_t columns_of_block = 20 * tile_vectors * lanes;
constexpr int64_t terms_of_block = 16;

// Rows or outputs past the last repeat the last; their sums are not written.
template <class Element>
CNNGRAPH_INLINE void dot_products(const float* x, const Element* weight, int64_t row, int64_t rows,
                                  int64_t output, int64_t last_output, int64_t inputs,
                                  int64_t outputs, Range block, float* to) {
  const float* from_x[tile_rows];
  const Element* from_weight[tile_outputs];
  for (int r = 0; r < tile_rows; ++r) from_x[r] = x + smaller(row + r, rows - 1) * inputs;
  for (int o = 0; o < tile_outputs; ++o) {
    from_weight[o] = weight + smaller(output + o, last_output) * inputs;
  }
  // Each tile prefetches a row of the weight for the next outputs.
  const Element* ahead =
      weight + (output + tile_outputs + smaller(row / tile_rows, tile_outputs - 1)) * inputs;
  Floats sums[tile_rows][tile_outputs] = {};
  const auto add = [&](auto wide, auto extent, int64_t i) CNNGRAPH_LAMBDA_INLINE {
    Floats weights[tile_outputs];
#pragma GCC unroll 3
    for (int o = 0; o < tile_outputs; ++o) weights[o] = extent.load(from_weight[o] + i);
#pragma GCC unroll 4
    for (int r = 0; r < tile_rows; ++r) {
      const Floats value = wide.load(from_x[r] + i);
#pragma GCC unroll 3
      for (int o = 0; o < tile_outputs; ++o) sums[r][o] += value * weights[o];
    }
  };
  int64_t i = block.begin;
  for (; i + lanes <= block.end; i += lanes) {
    __builtin_prefetch(ahead + i);
    add(Whole<float>{}, Whole<Element>{}, i);
  }
  if (i < block.end) add(Part<float>{block.end - i}, Part<Element>{block.end - i}, i);
  for (int r = 0; r < tile_rows && row + r < rows; ++r) {
    for (int o = 0; o < tile_outputs && output + o <= last_output; ++o) {
      to[(row + r) * outputs + output + o] += static_cast<float>(sum_of_lanes(sums[r][o]));
    }
  }
}

template <class Element>
void multiply_transposed(const float* x, const Element* weight, int64_t rows, int64_t inputs,
                         int64_t outputs, Range some_outputs, float* to) {
  for (int64_t begin = 0; begin < inputs; begin += inputs_of_block) {
    const Range block{begin, smaller(begin + inputs_of_block, inputs)};
    for (int64_t output = some_outputs.begin; output < some_outputs.end; output += tile_outputs) {
      for (int64_t row = 0; row < rows; row += tile_rows) {
        dot_products(x, weight, row, rows, output, some_outputs.end - 1, inputs, outputs, block,
                     to);
      }
    }
  }
}

// Rows of memory that later tiles will touch, each as wide as a tile.
struct Ahead {
  const char* first;
  int64_t row_bytes;
  int64_t rows;
  bool written;

  CNNGRAPH_INLINE void fetch(int64_t bytes_before) const {
    for (int64_t row = 0; row < rows; ++row) {
      const char* from = first + row * row_bytes + bytes_before;
      for (int64_t line = 0; line < tile_vectors * CNNGRAPH_VECTOR_BYTES; line += 64) {
        if (written) {
          __builtin_prefetch(from + line, 1);
        } else {
          __builtin_prefetch(from + line);
        }
      }
    }
  }
};

// A tile of the product over some of the terms, added to `to` if `add`. `Extent` and `MatrixExtent`
// cover the parts of a vector that are in memory.
template <int vectors, class Extent, class MatrixExtent, class Matrix, class To>
CNNGRAPH_INLINE void tile_of_product(Extent extent, MatrixExtent matrix_extent, Factor factor,
                                     const Matrix* matrix, int64_t row, int64_t last_row,
                                     int64_t column, int64_t columns, Range terms, bool add,
                                     To* to) {
  const float* from[tile_rows];
  for (int r = 0; r < tile_rows; ++r) {
    from[r] = factor.data + smaller(row + r, last_row) * factor.row_stride;
  }
  Floats sums[tile_rows][vectors] = {};
  for (int64_t term = terms.begin; term < terms.end; ++term) {
    const Matrix* values = matrix + term * columns + column;
    Floats right[vectors];
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) right[v] = matrix_extent.load(values + v * lanes);
#pragma GCC unroll 4
    for (int r = 0; r < tile_rows; ++r) {
      const float left = from[r][term * factor.column_stride];
#pragma GCC unroll 3
      for (int v = 0; v < vectors; ++v) sums[r][v] += left * right[v];
    }
  }
  for (int r = 0; r < tile_rows && row + r <= last_row; ++r) {
    To* result = to + (row + r) * columns + column;
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) {
      const Floats before = add ? extent.load(result + v * lanes) : Floats{};
      extent.store(result + v * lanes, before + sums[r][v]);
    }
  }
}

template <int vectors>
struct Vectors {
  static constexpr int count = vectors;
};

// Either the matrix that is read or the result is too large for the cache: its next block is
// prefetched, a part with each row of tiles.
template <bool reads, class Matrix, class To>
void block_of_product(Factor factor, const Matrix* matrix, Range rows, int64_t columns, Range block,
                      Range terms, To* to) {
  const int64_t row_tiles = ceil_div(rows.end - rows.begin, tile_rows);
  const int64_t share = ceil_div(terms_of_block, row_tiles);
  for (int64_t row = rows.begin; row < rows.end; row += tile_rows) {
    const int64_t next = terms.end + (row - rows.begin) / tile_rows * share;
    const Ahead ahead = reads
                            ? Ahead{reinterpret_cast<const char*>(matrix + next * columns),
                                    columns * int64_t{sizeof(Matrix)}, share, false}
                            : Ahead{reinterpret_cast<const char*>(to + (row + tile_rows) * columns),
                                    columns * int64_t{sizeof(To)}, tile_rows, true};
    const auto tile = [&](auto vectors, auto extent, auto matrix_extent,
                          int64_t column) CNNGRAPH_LAMBDA_INLINE {
      ahead.fetch(column * (reads ? sizeof(Matrix) : sizeof(To)));
      tile_of_product<vectors.count>(extent, matrix_extent, factor, matrix, row, rows.end - 1,
                                     column, columns, terms, /*add=*/reads, to);
    };
    int64_t column = block.begin;
    for (; column + tile_vectors * lanes <= block.end; column += tile_vectors * lanes) {
      tile(Vectors<tile_vectors>{}, Whole<To>{}, Whole<Matrix>{}, column);
    }
    for (; column + lanes <= block.end; column += lanes) {
      tile(Vectors<1>{}, Whole<To>{}, Whole<Matrix>{}, column);
    }
    const int64_t rest = block.end - column;
    if (rest > 0) tile(Vectors<1>{}, Part<To>{rest}, Part<Matrix>{rest}, column);
  }
}

template <class Element>
void multiply(Factor factor, const Element* matrix, int64_t rows, int64_t terms, int64_t columns,
              Range some_columns, float* to) {
  for (int64_t column = some_columns.begin; column < some_columns.end; column += columns_of_block) {
    const Range block{column, smaller(column + columns_of_block, some_columns.end)};
    for (int64_t term = 0; term < terms; term += terms_of_block) {
      block_of_product<true>(factor, matrix, Range{0, rows}, columns, block,
                             Range{term, smaller(term + terms_of_block, terms)}, to);
    }
  }
}

template <class Element>
void outer_product(Factor factor, const float* matrix, Range some_rows, int64_t terms,
                   int64_t columns, Element* to) {
  for (int64_t column = 0; column < columns; column += columns_of_block) {
    block_of_product<false>(factor, matrix, some_rows, columns,
                            Range{column, smaller(column + columns_of_block, columns)},
                            Range{0, terms}, to);
  }
}

void multiply_transposed_of_type(DataType type, const float* x, const void* weight, int64_t rows,
                                 int64_t inputs, int64_t outputs, Range some_outputs, float* to) {
  with_float_or_bfloat16(type, [&]<class Element>(Element) {
    multiply_transposed(x, static_cast<const Element*>(weight), rows, inputs, outputs, some_outputs,
                        to);
  });
}

void multiply_of_type(DataType type, Factor factor, const void* matrix, int64_t rows, int64_t terms,
                      int64_t columns, Range some_columns, float* to) {
  with_float_or_bfloat16(type, [&]<class Element>(Element) {
    multiply(factor, static_cast<const Element*>(matrix), rows, terms, columns, some_columns, to);
  });
}

void outer_product_of_type(DataType type, Factor factor, const float* matrix, Range some_rows,
                           int64_t terms, int64_t columns, void* to) {
  with_float_or_bfloat16(type, [&]<class Element>(Element) {
    outer_product(factor, matrix, some_rows, terms, columns, static_cast<Element*>(to));
  });
}

}  // namespace

extern const LinearKernels linear = {
    multiply_transposed_of_type,
    multiply_of_type,
    outer_product_of_type,
};

}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
