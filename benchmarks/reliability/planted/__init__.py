"""Small faults planted in the source, one at a time, and whether the fast tests nearest to them fail."""
