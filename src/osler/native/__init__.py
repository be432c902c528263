"""The native engine: packed weights, and C kernels that multiply them on the CPU."""
