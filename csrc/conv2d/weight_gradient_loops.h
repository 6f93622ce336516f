// The loops of a convolution's weight gradient, compiled once per capability: a product of two maps
// summed over positions, one tile at a time in registers. Both operands are packed first, so that
// the product reads memory in order for any channels, strides and padding.
#pragma once

#include "tile_of_sums.h"
#include "weight_gradient_kernels.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {
namespace {

// As many channels as 16 registers can sum. AVX-512 has 32, but 8 channels are enough to hide the
// latency of an addition, and they divide the usual numbers of channels.
constexpr int tile_height = CNNGRAPH_VECTOR_BYTES == 64 ? 8 : 6;

template <int width, class Element>
CNNGRAPH_INLINE void copy_part(const Element* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    Floats one = Memory<Element>::load(from + i, 1, 0);
    to[i] = one[0];
  }
  for (int64_t i = count; i < width; ++i) to[i] = 0;
}

template <int width, class Element>
void pack(const Element* row, RowOfMap map, float* panels, int64_t panel_stride) {
  constexpr int vectors = (width + lanes - 1) / lanes;
  const int64_t whole = map.channels / width, rest = map.channels % width;
  for (int64_t position = 0; position < map.positions; ++position) {
    const int64_t begin = map.first + position * map.step;
    float* to = panels + position * width;
    if (begin >= 0 && begin + map.channels <= map.elements) {
      const Element* from = row + begin;
      // Whole vectors if they end within the row; the next panel overwrites what is too much.
      const int64_t rest_of_row = map.elements - begin - vectors * lanes;
      const int64_t readable = rest_of_row < 0 ? 0 : rest_of_row / width + 1;
      const int64_t fast = readable < whole ? readable : whole;
      int64_t panel = 0;
      for (; panel < fast; ++panel, from += width, to += panel_stride) {
        for (int v = 0; v < vectors; ++v) {
          Memory<float>::store(to + v * lanes, Memory<Element>::load(from + v * lanes));
        }
      }
      for (; panel < whole; ++panel, from += width, to += panel_stride) {
        copy_part<width>(from, width, to);
      }
      if (rest) copy_part<width>(from, rest, to);
      continue;
    }
    for (int64_t channel = 0; channel < map.channels; channel += width, to += panel_stride) {
      for (int64_t i = 0; i < width; ++i) {
        const int64_t at = begin + channel + i;
        const bool inside = channel + i < map.channels && at >= 0 && at < map.elements;
        to[i] = inside ? Memory<Element>::load(row + at, 1, 0)[0] : 0;
      }
    }
  }
}

template <int width>
void pack_of_type(DataType type, const void* row, RowOfMap map, float* panels,
                  int64_t panel_stride) {
  with_float_or_bfloat16(type, [&]<class Element>(Element) {
    pack<width>(static_cast<const Element*>(row), map, panels, panel_stride);
  });
}

struct Tile {
  Floats sums[tile_height][vectors_of_tile] = {};
  float* memory;
  bool add;

  CNNGRAPH_INLINE void flush() {
#pragma GCC unroll 8
    for (int i = 0; i < tile_height; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < vectors_of_tile; ++v) {
        float* to = memory + i * tile_width + v * lanes;
        Memory<float>::store(to, add ? Memory<float>::load(to) + sums[i][v] : sums[i][v]);
        sums[i][v] = Floats{};
      }
    }
    add = true;
  }
};

void multiply(const float* a, const float* b, SummedPositions over, bool add, float* memory) {
  Tile tile{.memory = memory, .add = add};
  int64_t summed = 0;
  for (int64_t row = 0; row < over.rows; ++row) {
    const float* from_a = a + over.a_offsets[row];
    const float* from_b = b + over.b_offsets[row];
    for (int64_t begin = 0; begin < over.positions; begin += over.together) {
      const int64_t rest = over.positions - begin;
      const int64_t count = rest < over.together ? rest : over.together;
      if (summed + count > over.together) {
        tile.flush();
        summed = 0;
      }
      summed += count;
      for (int64_t position = 0; position < count; ++position) {
        Floats right[vectors_of_tile];
#pragma GCC unroll 2
        for (int v = 0; v < vectors_of_tile; ++v) {
          right[v] = Memory<float>::load(from_b + v * lanes);
        }
#pragma GCC unroll 8
        for (int i = 0; i < tile_height; ++i) {
#pragma GCC unroll 2
          for (int v = 0; v < vectors_of_tile; ++v) tile.sums[i][v] += from_a[i] * right[v];
        }
        from_a += over.a_step;
        from_b += over.b_step;
      }
    }
  }
  tile.flush();
}

}  // namespace

extern const WeightGradientKernels weight_gradient = {
    tile_height, tile_width, pack_of_type<tile_height>, pack_of_type<tile_width>, multiply,
};

}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
