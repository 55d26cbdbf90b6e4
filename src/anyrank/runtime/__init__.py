"""A run: the loop, its stops, its folder, its failures, and how its ranks are started."""
