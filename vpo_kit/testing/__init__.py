"""What tests of methods, adapters and rewards need, ours and those of plug-ins."""
