"""Sets of videos that other people have judged: read in their own layouts, and set against rewards."""
