"""Ready recipes for published models: ``FAMILY/METHOD-MEMORY.yaml`` each, which `vpo init` writes."""
