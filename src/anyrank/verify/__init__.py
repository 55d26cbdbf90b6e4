"""Verify: run a program in all the ways that must not matter, and name the first thing that differs."""
