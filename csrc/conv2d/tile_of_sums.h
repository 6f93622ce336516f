// The tile of a matrix product whose sums are in registers.
#pragma once

#include "../cpu/vector.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {
namespace {

constexpr int lanes = Memory<float>::lanes;
constexpr int vectors_of_tile = 2;
constexpr int tile_width = vectors_of_tile * lanes;
// As many sums as fit into 16 registers. AVX-512 has 32, but eight rows are enough to hide the
// latency of an addition, and they divide the usual numbers of channels.
constexpr int tile_height = CNNGRAPH_VECTOR_BYTES == 64 ? 8 : 6;

}  // namespace
}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
