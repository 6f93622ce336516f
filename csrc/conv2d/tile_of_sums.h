// The part of a product of matrices that is summed in registers.
#pragma once

#include "../cpu/vector.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {
namespace {

constexpr int lanes = Memory<float>::lanes;
constexpr int vectors_of_tile = 2;
constexpr int tile_width = vectors_of_tile * lanes;
// As many sums as 16 registers leave room for. AVX-512 has 32, but eight rows hide an addition's
// time too, and divide the numbers of channels that networks have.
constexpr int tile_height = CNNGRAPH_VECTOR_BYTES == 64 ? 8 : 6;

}  // namespace
}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
