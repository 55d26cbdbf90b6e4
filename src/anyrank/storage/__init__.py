"""Files on disk: durable ones, and what is written into them at known offsets."""
