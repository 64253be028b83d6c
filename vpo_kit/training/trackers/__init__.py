"""The programs in which a run can also be followed: one file for each, entry points `vpo_kit.trackers`."""
