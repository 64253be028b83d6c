"""What each command of `vpo` does, one file each."""
