#include <torch/library.h>

#include "cat_batch_norm_act.h"

namespace cnngraph {

TORCH_LIBRARY_IMPL(cnngraph, CUDA, library) {
  library.impl("cat_batch_norm_act", &cat_batch_norm_act<batch_norm_act_into_cuda>);
}

}  // namespace cnngraph
