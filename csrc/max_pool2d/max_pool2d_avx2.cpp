#if defined(__x86_64__)
#include "../cpu/target_avx2.h"
// After the target, which it is compiled for.
#include "max_pool2d_loops.h"
#endif
