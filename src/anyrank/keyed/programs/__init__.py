"""The programs that work on keyed data, one file each."""
