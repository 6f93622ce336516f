// The platforms that the kernels are written for. Elsewhere setup.py does not build them, and
// networks run with plain torch.
#pragma once

#if defined(_WIN32) || __SIZEOF_POINTER__ != 8 || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "cnngraph's kernels need a 64-bit little-endian system that is not Windows"
#endif
