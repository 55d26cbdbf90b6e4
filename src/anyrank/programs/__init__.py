"""The programs that come with anyrank, one file each."""
