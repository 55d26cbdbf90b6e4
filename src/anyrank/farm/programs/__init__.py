"""The program of the farm."""
