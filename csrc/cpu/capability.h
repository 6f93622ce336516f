// Which instruction set the CPU kernels use: one build runs anywhere, each kernel is compiled once
// per capability and chosen when the process starts.
#pragma once

namespace cnngraph {

enum class CpuCapability { baseline, avx2, avx512 };

// The best the processor has, lowered by CNNGRAPH_CPU_CAPABILITY=default|avx2|avx512.
CpuCapability cpu_capability();

const char* name_of(CpuCapability capability);

}  // namespace cnngraph
