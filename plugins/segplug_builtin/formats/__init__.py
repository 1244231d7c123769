"""File formats: what readers and writers have in common."""
