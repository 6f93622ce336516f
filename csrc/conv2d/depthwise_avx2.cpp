#if defined(__x86_64__)
#include "../cpu/target_avx2.h"
// After the target, which it is compiled for.
#include "depthwise_loops.h"
#endif
