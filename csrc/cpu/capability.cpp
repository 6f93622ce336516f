#include "capability.h"

#include <c10/util/Exception.h>

#include <cstdlib>
#include <cstring>

namespace cnngraph {
namespace {

CpuCapability best_capability() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return CpuCapability::avx512;
  }
  if (avx2) return CpuCapability::avx2;
#endif
  return CpuCapability::baseline;
}

CpuCapability chosen_capability() {
  const CpuCapability best = best_capability();
  const char* wanted = std::getenv("CNNGRAPH_CPU_CAPABILITY");
  if (wanted == nullptr || *wanted == '\0') return best;
  for (CpuCapability capability :
       {CpuCapability::baseline, CpuCapability::avx2, CpuCapability::avx512}) {
    if (std::strcmp(wanted, name_of(capability)) != 0) continue;
    if (capability <= best) return capability;
    TORCH_WARN("CNNGRAPH_CPU_CAPABILITY=", wanted, " is more than this processor has; using ",
               name_of(best), ".");
    return best;
  }
  TORCH_WARN("CNNGRAPH_CPU_CAPABILITY=", wanted, " is none of default, avx2, avx512; using ",
             name_of(best), ".");
  return best;
}

}  // namespace

CpuCapability cpu_capability() {
  static const CpuCapability capability = chosen_capability();
  return capability;
}

bool multiplies_bfloat16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return true;  // not known: leave bfloat16 to torch
#endif
}

bool bfloat16_is_slow() {
  static const bool slow = !multiplies_bfloat16() && best_capability() != CpuCapability::avx512;
  return slow;
}

const char* name_of(CpuCapability capability) {
  switch (capability) {
    case CpuCapability::avx512:
      return "avx512";
    case CpuCapability::avx2:
      return "avx2";
    default:
      return "default";
  }
}

}  // namespace cnngraph
