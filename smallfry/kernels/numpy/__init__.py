"""The kernels in NumPy: the names, arguments and bytes of the native ones, slower."""
