"""The kernels in NumPy: same names, arguments and bytes as the native ones, but slower."""
