// The instruction set of the CPU kernels: one build runs anywhere, as each kernel is compiled once
// per capability and chosen when the process starts.
#pragma once

namespace cnngraph {

enum class CpuCapability { baseline, avx2, avx512 };

// The best the processor supports, or less with CNNGRAPH_CPU_CAPABILITY=default|avx2|avx512.
CpuCapability cpu_capability();

const char* name_of(CpuCapability capability);

// The kernel table `table` compiled for the capability in use.
#if defined(__x86_64__)
#define CNNGRAPH_KERNELS_IN_USE(table)                       \
  (cpu_capability() == CpuCapability::avx512 ? avx512::table \
   : cpu_capability() == CpuCapability::avx2 ? avx2::table   \
                                             : baseline::table)
#else
#define CNNGRAPH_KERNELS_IN_USE(table) (baseline::table)
#endif

// Whether the processor has instructions that multiply bfloat16.
bool multiplies_bfloat16();

// Whether libraries only have scalar loops for bfloat16: the processor neither multiplies bfloat16
// nor has AVX-512.
bool bfloat16_is_slow();

}  // namespace cnngraph
