"""Measurements on the machine at hand, and the device file and calibration made from them."""
