#include "../cpu/target_default.h"
// After the target, which it is compiled for.
#include "depthwise_loops.h"
