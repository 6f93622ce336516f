// Compiles the rest of the file for the baseline: SSE2 on x86-64, NEON on arm64.
#pragma once

#define CNNGRAPH_CAPABILITY baseline
#define CNNGRAPH_VECTOR_BYTES 16
