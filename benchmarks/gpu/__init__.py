"""GPU kernels against memory bandwidth, torch and the original project; the server on a GPU."""
