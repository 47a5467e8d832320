"""The GPU kernels against the bandwidth of the GPU, torch and the original project; the server on a GPU."""
