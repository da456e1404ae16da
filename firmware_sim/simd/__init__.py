"""The SIMD room: the few instructions that differ between processors, and the steps of the cells made of them."""
