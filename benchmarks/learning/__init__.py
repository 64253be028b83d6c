"""How far methods learn on the embedded model, with what settings, and what stops them."""
