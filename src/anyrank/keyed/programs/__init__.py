"""Programs for keyed data, one file each."""
