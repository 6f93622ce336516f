#include "../cpu/target_default.h"
// After the target, which it is compiled for.
#include "batch_norm_act_loops.h"
