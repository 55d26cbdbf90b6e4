"""anyrank."""
