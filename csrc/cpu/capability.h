// Which instruction set the CPU kernels use: one build runs anywhere, each kernel is compiled once
// per capability and chosen when the process starts.
#pragma once

namespace cnngraph {

enum class CpuCapability { baseline, avx2, avx512 };

// The best the processor has, lowered by CNNGRAPH_CPU_CAPABILITY=default|avx2|avx512.
CpuCapability cpu_capability();

const char* name_of(CpuCapability capability);

// Whether the processor multiplies bfloat16, and whether libraries do so by its widest vectors if
// not. Where neither holds they fall back to loops of single numbers.
bool multiplies_bfloat16();
bool has_avx512();

}  // namespace cnngraph
