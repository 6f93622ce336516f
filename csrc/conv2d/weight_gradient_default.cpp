#include "../cpu/target_default.h"
// After the target, which it is compiled for.
#include "weight_gradient_loops.h"
