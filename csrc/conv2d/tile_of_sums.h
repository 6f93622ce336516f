// The columns of a tile of a matrix product, whose sums are in registers.
#pragma once

#include "../cpu/vector.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {
namespace {

constexpr int lanes = Memory<float>::lanes;
constexpr int vectors_of_tile = 2;
constexpr int tile_width = vectors_of_tile * lanes;

}  // namespace
}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
