// Which instruction set the CPU kernels use: one build runs anywhere, each kernel is compiled once
// per capability and chosen when the process starts.
#pragma once

namespace cnngraph {

enum class CpuCapability { baseline, avx2, avx512 };

// The best the processor has, lowered by CNNGRAPH_CPU_CAPABILITY=default|avx2|avx512.
CpuCapability cpu_capability();

const char* name_of(CpuCapability capability);

// The table of that name which was compiled for the capability in use.
#if defined(__x86_64__)
#define CNNGRAPH_KERNELS_IN_USE(table)                                             \
  (cpu_capability() == CpuCapability::avx512 ? avx512::table                       \
   : cpu_capability() == CpuCapability::avx2 ? avx2::table                         \
                                             : baseline::table)
#else
#define CNNGRAPH_KERNELS_IN_USE(table) (baseline::table)
#endif

// Whether the processor multiplies bfloat16.
bool multiplies_bfloat16();

// Whether libraries have nothing but loops of single numbers for bfloat16: where the processor
// does not multiply it, nor has the widest vectors to do so in float.
bool bfloat16_is_slow();

}  // namespace cnngraph
