"""Where a run can also be followed: one file for each program, entry points `vpo_kit.trackers`."""
