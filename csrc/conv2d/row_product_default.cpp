#include "../cpu/target_default.h"
// The target comes first: it changes how what follows is compiled.
#include "row_product_loops.h"
