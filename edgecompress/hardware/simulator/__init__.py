"""Cycle-level simulators of the accelerator families: they move integers and count by doing it.

Nothing here may import the closed forms of ``hardware/models``; the two are compared in tests.
"""
