"""What the commands do, as functions: `vpo_kit` offers the main ones by name."""
