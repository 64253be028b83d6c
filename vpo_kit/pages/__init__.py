"""What all pages are made of: one stylesheet, rows of videos in step, tables, curves. Pages open from disk, offline."""
