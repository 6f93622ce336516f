#include "../cpu/target_default.h"
// After the target, which it is compiled for.
#include "row_product_loops.h"
