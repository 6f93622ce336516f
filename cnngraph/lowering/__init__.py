"""The last stage of the compiler: graph -> modules with generated code."""
