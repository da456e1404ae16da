"""Simulation of the firmware: the int8 kernels that compute exactly what the device will."""
