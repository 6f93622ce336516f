#include "../cpu/target_default.h"
// After the target, which it is compiled for.
#include "max_pool2d_loops.h"
