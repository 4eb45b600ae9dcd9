"""Networks as torch modules, and their measured cost."""
