#if defined(__x86_64__)
#include "../cpu/target_avx2.h"
// The target comes first: it changes how what follows is compiled.
#include "row_product_loops.h"
#endif
